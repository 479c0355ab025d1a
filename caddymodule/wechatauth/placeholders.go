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

// setPlaceholders tells who the user is. All placeholders of a user that it does not
// know become empty: an earlier handler, such as basic_auth, may have set them, and an
// unknown placeholder would reach the app as its own name. Map costs less than Set.
func setPlaceholders(r *http.Request, openID, unionID, appID string) {
	provideUser(r, func(name string) (any, bool) {
		switch name {
		case userOpenID:
			return openID, true
		case userUnionID:
			return unionID, true
		case userAppID:
			return appID, true
		}
		return noUser(name)
	})
}

// clearPlaceholders makes all placeholders of a user empty. It allocates nothing.
func clearPlaceholders(r *http.Request) { provideUser(r, noUser) }

// provideUser makes provide the source of the placeholders of a user.
func provideUser(r *http.Request, provide caddy.ReplacerFunc) {
	repl := replacer(r)
	repl.DeleteByPrefix(userPrefix)
	repl.Map(provide)
}

func noUser(name string) (any, bool) { return "", strings.HasPrefix(name, userPrefix) }
