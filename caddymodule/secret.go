package caddymodule

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// CheckSecret refuses a secret that is written out. Caddy shows its configuration in several places (the admin API's /config, the autosave file, debug logs; CADDY.md 1.9), so a secret
// must be named, not stated: the placeholder is what is shown. {$VAR} does not help, it is replaced before anybody looks. The error does not repeat the value.
func CheckSecret(what, value string) error {
	name, ok := strings.CutPrefix(value, "{")
	name, closed := strings.CutSuffix(name, "}")
	known := strings.HasPrefix(name, "env.") || strings.HasPrefix(name, "file.")
	if ok && closed && known && !strings.ContainsAny(name, "{}") {
		return nil
	}
	return fmt.Errorf("%s is written out, or came from {$VAR}, and would be shown by /config and in debug logs: name it instead, as {env.NAME} or {file./run/secrets/name}", what)
}

// ResolveSecret returns what the placeholder stands for, without the newline that files end with. It is empty when the variable or file is missing or empty.
func ResolveSecret(what, value string) (string, error) {
	if err := CheckSecret(what, value); err != nil {
		return "", err
	}
	return strings.TrimSpace(caddy.NewReplacer().ReplaceAll(value, "")), nil
}
