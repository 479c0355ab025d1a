package caddymodule

import (
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

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func init() { caddy.RegisterModule(new(WeChatAPI)) }

// WeChatAPI lets an app call WeChat without any token. A request for `/wxa/…`, `/cgi-bin/…` and the like goes to the API of WeChat with the access token of the mini program added, and the answer
// comes back as it is. Calls that need a user's session_key are made by the gate itself, under `/wx/user/`. It needs the app `wechat`, and belongs on a listener that only the app can reach.
//
// In a Caddyfile it is the directive `wechat_api`, alone in a site of its own:
//
//	http://127.0.0.1:8081 {
//		wechat_api {
//			app          <appid>
//			allow        <paths...>
//			allow_remote
//			timeout      <duration>
//			max_body     <size>
//		}
//	}
//
// Every answer to a call of WeChat carries `X-Openapi-Seqid`, as WeChat Cloud Hosting's do; the log names it where something went wrong.
type WeChatAPI struct {
	// The mini program whose access token is used. Default: the one that the call names by the parameter `from_appid`, which is taken off, else the only one that is configured.
	App string `json:"app,omitempty"`

	// The paths that may be called, in place of the default list; the word `default` stands for that list. Calls for tokens, secrets and session_keys are refused whatever stands here.
	Allow []string `json:"allow,omitempty"`

	// Serve callers on other machines, and behind proxies, too, under any host name. By default a caller has to be on this machine: its own address counts, no header, and over TCP the Host has to be
	// one that nobody can have in the public DNS. Whoever gets through can call WeChat in the name of the mini program. Web pages never do.
	AllowRemote bool `json:"allow_remote,omitempty"`

	// How long a call may take, its answer's body included. Default: 30s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The longest body of a call, in bytes. Default: 20 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	log   *zap.Logger
	app   *App
	appID string // of App, resolved
	apps  map[string]weixin.Credentials
	allow pathList
	proxy *reverseproxy.Handler
}

// CaddyModule returns the Caddy module information.
func (WeChatAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.wechat_api", New: func() caddy.Module { return new(WeChatAPI) }}
}

// errNoAppForAPI means that there is a wechat_api and no app.
var errNoAppForAPI = errors.New("wechat_api needs the global option wechat, which is missing: write { wechat { app <appid> {env.WX_SECRET} } } at the top of the Caddyfile")

// Provision finds the app and prepares the way to WeChat. It opens nothing.
func (a *WeChatAPI) Provision(ctx caddy.Context) error {
	a.log = ctx.Logger()
	app, err := ctx.AppIfConfigured("wechat")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return errNoAppForAPI
	}
	if err != nil {
		return err
	}
	a.app = app.(*App)
	a.apps = make(map[string]weixin.Credentials)
	for _, m := range a.app.apps {
		a.apps[m.ID] = m
	}
	if a.appID, err = caddy.NewReplacer().ReplaceOrErr(a.App, false, true); err != nil {
		return fmt.Errorf("resolving app of wechat_api: %w", err)
	}
	if _, ok := a.apps[a.appID]; a.appID != "" && !ok {
		return errors.New("wechat_api is for mini program " + a.appID + ", which the global option wechat does not configure: add the line app " + a.appID + " {env.WX_SECRET} there")
	}
	for _, word := range a.Allow {
		if err := checkAllow(word); err != nil {
			return err
		}
	}
	a.allow = newPathList(a.Allow)
	if a.Timeout == 0 {
		a.Timeout = caddy.Duration(30 * time.Second)
	}
	if a.MaxBody == 0 {
		a.MaxBody = 20 << 20
	}
	if err := apiMetrics.register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	a.proxy, err = newAPIProxy(ctx, a.app.API.BaseURL)
	return err
}

// Validate checks what Provision read.
func (a *WeChatAPI) Validate() error {
	if a.Timeout < 0 || a.MaxBody < 0 {
		return errors.New("wechat_api: timeout and max_body must not be negative: leave them out for the defaults")
	}
	return nil
}

// Cleanup gives back what the way to WeChat holds. Calls under way go on.
func (a *WeChatAPI) Cleanup() error {
	if a.proxy == nil { // not even provisioned
		return nil
	}
	return errors.Join(a.proxy.Cleanup(), a.proxy.Transport.(*apiTransport).http.Cleanup())
}

// apiCall is one call of an app while it is served.
type apiCall struct {
	name   string // for the metrics: a pattern of the allow-list or a user call
	result string // for the metrics: ok, token_refused, broken_off, client_gone, or the code of a problem
	seqID  string
	failed error // what the way to WeChat has failed with, or the reading of the answer

	live *running
	app  weixin.Credentials
}

// ServeHTTP answers every request itself. There is no next handler that an app could want to reach here.
func (a *WeChatAPI) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	began, c := time.Now(), &apiCall{name: "other", result: brokenOff}
	defer func() {
		if c.result == brokenOff { // reverse_proxy panics
			c.tellBroken(r)
		}
		apiMetrics.done(c, time.Since(began))
	}()
	err := a.serve(w, r, c)
	if err == nil {
		if c.result == brokenOff {
			c.result = "ok"
		}
		return nil
	}
	p, ok := errors.AsType[problem](err)
	if !ok {
		p = apiProblem(err)
	}
	level := p.level()
	if c.result = p.code; r.Context().Err() != nil {
		c.result, level = "client_gone", zap.InfoLevel
	}
	a.log.Log(max(level, zap.InfoLevel), "call refused", zap.String("code", p.code), zap.Error(apiCause(err)), zap.String("method", r.Method), zap.String("path", r.URL.Path),
		zap.String("seqid", c.seqID), zap.String("remote_addr", r.RemoteAddr))
	return p.write(w)
}

// brokenOff is the result of a call for as long as its answer is not complete.
const brokenOff = "broken_off"

// tellBroken logs a call whose answer has begun and will not end.
func (c *apiCall) tellBroken(r *http.Request) {
	level := zap.WarnLevel
	if r.Context().Err() != nil {
		c.result, level = "client_gone", zap.InfoLevel
	}
	liveLogger().Named("api").Log(level, "answer broke off", zap.String("appid", c.app.ID), zap.String("path", c.name), zap.String("seqid", c.seqID), zap.Error(c.failed))
}

// serve answers one request. What keeps a call from WeChat is a problem, or an error that apiProblem makes one of.
func (a *WeChatAPI) serve(w http.ResponseWriter, r *http.Request, c *apiCall) error {
	if why := a.barred(r); why != "" {
		return callerRefused(why)
	}
	decoded, plain := gate.Canonical(r.URL.EscapedPath())
	if !plain {
		return callRefused("the path is not in its plain form, and nobody could tell how WeChat reads it")
	}
	if name, ok := strings.CutPrefix(decoded, userPrefix); ok {
		return a.serveUser(w, r, c, name)
	}
	if why := refusedPath(decoded); why != "" {
		return callRefused(why)
	}
	pattern, ok := a.allow.match(r.URL.EscapedPath())
	if !ok {
		return callRefused("the path is not on the list of this site's wechat_api: its operator can add it there, with allow")
	}
	c.name = pattern
	if err := a.prepare(r, c); err != nil {
		return err
	}
	c.seqID = rand.Text()
	w.Header().Set(seqIDHeader, c.seqID)
	var err error
	if c.live, err = a.app.enter(r.Context()); err != nil {
		return err
	}
	defer c.live.lease.leave()
	return a.relay(w, r, c)
}

// seqIDHeader is how apps of WeChat Cloud Hosting know that their call went through its open-API service (WECHAT.md 8.6).
const seqIDHeader = "X-Openapi-Seqid"

// prepare checks the rest of a call and finds its mini program.
func (a *WeChatAPI) prepare(r *http.Request, c *apiCall) error {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		p := invalidRequest(http.StatusMethodNotAllowed, "WeChat's API knows GET and POST")
		p.allow = "GET, POST"
		return p
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalidRequest(http.StatusBadRequest, "the query is malformed")
	}
	if len(query[fromAppID]) > 1 {
		return invalidRequest(http.StatusBadRequest, fromAppID+" is given twice")
	}
	if c.app, err = a.appOf(query.Get(fromAppID)); err != nil {
		return err
	}
	query.Del(fromAppID)
	r.URL.RawQuery = query.Encode()
	return nil
}

// fromAppID is the parameter by which an app of WeChat Cloud Hosting chooses among accounts (WECHAT.md 8.6).
const fromAppID = "from_appid"

// appOf returns the mini program that a call means; id is what it says itself, if anything.
func (a *WeChatAPI) appOf(id string) (weixin.Credentials, error) {
	switch {
	case id == "":
		id = a.appID
	case a.appID != "" && id != a.appID:
		return weixin.Credentials{}, probOtherApp
	}
	if id == "" {
		if len(a.apps) != 1 {
			return weixin.Credentials{}, invalidRequest(http.StatusBadRequest, "the gate serves several mini programs: name one ("+fromAppID+" in the query, appid in the body of a user call)")
		}
		id = slices.Collect(maps.Keys(a.apps))[0]
	}
	app, ok := a.apps[id]
	if !ok {
		return weixin.Credentials{}, probOtherApp
	}
	return app, nil
}

func callRefused(why string) problem {
	return problem{status: http.StatusForbidden, code: "call_not_allowed", detail: why}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*WeChatAPI)(nil)
	_ caddy.Validator             = (*WeChatAPI)(nil)
	_ caddy.CleanerUpper          = (*WeChatAPI)(nil)
	_ caddyhttp.MiddlewareHandler = (*WeChatAPI)(nil)
)
