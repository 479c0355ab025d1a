package caddymodule

import (
	"errors"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

func init() { caddy.RegisterModule(new(Gate)) }

// Gate guards a site whose app knows nothing of WeChat. It removes every identity header that a client sends, answers the login endpoints itself, and lets a request on to the next handler
// only with what it has verified: `X-WX-OPENID`, `X-WX-APPID`, `X-WX-SOURCE`, `X-WX-UNIONID` when it is known, and `X-WX-PHONE` when it is remembered. It needs the app `wechat`.
//
// In a Caddyfile it is the directive `wechat_auth`, which runs before `request_header` and `reverse_proxy`. It takes no matcher, since one would hide the login endpoints and let the rest of
// the site through unguarded; exemptions are listed inside:
//
//	wechat_auth {
//		cloudrun
//		endpoints <prefix>
//		public    <paths...>
//		optional  <paths...>
//		apps      <appids...>
//		token header <name>
//		headers {
//			openid  <name>
//			unionid <name>
//			appid   <name>
//			source  <name>
//			phone   <name>
//		}
//	}
//
// A path is written out (`/healthz`) or ends in `/*` (`/assets/*`). A rule opens only a path that all servers read in one way; anything else under it stays protected.
//
// On accepted requests it sets these placeholders; the first is also the access log's `user_id`:
//
// Placeholder | Description
// ------------|-------------
// `{http.auth.user.id}` | The openid
// `{http.auth.user.unionid}` | The unionid, or empty
// `{http.auth.user.appid}` | The mini program
type Gate struct {
	// Ask for no session and trust the identity headers of WeChat Cloud Hosting, behind which this gate then has to stand: whoever reaches it otherwise can claim to be anybody. Close public access to
	// the service there. Requests without `X-WX-SOURCE`, and those of proxies for local debugging, are refused.
	Cloudrun bool `json:"cloudrun,omitempty"`

	// Prefix of the gate's own endpoints `login`, `logout`, `session`, `decrypt` and `phone`. The app never sees a request under it. Default: `/wx`.
	Endpoints string `json:"endpoints,omitempty"`

	// Paths that need no session and never look at a token.
	Public []string `json:"public,omitempty"`

	// Paths where a request without a token goes on as a guest. A token that is presented must be good.
	Optional []string `json:"optional,omitempty"`

	// Mini programs whose sessions this site accepts. Default: all that are configured.
	Apps []string `json:"apps,omitempty"`

	// The only header that carries the token. Default: `Authorization: Bearer`, then `X-3rd-Session`.
	TokenHeader string `json:"token_header,omitempty"`

	// Names of the headers that the app reads, each by its word: `openid`, `unionid`, `appid`, `source` and `phone`.
	// Default: `X-WX-` and the word in capitals. `unionid` and `phone` are only there when they are known.
	// The value of `source` is always wx_client. Names that begin with `X-WX-` are removed from every request in any case.
	Headers map[string]string `json:"headers,omitempty"`

	log  *zap.Logger
	app  *App
	apps []string
	gate *gate.Rules
}

// CaddyModule returns the Caddy module information.
func (Gate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.wechat_auth", New: func() caddy.Module { return new(Gate) }}
}

// errNoApp means that there is a gate and no app.
var errNoApp = errors.New("wechat_auth needs the global option wechat, which is missing: write { wechat { app <appid> {env.WX_SECRET} } } at the top of the Caddyfile")

// Provision finds the app and prepares the rules.
func (g *Gate) Provision(ctx caddy.Context) error {
	g.log = ctx.Logger()
	if g.Cloudrun {
		return g.provisionCloudrun(ctx)
	}
	app, err := ctx.AppIfConfigured("wechat")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return errNoApp
	}
	if err != nil {
		return err // of the app itself: Caddy provisions in no order
	}
	g.app = app.(*App)
	for _, a := range g.app.apps {
		g.apps = append(g.apps, a.ID)
	}
	if len(g.Apps) > 0 {
		if g.apps, err = g.siteApps(); err != nil {
			return err
		}
	}
	g.gate, err = gate.New(g.rules())
	return err
}

// errSiteApp means that a site names a mini program that nobody can log in to.
func errSiteApp(id string) error {
	return errors.New("wechat_auth accepts mini program " + id + ", which the global option wechat does not configure: add the line app " + id + " {env.WX_SECRET} there")
}

// siteApps checks the list of this site against the configured mini programs.
func (g *Gate) siteApps() (ids []string, err error) {
	for _, a := range g.Apps {
		id, err := caddy.NewReplacer().ReplaceOrErr(a, false, true)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(g.apps, id) {
			return nil, errSiteApp(id)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (g *Gate) rules() gate.Config {
	return gate.Config{
		Headers: g.Headers, TokenHeader: g.TokenHeader, TokenPrefix: keyring.TokenPrefix,
		Endpoints: g.Endpoints, EndpointNames: endpointNames(), Public: g.Public, Optional: g.Optional,
	}
}

// ServeHTTP decides about one request. Nothing is done after the next handler, the response writer is not wrapped and the request is not cloned.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if g.Cloudrun {
		return g.serveCloudrun(w, r, next)
	}
	dropped, err := g.gate.Clean(r)
	if dropped > 0 {
		metrics.droppedOptions.Add(float64(dropped))
	}
	if err != nil {
		return g.refuse(w, r, resultBadTrailer, probTrailer)
	}
	route := g.gate.Route(r)
	token, err := g.gate.Credential(r)
	switch route.Class {
	case gate.Public:
		metrics.decided(resultPublic)
		return next.ServeHTTP(w, r)
	case gate.NotFound:
		return g.refuse(w, r, resultNotFound, probNotFound)
	}
	if err != nil && route.Endpoint != endpointLogin {
		return g.refuse(w, r, resultAmbiguous, probAmbiguous)
	}
	if route.Class == gate.Endpoint {
		return g.serveEndpoint(w, r, route.Endpoint, token)
	}
	if token == "" {
		if route.Class == gate.Optional {
			metrics.decided(resultGuest)
			return next.ServeHTTP(w, r)
		}
		return g.refuse(w, r, resultMissing, probMissing)
	}
	id, err := g.authenticate(r, token)
	if err != nil {
		return g.refuseToken(w, r, err)
	}
	if err := g.gate.Inject(r, gate.Identity{gate.OpenID: id.OpenID, gate.UnionID: id.UnionID, gate.AppID: id.AppID, gate.Phone: id.Phone}); err != nil {
		// A record that was never fit for a header cannot have come from a login: nobody is served on its strength.
		return g.refuse(w, r, resultBroken, probInvalid)
	}
	metrics.decided(resultAccepted)
	setPlaceholders(r, id.OpenID, id.UnionID, id.AppID)
	return next.ServeHTTP(w, r)
}

// setPlaceholders tells the rest of the configuration who is calling.
func setPlaceholders(r *http.Request, openID, unionID, appID string) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.auth.user.id", openID)
	repl.Set("http.auth.user.unionid", unionID)
	repl.Set("http.auth.user.appid", appID)
}

// errOtherApp means that a session is good but of a mini program that the site does not accept.
var errOtherApp = errors.New("mini program not accepted here")

// authenticate returns whose token it is, if the site accepts that mini program.
func (g *Gate) authenticate(r *http.Request, token string) (session.Identity, error) {
	live, err := g.app.enter(r.Context())
	if err != nil {
		return session.Identity{}, err
	}
	defer live.lease.leave()
	id, err := live.sessions.Authenticate(r.Context(), token)
	if err == nil && !slices.Contains(g.apps, id.AppID) {
		err = errOtherApp
	}
	return id, err
}

// refuseToken answers a request whose token did not pass.
func (g *Gate) refuseToken(w http.ResponseWriter, r *http.Request, err error) error {
	for _, c := range []struct {
		err    error
		result result
		prob   problem
	}{
		{session.ErrMalformed, resultMalformed, probInvalid},
		{session.ErrForged, resultForged, probInvalid},
		{session.ErrUnknown, resultUnknown, probInvalid},
		{session.ErrExpired, resultExpired, probInvalid},
		{session.ErrRevoked, resultRevoked, probInvalid},
		{errOtherApp, resultOtherApp, probOtherApp},
	} {
		if errors.Is(err, c.err) {
			return g.refuse(w, r, c.result, c.prob)
		}
	}
	// Whatever else went wrong is ours, and must not cost anybody the session.
	return g.refuse(w, r, resultStoreDown, probStoreDown)
}

// refuse answers in the app's stead. The line is the operator's only sight of the reason, except in an outage, which has its own.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, why result, p problem) error {
	metrics.decided(why)
	g.log.Log(p.level(), "refused", zap.String("reason", string(why)), zap.Int("status", p.status), zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.String("client_ip", clientIP(r)))
	return p.write(w)
}

// clientIP is Caddy's word for it, which honours trusted_proxies; no header is read here (THREATS.md 6).
func clientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Gate)(nil)
	_ caddyhttp.MiddlewareHandler = (*Gate)(nil)
)
