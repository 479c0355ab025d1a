// Package wechatapi owns the handler `wechat_api`: calls of an app to WeChat without a
// token, by an allow-list of paths, and calls for a user that need the session_key.
//
// It must not know wechat_auth.
//
// # Metrics
//
//	caddy_wechat_api_calls_total{path,result}
//		calls by pattern of the allow-list or user call: ok, token_refused,
//		broken_off, client_gone, or the code of the problem
//	caddy_wechat_api_call_duration_seconds{path}
//		their duration, to the end of the answer
package wechatapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler lets an app call WeChat without a token. A request for `/wxa/…`,
// `/cgi-bin/…` and the like goes to WeChat's API with the access token of the mini
// program added, and the answer comes back unchanged. The gate makes the calls that
// need a user's session_key itself, under `/wx/user/`. It needs the app `wechat`, and
// belongs on a listener that only the app can reach.
//
// In a Caddyfile it is the directive `wechat_api`, alone in a site of its own:
//
//	http://127.0.0.1:8081 {
//		wechat_api {
//			app          <appid>
//			allow        <paths...>
//			allow_remote
//			secret       <placeholder>
//			timeout      <duration>
//			max_body     <size>
//		}
//	}
//
// Every answer to a call of WeChat carries `X-Openapi-Seqid`, as those of WeChat
// Cloud Hosting do; the log names it where a call fails.
type Handler struct {
	// The mini program whose access token the calls use. Default: the one that the
	// call names by the parameter `from_appid`, which the gate removes, else the only
	// one configured.
	App string `json:"app,omitempty"`

	// The paths that may be called, in place of the default list; the word `default`
	// stands for that list. Calls for tokens, secrets and session_keys are refused in
	// any case.
	Allow []string `json:"allow,omitempty"`

	// Serve callers on other machines and behind proxies, under any host name. By
	// default a caller must be on this machine: its own address counts, no header,
	// and over TCP the Host must be a name that cannot be in the public DNS. A caller
	// that gets through can call WeChat in the name of the mini program. Web pages
	// are refused in any case.
	AllowRemote bool `json:"allow_remote,omitempty"`

	// What a caller must send in the header `X-Wxgate-Secret`, as a placeholder. It
	// keeps out other programs on this machine, and what an app can be made to call.
	// Default: none.
	Secret string `json:"secret,omitempty"`

	// How long a call may take, the body of the answer included. Default: 30s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The longest body of a call, in bytes. Default: 20 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	log      *zap.Logger
	refusals *wechatapp.RefusalLog
	app      *wechatapp.App
	appID    string // of App, resolved
	secret   string // likewise
	apps     map[string]weixin.Credentials
	allow    pathList
	proxy    *reverseproxy.Handler
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.wechat_api",
		New: func() caddy.Module { return new(Handler) },
	}
}

// errNoApp refuses a wechat_api without the app `wechat`.
var errNoApp = errors.New("wechat_api needs the global option wechat, which is missing: " +
	"write { wechat { app <appid> {env.WX_SECRET} } } at the top of the Caddyfile")

// Provision finds the app and prepares the way to WeChat. It opens nothing.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log = ctx.Logger()
	h.refusals = wechatapp.NewRefusalLog(h.log)
	app, err := ctx.AppIfConfigured("wechat")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return errNoApp
	}
	if err != nil {
		return err
	}
	h.app = app.(*wechatapp.App)
	h.apps = make(map[string]weixin.Credentials)
	for _, m := range h.app.MiniPrograms() {
		h.apps[m.ID] = m
	}
	if h.appID, err = caddy.NewReplacer().ReplaceOrErr(h.App, false, true); err != nil {
		return fmt.Errorf("resolving app of wechat_api: %w", err)
	}
	if _, ok := h.apps[h.appID]; h.appID != "" && !ok && !h.app.HasPlatforms() {
		return fmt.Errorf("wechat_api is for mini program %s, "+
			"which the global option wechat does not configure: "+
			"add the line app %[1]s {env.WX_SECRET} there", h.appID)
	}
	if h.Secret != "" {
		if h.secret, err = block.ResolveSecret("secret of wechat_api", h.Secret); err != nil {
			return err
		}
		if h.secret == "" {
			h.log.Warn("placeholder is empty; wechat_api will refuse all calls",
				zap.String("placeholder", h.Secret))
			h.app.Lacks("secret " + h.Secret + " of wechat_api")
		}
	}
	for _, word := range h.Allow {
		if err := checkAllow(word); err != nil {
			return err
		}
	}
	h.allow = newPathList(h.Allow)
	if h.Timeout == 0 {
		h.Timeout = caddy.Duration(30 * time.Second)
	}
	if h.MaxBody == 0 {
		h.MaxBody = 20 << 20
	}
	if err := metrics.register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	h.proxy, err = newAPIProxy(ctx, h.app.API.BaseURL)
	return err
}

// Validate checks what Provision read.
func (h *Handler) Validate() error {
	if h.Timeout < 0 || h.MaxBody < 0 {
		return errors.New(
			"wechat_api: timeout and max_body must not be negative: " +
				"leave them out for the defaults",
		)
	}
	return nil
}

// Cleanup gives back what the way to WeChat holds. Calls under way go on.
func (h *Handler) Cleanup() error {
	if h.proxy == nil { // not even provisioned
		return nil
	}
	return errors.Join(h.proxy.Cleanup(), h.proxy.Transport.(*apiTransport).http.Cleanup())
}

// apiCall is one call of an app while it is served.
type apiCall struct {
	name string // for the metrics: a pattern of the allow-list or a user call
	// for the metrics: ok, token_refused, broken_off, client_gone, or the code
	// of a problem
	result string
	seqID  string
	failed error // what the way to WeChat has failed with, or the reading of the answer

	live *wechatapp.Live
	app  weixin.Credentials
}

// ServeHTTP answers every request itself. There is no next handler that an app
// could want to reach here.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	began, c := time.Now(), &apiCall{name: "other", result: brokenOff}
	defer func() {
		if c.result == brokenOff { // reverse_proxy panics
			c.tellBroken(r)
		}
		metrics.done(c, time.Since(began))
	}()
	err := h.serve(w, r, c)
	if err == nil {
		if c.result == brokenOff {
			c.result = "ok"
		}
		return nil
	}
	if e, ok := errors.AsType[caddyhttp.HandlerError](err); ok && e.Err != nil {
		err = e.Err // the status and the place in Caddy's source explain nothing
	}
	p := problemFor(err)
	p.ID = reply.NewID()
	level := p.Level()
	if c.result = p.Code; r.Context().Err() != nil {
		c.result, level = "client_gone", zap.InfoLevel
	}
	h.refusals.Log(max(level, zap.InfoLevel), "call refused", p.Code,
		zap.String("code", p.Code), zap.Error(reply.Cause(err)),
		wechatapp.Bounded("method", r.Method), wechatapp.Bounded("path", r.URL.Path),
		zap.String("seqid", c.seqID), zap.String("remote_addr", r.RemoteAddr),
		wechatapp.ProblemID(p.ID))
	return p.Write(w, r)
}

// problemFor returns what an app is told for an error.
func problemFor(err error) reply.Problem {
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return bodyTooLong(e.Limit)
	}
	return reply.For(reply.Relay, err)
}

// brokenOff is the result of a call for as long as its answer is not complete.
const brokenOff = "broken_off"

// tellBroken logs a call whose answer has begun and will not end.
func (c *apiCall) tellBroken(r *http.Request) {
	level := zap.WarnLevel
	if r.Context().Err() != nil {
		c.result, level = "client_gone", zap.InfoLevel
	}
	wechatapp.Logger("api").
		Log(
			level, "answer broke off", zap.String("appid", c.app.ID), zap.String("path", c.name),
			zap.String("seqid", c.seqID), zap.Error(c.failed),
		)
}

// serve answers one request. What keeps a call from WeChat is a problem, or an
// error that apiProblem makes one of.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, c *apiCall) error {
	if why := h.barred(r); why != "" {
		return callerRefused(why)
	}
	decoded, plain := gate.Canonical(r.URL.EscapedPath())
	if !plain {
		return callRefused(
			"the path is not in its plain form, so servers may read it in different ways",
		)
	}
	if name, ok := strings.CutPrefix(decoded, userPrefix); ok {
		return h.serveUser(w, r, c, name)
	}
	if why := refusedPath(decoded); why != "" {
		return callRefused(why)
	}
	pattern, ok := h.allow.match(r.URL.EscapedPath())
	if !ok {
		return callRefused(
			"the path is not on the list of this site's wechat_api: its operator can " +
				"add it there, with allow",
		)
	}
	c.name = pattern
	if err := h.prepare(r, c); err != nil {
		return err
	}
	c.seqID = rand.Text()
	w.Header().Set(seqIDHeader, c.seqID)
	return h.relay(w, r, c)
}

// seqIDHeader is how apps of WeChat Cloud Hosting know that their call went
// through its open-API service (docs/wechat.md#open-api-service).
const seqIDHeader = "X-Openapi-Seqid"

// prepare checks the rest of a call and finds its mini program.
func (h *Handler) prepare(r *http.Request, c *apiCall) error {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		p := reply.Invalid(http.StatusMethodNotAllowed, "WeChat's API knows GET and POST")
		p.Allow = "GET, POST"
		return p
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return reply.Invalid(http.StatusBadRequest, "the query is malformed")
	}
	if len(query[fromAppID]) > 1 {
		return reply.Invalid(http.StatusBadRequest, fromAppID+" is given twice")
	}
	if c.live, err = h.app.Live(r.Context()); err != nil {
		return err
	}
	if c.app, err = h.appOf(r.Context(), c.live, query.Get(fromAppID)); err != nil {
		return err
	}
	query.Del(fromAppID)
	r.URL.RawQuery = query.Encode()
	return nil
}

// fromAppID is the parameter by which an app of WeChat Cloud Hosting chooses
// among accounts (docs/wechat.md#open-api-service).
const fromAppID = "from_appid"

// appOf returns the mini program that a call means; id is what it says itself,
// if anything.
func (h *Handler) appOf(
	ctx context.Context, live *wechatapp.Live, id string,
) (weixin.Credentials, error) {
	switch {
	case id == "":
		id = h.appID
	case h.appID != "" && id != h.appID:
		return weixin.Credentials{}, reply.OtherApp
	}
	if id == "" {
		if len(h.apps) != 1 || h.app.HasPlatforms() {
			return weixin.Credentials{}, reply.Invalid(
				http.StatusBadRequest,
				"the gate serves several mini programs: name one ("+fromAppID+
					" in the query, appid in the body of a user call)",
			)
		}
		id = slices.Collect(maps.Keys(h.apps))[0]
	}
	if app, ok := h.apps[id]; ok {
		return app, nil
	}
	return live.Merchant(ctx, id)
}

func callRefused(why string) reply.Problem {
	return reply.Problem{Status: http.StatusForbidden, Code: "call_not_allowed", Detail: why}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
