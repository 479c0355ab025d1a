package block

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// CheckSecret refuses a secret that is written out. Caddy shows its
// configuration in several places (the admin API's /config, the autosave file,
// debug logs; docs/caddy.md#secrets), so the configuration holds a placeholder.
// {$VAR} does not help: Caddy replaces it first. The error does not repeat the
// value.
func CheckSecret(what, value string) error {
	name, ok := strings.CutPrefix(value, "{")
	name, closed := strings.CutSuffix(name, "}")
	known := strings.HasPrefix(name, "env.") || strings.HasPrefix(name, "file.")
	if ok && closed && known && !strings.ContainsAny(name, "{}") {
		return nil
	}
	return fmt.Errorf("%s is written out, or came from {$VAR}, "+
		"and would be shown by /config and in debug logs: "+
		"name it instead, as {env.NAME} or {file./run/secrets/name}", what)
}

// ResolveSecret returns the value of a placeholder, without the newline at the end
// of a file. It is empty when the variable or file is missing or empty.
func ResolveSecret(what, value string) (string, error) {
	if err := CheckSecret(what, value); err != nil {
		return "", err
	}
	return strings.TrimSpace(caddy.NewReplacer().ReplaceAll(value, "")), nil
}
