// Package admin owns the operator's verbs against the running gate: the routes
// /wechat/* of Caddy's admin API and the commands that call them, one file a verb
// with its answer type, route and command.
//
// It must not know the handlers of sites.
package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

func init() { caddy.RegisterModule(API{}) }

// API is the operator's view of the running gate, under `/wechat/` of Caddy's admin
// endpoint:
//
//	GET  /wechat/status                    state of store, cache, WeChat, limits
//	GET  /wechat/sessions?appid=…&openid=… a user with sessions; or ?unionid=…
//	GET  /wechat/count?appid=…             users and live sessions; also of one user, of a
//	                                       unionid, or ?all=true
//	POST /wechat/revoke                    end sessions: {"appid", "openid", "session"},
//	                                       {"appid", "openid"}, {"unionid"}, {"appid"}
//	                                       or {"all": true}
//	POST /wechat/forget                    remove a user: {"appid", "openid"} or {"unionid"}
//	POST /wechat/block                     keep users out: as forget, with "for", "reason"
//	POST /wechat/unblock                   {"appid", "openid"} or {"unionid"}
//	GET  /wechat/blocked                   the blocks that hold
//	POST /wechat/backup                    the database, as it is at one moment
//	GET  /wechat/keys                      the names of the master and assertion keys
//	POST /wechat/keys/rotate-assertion     make a new assertion key
//	GET  /wechat/component                 third-party platforms and their mini programs
//	POST /wechat/component/link            {"component", "redirect_uri"}: where to authorise
//	POST /wechat/component/repair          {"component", "reset"}: read WeChat's list
//
// Where mini programs belong to several Open Platform accounts, a unionid goes with an
// "open_platform". It shows no token, no key and no more of a session's digest than names it. The
// commands `wechat status`, `sessions`, `revoke`, `forget`, `block`, `unblock`,
// `blocked`, `backup`, `keys` and `component` use it.
type API struct{}

// verb is one verb of the operator: a route and the command that calls it.
type verb struct {
	path, method string
	noBrowser    bool // refused even to the admin endpoint's own pages
	serve        func(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error
	command      func() *cobra.Command // nil: a command of another verb calls it
}

// verbs is the table of verbs.
var verbs = []verb{
	{path: "status", method: http.MethodGet, serve: serveStatus, command: statusCommand},
	{path: "sessions", method: http.MethodGet, serve: serveSessions, command: sessionsCommand},
	{path: "count", method: http.MethodGet, serve: serveCount},
	{path: "revoke", method: http.MethodPost, serve: serveRevoke, command: revokeCommand},
	{path: "forget", method: http.MethodPost, serve: serveForget, command: forgetCommand},
	{path: "block", method: http.MethodPost, serve: serveBlock, command: blockCommand},
	{path: "unblock", method: http.MethodPost, serve: serveUnblock, command: unblockCommand},
	{path: "blocked", method: http.MethodGet, serve: serveBlocked, command: blockedCommand},
	{
		path: "backup", method: http.MethodPost, serve: serveBackup, command: backupCommand,
		noBrowser: true,
	},
	{path: "keys", method: http.MethodGet, serve: serveKeys, command: keysCommand},
	{
		path: "component", method: http.MethodGet, serve: serveComponents,
		command: componentCommand,
	},
	{path: "component/link", method: http.MethodPost, serve: serveComponentLink},
	{path: "component/repair", method: http.MethodPost, serve: serveComponentRepair},
	{path: "keys/rotate-assertion", method: http.MethodPost, serve: serveRotateAssertion},
}

// Commands returns the commands of all verbs.
func Commands() (cmds []*cobra.Command) {
	for _, v := range verbs {
		if v.command != nil {
			cmds = append(cmds, v.command())
		}
	}
	return cmds
}

// CaddyModule returns the Caddy module information.
func (API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.wechat", New: func() caddy.Module { return new(API) }}
}

// Routes returns the routes of all verbs.
func (API) Routes() (routes []caddy.AdminRoute) {
	for _, v := range verbs {
		routes = append(routes, caddy.AdminRoute{Pattern: "/wechat/" + v.path, Handler: v})
	}
	return routes
}

// ServeHTTP implements caddy.AdminHandler.
//
// It asks the App that runs, not the one of the configuration of this admin
// endpoint: during a reload the new endpoint answers before the new App is there,
// and asking the new context for it would provision it twice, at the same time as
// Caddy does.
func (v verb) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	reply.Mark(h) // the commands accept answers with the mark only
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case crossSite(r) != "":
		return webPage(crossSite(r))
	case v.noBrowser && fromBrowser(r) != "":
		return webPage(fromBrowser(r))
	case r.Method != v.method:
		h.Set("Allow", v.method)
		return refusal(http.StatusMethodNotAllowed, "call it with "+v.method, nil)
	}
	a := wechatapp.Current()
	if a == nil {
		return refusal(http.StatusNotFound, "no gate with sessions is running: the "+
			"configuration has no global option `wechat`, or is just being loaded", nil)
	}
	live, err := a.Live(r.Context())
	if err != nil {
		return refusal(http.StatusServiceUnavailable,
			"the gate is just starting or ending: try again", err)
	}
	return v.serve(live, w, r)
}

func webPage(header string) error {
	return refusal(http.StatusForbidden,
		"this is not for web pages; the header "+header+" says that one asks", nil)
}

// crossSite returns the header by which a browser says that the page of another site
// asks, or "" (docs/threats.md#t31). Caddy's own check lets the origins pass that its
// configuration names.
func crossSite(r *http.Request) string {
	own := "http://" + r.Host
	if r.TLS != nil {
		own = "https://" + r.Host
	}
	foreign := func(origin string) bool { return !strings.EqualFold(origin, own) }
	another := func(site string) bool { return site != "none" && site != "same-origin" }
	switch {
	case slices.ContainsFunc(r.Header["Origin"], foreign):
		return "Origin"
	case slices.ContainsFunc(r.Header["Sec-Fetch-Site"], another):
		return "Sec-Fetch-Site"
	}
	return ""
}

// fromBrowser returns the header by which a browser says that any page, or the
// address bar, asks, or "".
func fromBrowser(r *http.Request) string {
	for _, name := range []string{"Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"} {
		if r.Header[name] != nil {
			return name
		}
	}
	return ""
}

// refusal is an answer that is no success. The message goes to the caller; the
// cause, if there is more to say, to Caddy's log.
func refusal(status int, message string, cause error) error {
	return caddy.APIError{HTTPStatus: status, Message: message, Err: cause}
}

// storeRefusal is the refusal for an error of the session store.
func storeRefusal(err error) error {
	if errors.Is(err, session.ErrUnavailable) {
		return refusal(
			http.StatusServiceUnavailable,
			"the session store does not answer; the log has the reason", err,
		)
	}
	return refusal(http.StatusInternalServerError,
		"the session store failed; the log has the reason", err)
}

// answerAdmin sends an answer.
func answerAdmin(w http.ResponseWriter, body any) error {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body) // a client that has left is no failure of ours
	return nil
}

// Interface guards
var (
	_ caddy.Module       = (*API)(nil)
	_ caddy.AdminRouter  = (*API)(nil)
	_ caddy.AdminHandler = verb{}
)
