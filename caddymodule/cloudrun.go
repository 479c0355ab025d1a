package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// In this mode the gate stands behind WeChat Cloud Hosting and hands on what the platform says of a caller. It has nothing to do with the app `wechat`: no secret, no session, no store.

// errCloudrunAndSessions means that a site would have two ways of telling who calls.
var errCloudrunAndSessions = errors.New("cloudrun takes the word of WeChat Cloud Hosting, which has no tokens and its own header names: take out token and headers, or cloudrun")

func (g *Gate) checkCloudrun() error {
	if g.Cloudrun && (g.TokenHeader != "" || len(g.Headers) > 0) {
		return errCloudrunAndSessions
	}
	return nil
}

// provisionCloudrun prepares the rules. Mini programs may be listed whether or not the app `wechat` knows them; without a list, those that it knows count, or any.
func (g *Gate) provisionCloudrun(ctx caddy.Context) error {
	if err := g.checkCloudrun(); err != nil {
		return err
	}
	for _, a := range g.Apps {
		id, err := caddy.NewReplacer().ReplaceOrErr(a, true, true)
		if err != nil {
			return fmt.Errorf("resolving apps of wechat_auth: %w", err)
		}
		if err := checkAppID(id); err != nil {
			return err
		}
		g.apps = append(g.apps, id)
	}
	if app, err := ctx.AppIfConfigured("wechat"); err == nil && len(g.Apps) == 0 {
		for _, a := range app.(*App).apps {
			g.apps = append(g.apps, a.ID)
		}
	}
	if err := metrics.register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	var err error
	g.gate, err = gate.New(g.rules())
	return err
}

// The problems of this mode. They are no 401: there is no logging in here, and a client that tried would do so for ever.
var (
	probNoIdentity = problem{status: 403, code: "identity_missing", detail: "this route needs a user, and the request does not come from one by way of WeChat Cloud Hosting"}
	probIdentity   = problem{status: 403, code: "identity_refused", detail: "the identity headers of this request are not those of WeChat Cloud Hosting"}
)

// serveCloudrun decides about one request, as ServeHTTP does.
func (g *Gate) serveCloudrun(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	platform, untrue := g.gate.Platform(r)
	dropped, err := g.gate.Clean(r)
	if dropped > 0 {
		metrics.droppedOptions.Add(float64(dropped))
	}
	if err != nil {
		return g.refuse(w, r, resultBadTrailer, probTrailer)
	}
	_, _ = g.gate.Credential(r) // a token of ours is worth nothing here, and nothing to the app
	route := g.gate.Route(r)
	switch id := platform.Identity; {
	case route.Class == gate.Public:
		metrics.decided(resultPublic)
		return next.ServeHTTP(w, r)
	case route.Class == gate.NotFound || route.Class == gate.Endpoint:
		return g.refuse(w, r, resultNotFound, probNotFound)
	case errors.Is(untrue, gate.ErrAmbiguousPlatform):
		return g.refuse(w, r, resultAmbiguous, probIdentity)
	case errors.Is(untrue, gate.ErrLocalDebug):
		return g.refuse(w, r, resultLocalDebug, probIdentity)
	case untrue != nil:
		return g.refuse(w, r, resultNotCloud, probIdentity)
	case id[gate.OpenID] == "" || id[gate.AppID] == "":
		if route.Class != gate.Optional {
			return g.refuse(w, r, resultMissing, probNoIdentity)
		}
		metrics.decided(resultGuest)
	case g.apps != nil && !slices.Contains(g.apps, id[gate.AppID]):
		return g.refuse(w, r, resultOtherApp, probOtherApp)
	default:
		metrics.decided(resultAccepted)
		setPlaceholders(r, id[gate.OpenID], id[gate.UnionID], id[gate.AppID])
	}
	platform.Restore(r)
	return next.ServeHTTP(w, r)
}

// decideCloudrun is decide for this mode, for the command explain.
func decideCloudrun(e gate.Explanation, platform gate.Platform, untrue error) string {
	refusal := func(p problem) string { return fmt.Sprintf("%d %s", p.status, p.code) }
	switch id := platform.Identity; {
	case errors.Is(e.Refused, gate.ErrOwnedTrailer):
		return refusal(probTrailer) + ": a trailer is declared under a name that only the gate may set"
	case e.Route.Class == gate.Public:
		return "on to the app, with no identity"
	case e.Route.Class == gate.NotFound || e.Route.Class == gate.Endpoint:
		return refusal(probNotFound) + ": behind WeChat Cloud Hosting nobody logs in"
	case untrue != nil:
		return refusal(probIdentity) + ": " + untrue.Error()
	case id[gate.OpenID] != "" && id[gate.AppID] != "":
		return "on to the app with what WeChat Cloud Hosting says of the caller, if the site accepts the mini program"
	case e.Route.Class == gate.Optional:
		return "on to the app as a guest"
	}
	return refusal(probNoIdentity)
}
