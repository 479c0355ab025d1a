package wechatauth

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// The placeholders that tell the rest of the configuration who the user is.
const (
	userPrefix  = "http.auth.user."
	userOpenID  = userPrefix + "id"
	userUnionID = userPrefix + "unionid"
	userAppID   = userPrefix + "appid"
)

func replacer(r *http.Request) *caddy.Replacer {
	return r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}

func placeholder(r *http.Request, name string) string {
	s, _ := replacer(r).GetString(name)
	return s
}

func setPlaceholders(r *http.Request, openID, unionID, appID string) {
	repl := replacer(r)
	repl.Set(userOpenID, openID)
	repl.Set(userUnionID, unionID)
	repl.Set(userAppID, appID)
}

// clearPlaceholders makes all placeholders of a user empty. An earlier handler, such
// as basic_auth, may have set them, and an unknown placeholder would reach the app as
// its own name. Set would allocate here; Map does not.
func clearPlaceholders(r *http.Request) {
	repl := replacer(r)
	repl.DeleteByPrefix(userPrefix)
	repl.Map(noUser)
}

func noUser(name string) (any, bool) { return "", strings.HasPrefix(name, userPrefix) }
