// Package wechatauth owns the handler `wechat_auth`: the decision about each request
// of a site, and the site's own endpoints.
//
// It must not know stores, the admin API, commands or wechat_api. It has more than 14
// files: one for each endpoint or word that does something of its own.
//
// # Logs
//
// One line for each login and log-out, and for the first refusals of a kind; then one
// line a second with their number and the latest. No line holds a token, a code, a
// session_key, a secret or open data. Openids are in the lines of logins and of the
// calls that follow, and in the access log's user_id; a unionid is in none.
//
// # Metrics
//
//	caddy_wechat_decisions_total{result}
//		requests by decision; beside the log the only place that says why the
//		gate refused a token
//	caddy_wechat_logins_total{result}
//		logins: ok, replayed, client_gone, or the code of the problem
//	caddy_wechat_login_limits_total{limit}
//		logins that a limit of the gate refused
//	caddy_wechat_login_duration_seconds
//		how long successful logins took
//	caddy_wechat_endpoint_calls_total{endpoint,result}
//		calls of the other endpoints that no session or rule refused, likewise
//	caddy_wechat_pushes_total{event,result}
//		calls of the endpoint push
//	caddy_wechat_dropped_connection_options_total
//		attempts to remove headers through the Connection header
package wechatauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/assertion"
	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/judge"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler guards a site whose app knows nothing of WeChat. It removes every
// identity header that a client sends, answers the login endpoints itself, and
// passes a request to the next handler only with the identity that it has verified:
// `X-WX-OPENID`, `X-WX-APPID`, `X-WX-SOURCE`, `X-WX-UNIONID` when it is known, and
// `X-WX-PHONE` when it is remembered. It needs the app `wechat`.
//
// In a Caddyfile it is the directive `wechat_auth`, which runs after
// `basic_auth` and before `forward_auth`, `request_header` and `reverse_proxy`.
// It takes no matcher: one would hide the login endpoints and leave the rest of
// the site unguarded. List exemptions inside:
//
//	wechat_auth {
//		cloudrun
//		endpoints <prefix>
//		verify
//		assertion {
//			audience <text>
//			issuer   <url>
//		}
//		public    <paths...>
//		optional  <paths...>
//		required  <paths...>
//		apps      <appids...>
//		token header <name>
//		dialect   wafer
//		login_fields <names...>
//		tickets
//		cors      <origins...>
//		headers {
//			openid  <name>
//			unionid <name>
//			appid   <name>
//			source  <name>
//			phone   <name>
//			assertion <name>
//		}
//	}
//
// A path is written out (`/healthz`) or ends in `/*` (`/assets/*`). A rule opens
// only a path that all servers read in one way; any other path under it stays
// protected.
//
// The handler sets these placeholders on each request that it passes on, for guests
// and on public paths to the empty string; the first is also the access log's
// `user_id`:
//
// Placeholder | Description
// ------------|-------------
// `{http.auth.user.id}` | The openid
// `{http.auth.user.unionid}` | The unionid, or empty
// `{http.auth.user.appid}` | The mini program
type Handler struct {
	// Ask for no session and trust the identity headers of WeChat Cloud Hosting. The
	// gate must run behind it: a client that reaches the gate directly can claim to
	// be any user, so close public access to the service there. The gate refuses
	// requests without `X-WX-SOURCE` and those of proxies for local debugging.
	Cloudrun bool `json:"cloudrun,omitempty"`

	// Prefix of the gate's own endpoints `login`, `logout`, `session`, `sessions`,
	// `decrypt` and `phone`. The app never sees a request under it. Default: `/wx`.
	Endpoints string `json:"endpoints,omitempty"`

	// Judge requests in the place of another proxy (nginx auth_request, Traefik, Envoy
	// and their kin), at `verify` and `verify-optional` under the prefix.
	Verify bool `json:"verify,omitempty"`

	// Send a signed proof of the identity along, in `X-WX-ASSERTION`.
	Assertion *Assertion `json:"assertion,omitempty"`

	// Paths that need no session. The gate never looks at a token there.
	Public []string `json:"public,omitempty"`

	// Paths that a request without a token enters as a guest. A presented token must
	// be valid.
	Optional []string `json:"optional,omitempty"`

	// Paths that need a session, each with everything below it; every other path is
	// public. Not together with `public` or `optional`.
	Required []string `json:"required,omitempty"`

	// Mini programs whose sessions this site accepts. Default: all configured ones.
	Apps []string `json:"apps,omitempty"`

	// The only header that carries the token. Default: `Authorization: Bearer`, then
	// `X-3rd-Session`.
	TokenHeader string `json:"token_header,omitempty"`

	// Serve the clients of Tencent's Wafer, 1 and 2, too: `wafer`. They log in with
	// `X-WX-Code`, by GET, and send the token as `X-WX-Skey`.
	Dialect string `json:"dialect,omitempty"`

	// Names under which the body of a login may hold the code. Default: `code`.
	LoginFields []string `json:"login_fields,omitempty"`

	// Let clients make links that are good without a header: for `<image>`, `<video>`,
	// web-view and downloads.
	Tickets bool `json:"tickets,omitempty"`

	// Origins whose pages may call the site from a browser, as `https://h5.example.com`.
	Cors []string `json:"cors,omitempty"`

	// Names of the headers that the app reads, each by its word: `openid`, `unionid`,
	// `appid`, `source`, `phone` and `assertion`. Default: `X-WX-` and the word in
	// capitals. `unionid` and `phone` are absent when unknown. The value of `source` is
	// always wx_client. The gate removes every name that begins with `X-WX-` from
	// every request in any case.
	Headers map[string]string `json:"headers,omitempty"`

	log       *zap.Logger
	refusals  *wechatapp.RefusalLog
	app       *wechatapp.App
	apps      []string // accepted mini programs; nil in cloudrun mode: any
	merchants bool     // accepts those of third-party platforms beside apps
	rules     *gate.Rules
	signer    *assertion.Signer // nil: the site does not sign
	appCalls  chan struct{}     // pushes on their way to the app
	vary      []string          // names the token's headers; shared by all answers
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.wechat_auth",
		New: func() caddy.Module { return new(Handler) },
	}
}

// errNoApp refuses a gate without the app `wechat`.
var errNoApp = errors.New("wechat_auth needs the global option wechat, which is missing: " +
	"write { wechat { app <appid> {env.WX_SECRET} } } at the top of the Caddyfile")

// errCloudrunAndVerify refuses to vouch for what the gate itself only trusts.
var errCloudrunAndVerify = errors.New("cloudrun trusts WeChat Cloud Hosting, " +
	"and the gate cannot vouch for that: take out verify and assertion, or cloudrun")

// errCloudrunAndSessions refuses two sources of identity on one site.
var errCloudrunAndSessions = errors.New("cloudrun trusts WeChat Cloud Hosting, " +
	"which has no tokens and its own header names: take out token and headers, or cloudrun")

func (h *Handler) checkCloudrun() error {
	if h.Cloudrun && (h.TokenHeader != "" || len(h.Headers) > 0) {
		return errCloudrunAndSessions
	}
	if h.Cloudrun && (h.Verify || h.Assertion != nil) {
		return errCloudrunAndVerify
	}
	return nil
}

// Provision finds the app and prepares the rules.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log = ctx.Logger()
	h.refusals = wechatapp.NewRefusalLog(h.log)
	if err := errors.Join(h.checkCloudrun(), h.checkDialect()); err != nil {
		return err
	}
	for _, name := range h.LoginFields {
		if err := checkLoginField(name); err != nil {
			return err
		}
	}
	if err := metrics.register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	h.atExit(ctx)
	app, err := ctx.AppIfConfigured("wechat")
	switch {
	case err == nil:
		h.app = app.(*wechatapp.App)
		h.apps = append([]string{}, h.app.AppIDs()...)
		h.merchants = h.app.HasPlatforms() && len(h.Apps) == 0
	case h.Cloudrun: // it uses no session and no secret
	case errors.Is(err, caddy.ErrNotConfigured):
		return errNoApp
	default:
		return err // of the app itself: Caddy provisions in no order
	}
	if len(h.Apps) > 0 {
		if h.apps, err = h.siteApps(); err != nil {
			return err
		}
	}
	if h.rules, err = gate.New(h.Rules()); err != nil {
		return err
	}
	h.provisionDeliver(ctx)
	if err := errors.Join(h.checkEvents(), h.provisionAssertion(ctx)); err != nil {
		return err
	}
	if !h.Cloudrun {
		h.vary = []string{strings.Join(h.tokenHeaders(), ", ")}
	}
	return guardErrors(ctx, h.rules)
}

// tokenHeaders lists the headers in which the site takes a token.
func (h *Handler) tokenHeaders() []string {
	names := h.rules.TokenHeaders()
	if h.Dialect != "" {
		names = append(names, waferSkey)
	}
	return names
}

// siteApps returns the list of this site, with placeholders resolved. In cloudrun
// mode a mini program need not be configured.
func (h *Handler) siteApps() (ids []string, err error) {
	for _, a := range h.Apps {
		id, err := caddy.NewReplacer().ReplaceOrErr(a, h.Cloudrun, true)
		if err != nil {
			return nil, fmt.Errorf("resolving apps of wechat_auth: %w", err)
		}
		if h.Cloudrun {
			err = wechatapp.CheckAppID(id)
		} else if h.app.HasPlatforms() {
			err = wechatapp.CheckAppID(id) // it may authorise one later
		} else if !slices.Contains(h.apps, id) {
			err = errSiteApp(id)
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// errSiteApp refuses a site for a mini program that no user can log in to.
func errSiteApp(id string) error {
	return fmt.Errorf("wechat_auth accepts mini program %s, "+
		"which the global option wechat does not configure: "+
		"add the line app %[1]s {env.WX_SECRET} there", id)
}

// Rules returns the configuration of the request hygiene.
func (h *Handler) Rules() gate.Config {
	return gate.Config{
		Headers: h.Headers, Signed: h.Assertion != nil,
		TokenHeader: h.TokenHeader, TokenPrefix: keyring.TokenPrefix,
		Endpoints: h.Endpoints, EndpointNames: h.endpointNames(),
		VerifyEndpoints: h.verifyEndpoints(), Tickets: h.Tickets, Reserved: h.deliverPaths(),
		Public: h.Public, Optional: h.Optional, Required: h.Required,
	}
}

// ServeHTTP executes what Decide says of a request. After the next handler it only
// forgets the stream; it does not clone the request, and wraps the response writer only
// for WebSockets and for other origins. A user whom a gate has identified stays that
// user in error routes.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if isJudged(r) {
		if appID := placeholder(r, userAppID); appID != "" {
			if err := h.served(r.Context(), appID); h.apps != nil && err != nil {
				return h.refuse(w, r, refused(err))
			}
			return next.ServeHTTP(w, r)
		}
	}
	c := h.read(r)
	verify := verifies(c.Route)
	if len(h.Cors) > 0 && !verify {
		if w = h.cors(w, r); w == nil {
			return nil
		}
	}
	if class := c.Route.Class; class != gate.Public && class != gate.NotFound {
		vary(w.Header(), h.vary)
	}
	if verify {
		reply.NoWait(w.Header(), r)
	}
	d := Decide(c)
	if (d.Do == Answer || verify) && inErrorRoute(r) {
		d = refuse(NotFound, &reply.NotFound, "")
	}
	switch d.Do {
	case Refuse:
		return h.refuse(w, r, h.detailed(d, c, r))
	case Answer:
		if endpointOf(c.Route.Endpoint).app {
			r = withNext(r, next)
		}
		return h.serveEndpoint(w, r, c)
	case Check:
		s, answer := newStream(w, r)
		defer s.done()
		if err := h.identify(w, r, c, s); err != nil {
			return h.refuse(w, r, refused(err))
		}
		w = answer
	case Trust:
		c.Platform.Restore(r)
		if id := c.Platform.Identity; d.Result == Accepted {
			setPlaceholders(r, id[gate.OpenID], id[gate.UnionID], id[gate.AppID])
		}
	}
	if d.Result != Accepted {
		clearPlaceholders(r)
	}
	metrics.decided(d.Result)
	if verify {
		return h.verified(w, r)
	}
	markJudged(r)
	endAtExit(w, r)
	return next.ServeHTTP(w, r)
}

// read cleans a request and returns what it claims. Clean comes first: what a
// client must not send is gone whatever Decide says.
func (h *Handler) read(r *http.Request) Claims {
	c := Claims{
		Cloudrun: h.Cloudrun, Apps: h.apps,
		Early: r.TLS != nil && !r.TLS.HandshakeComplete, Unsafe: !isSafe(r.Method),
	}
	if h.Cloudrun {
		c.Platform, c.Untrue = h.rules.Platform(r) // Clean removes the headers
	}
	if h.Dialect != "" {
		h.takeWafer(r)
	}
	found, err := h.rules.Clean(r)
	if found.Dropped > 0 {
		metrics.droppedOptions.Add(float64(found.Dropped))
	}
	c.Trailer = err
	c.Route = h.rules.Route(r)
	if c.Route.Class == gate.Public || c.Route.Class == gate.Optional {
		h.rules.DropRouting(r, found)
	}
	c.Stray = h.rules.Unread(r)
	c.Token, err = h.rules.Credential(r)
	c.Ambiguous = err
	c.Stray = cmp.Or(h.rules.Stray(r, found), c.Stray)
	if c.Token == "" && c.Ambiguous == nil {
		c.Token = tokenTaken(r)
	}
	if h.Tickets {
		c.Ticket = takeTicket(h.rules, r)
	}
	return c
}

// vary tells caches that an answer depends on the token (docs/threats.md#t45).
func vary(h http.Header, names []string) {
	if old := h["Vary"]; len(old) > 0 && len(names) > 0 {
		names = slices.Concat(old, names)
	}
	if len(names) > 0 {
		h["Vary"] = names
	}
}

// identify puts the identity behind the token or the ticket of a request into it, and
// begins its stream.
func (h *Handler) identify(w http.ResponseWriter, r *http.Request, c Claims, s *stream) error {
	token := c.Token
	if token == "" {
		var err error
		if token, err = h.fromTicket(w, r, c.Ticket); err != nil {
			return err
		}
	}
	live, err := h.app.Live(r.Context())
	if err != nil {
		return err
	}
	id, err := live.Sessions.OpenStream(r.Context(), token, &s.Stream)
	if err != nil {
		return err
	}
	s.open = true
	if err := h.served(r.Context(), id.AppID); err != nil {
		return err
	}
	proof, err := h.sign(r, id)
	if err != nil {
		return err
	}
	err = h.rules.Inject(r, gate.Identity{
		gate.OpenID: id.OpenID, gate.UnionID: id.UnionID,
		gate.AppID: id.AppID, gate.Phone: id.Phone, gate.Assertion: proof,
	})
	if err == nil {
		setPlaceholders(r, id.OpenID, id.UnionID, id.AppID)
	}
	return err
}

// authenticate returns the identity behind a token, if the site accepts its mini
// program.
func (h *Handler) authenticate(r *http.Request, token string) (session.Identity, error) {
	live, err := h.app.Live(r.Context())
	if err != nil {
		return session.Identity{}, err
	}
	id, err := live.Sessions.Authenticate(r.Context(), token)
	if err == nil {
		err = h.served(r.Context(), id.AppID)
	}
	return id, err
}

// served refuses the user of a mini program that the site does not accept. One that has
// withdrawn from a third-party platform keeps the sessions that it has.
func (h *Handler) served(ctx context.Context, appID string) error {
	if slices.Contains(h.apps, appID) {
		return nil
	}
	if h.merchants {
		live, err := h.app.Live(ctx)
		if err != nil {
			return err
		}
		if ok, err := live.Serves(ctx, appID); ok || err != nil {
			return err
		}
	}
	return reply.NotServed(appID)
}

// refuse answers in the app's place. Its log line alone tells the operator why.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, d Decision) error {
	metrics.decided(d.Result)
	p := *d.Problem
	p.Wafer = h.Dialect != "" && p.Status == http.StatusUnauthorized
	p.ID, p.Detail = reply.NewID(), cmp.Or(d.Why, p.Detail)
	h.refusals.Log(p.Level(), "refused", string(d.Result),
		zap.String("reason", string(d.Result)), zap.Int("status", p.Status),
		wechatapp.Bounded("method", r.Method), wechatapp.Bounded("path", r.URL.Path),
		zap.String("client_ip", clientIP(r)), wechatapp.ProblemID(p.ID))
	return p.Write(w, r)
}

// refuseCall answers a call of an endpoint that is malformed.
func (h *Handler) refuseCall(
	w http.ResponseWriter, r *http.Request, endpoint string, p reply.Problem,
) error {
	metrics.called(endpoint, p.Code)
	p.ID = reply.NewID()
	h.refusals.Log(p.Level(), "call refused", p.Code,
		zap.String("code", p.Code), zap.Int("status", p.Status), zap.Error(reply.Cause(p)),
		wechatapp.Bounded("method", r.Method), wechatapp.Bounded("path", r.URL.Path),
		zap.String("client_ip", clientIP(r)), wechatapp.ProblemID(p.ID))
	return p.Write(w, r)
}

// clientIP returns Caddy's client IP, which honours trusted_proxies; wechatauth
// reads no header for it (docs/threats.md#t6).
func clientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}

// Guards implements judge.Gate.
func (h *Handler) Guards() (endpoints string, public []string) {
	if !h.Cloudrun {
		endpoints = cmp.Or(h.Endpoints, "/wx")
	}
	return endpoints, h.Public
}

// Interface guards
var (
	_ judge.Gate                  = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
