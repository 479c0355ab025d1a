package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

func init() { caddy.RegisterModule(adminAPI{}) }

// adminAPI is the operator's view of the running gate, under `/wechat/` of Caddy's admin endpoint:
//
//	GET  /wechat/status                            how the gate does
//	GET  /wechat/sessions?appid=…&openid=…         what is known of a user; or ?unionid=… in all mini programs
//	POST /wechat/revoke                            ends sessions: {"appid", "openid", "session"}, {"appid", "openid"}, {"unionid"}, {"appid"} or {"all": true}
//	POST /wechat/forget                            removes all that is known of a user, sessions included: {"appid", "openid"} or {"unionid"}
//	GET  /wechat/backup                            the database, as it stands at one moment
//	GET  /wechat/keys                              the names of the master keys
//
// It shows no token, no key and no more of a session's digest than names it. The commands `wechat status`, `sessions`, `revoke`, `forget`, `backup` and `keys` are made of it.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.wechat", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes returns what is served.
func (adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/wechat/status", Handler: adminCall{method: http.MethodGet, serve: serveStatus}},
		{Pattern: "/wechat/sessions", Handler: adminCall{method: http.MethodGet, serve: serveSessions}},
		{Pattern: "/wechat/revoke", Handler: adminCall{method: http.MethodPost, serve: serveRevoke}},
		{Pattern: "/wechat/forget", Handler: adminCall{method: http.MethodPost, serve: serveForget}},
		{Pattern: "/wechat/backup", Handler: adminCall{method: http.MethodGet, serve: serveBackup, noBrowser: true}},
		{Pattern: "/wechat/keys", Handler: adminCall{method: http.MethodGet, serve: serveKeys}},
	}
}

// adminCall is one call of the API.
type adminCall struct {
	method    string
	noBrowser bool // not even from the admin endpoint's own pages
	serve     func(live *running, w http.ResponseWriter, r *http.Request) error
}

// ServeHTTP implements caddy.AdminHandler.
//
// The App is the one that is running, not the one of the configuration whose admin endpoint this is: during a reload the new endpoint answers before the new App is there, and asking the new
// context for it would provision it a second time, beside Caddy, which guards none of that against concurrent use.
func (c adminCall) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	mark(h) // the commands take nobody else's word
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case crossSite(r), c.noBrowser && fromBrowser(r):
		return refusal(http.StatusForbidden, "this is not for web pages", nil)
	case r.Method != c.method:
		h.Set("Allow", c.method)
		return refusal(http.StatusMethodNotAllowed, "call it with "+c.method, nil)
	}
	a := current.Load()
	if a == nil {
		return refusal(http.StatusNotFound, "no gate with sessions is running: the configuration has no global option `wechat`, or is just being loaded", nil)
	}
	live, err := a.enter(r.Context())
	if err != nil {
		return refusal(http.StatusServiceUnavailable, "the gate is just starting or ending: try again", err)
	}
	defer live.lease.leave()
	return c.serve(live, w, r)
}

// crossSite reports whether a browser says that somebody else's page is asking (THREATS.md 31). Caddy's own check lets the origins pass that its configuration names.
func crossSite(r *http.Request) bool {
	own := "http://" + r.Host
	if r.TLS != nil {
		own = "https://" + r.Host
	}
	return slices.ContainsFunc(r.Header["Origin"], func(o string) bool { return !strings.EqualFold(o, own) }) ||
		slices.ContainsFunc(r.Header["Sec-Fetch-Site"], func(s string) bool { return s != "none" && s != "same-origin" })
}

// fromBrowser reports whether any page, or the address bar, is asking.
func fromBrowser(r *http.Request) bool {
	return r.Header["Sec-Fetch-Site"] != nil || r.Header["Sec-Fetch-Mode"] != nil || r.Header["Sec-Fetch-Dest"] != nil
}

// refusal is an answer that is no success. The message goes to the caller; the cause, if there is more to say, to Caddy's log.
func refusal(status int, message string, cause error) error {
	return caddy.APIError{HTTPStatus: status, Message: message, Err: cause}
}

// storeRefusal is the refusal for an error of the session store.
func storeRefusal(err error) error {
	if errors.Is(err, session.ErrUnavailable) {
		return refusal(http.StatusServiceUnavailable, "the session store does not answer; the log has the reason", err)
	}
	return refusal(http.StatusInternalServerError, "that went wrong; the log has the reason", err)
}

// answerAdmin sends an answer.
func answerAdmin(w http.ResponseWriter, body any) error {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body) // a client that has left is no failure of ours
	return nil
}

// audit writes the one line that each revocation and each backup leaves in the log, whether it worked or not.
func audit(r *http.Request, what string, err error, fields ...zap.Field) {
	log := liveLogger().Named("audit")
	fields = append(fields, zap.String("remote_addr", r.RemoteAddr))
	if err != nil {
		log.Error(what+": failed", append(fields, zap.Error(err))...)
		return
	}
	log.Info(what, fields...)
}

// Interface guards
var (
	_ caddy.Module       = (*adminAPI)(nil)
	_ caddy.AdminRouter  = (*adminAPI)(nil)
	_ caddy.AdminHandler = adminCall{}
)
