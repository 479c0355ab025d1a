package wechatauth

import (
	"errors"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// cleaner stands before error routes. Caddy runs them also for requests that fail
// before any handler, and they may proxy to the app (docs/threats.md#t35).
type cleaner struct{ rules []*gate.Rules } // of the gates before these error routes

// ServeHTTP cleans a request that no gate has judged, and keeps its token for a gate
// among the error routes. It leaves a judged request as it is, so that a fallback
// upstream sees the user.
func (c *cleaner) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !isJudged(r) {
		for _, rules := range c.rules {
			takeTicket(rules, r)
			if token := rules.Scrub(r); token != "" {
				caddyhttp.SetVar(r.Context(), tokenVar, takenToken(token))
			}
		}
		provideUser(r, func(name string) (any, bool) { // until a gate sets its own
			if isJudged(r) {
				return nil, false
			}
			return noUser(name)
		})
	}
	return next.ServeHTTP(w, r)
}

// errTooLate refuses a gate that Caddy builds after the error routes.
var errTooLate = errors.New("wechat_auth in a named route cannot guard handle_errors, " +
	"which Caddy has built before: write wechat_auth in the site, above invoke")

// guardErrors puts a cleaner before the error routes of the server and of each
// subroute around the gate. Caddy builds routes before their error routes.
func guardErrors(ctx caddy.Context, rules *gate.Rules) error {
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && srv != nil {
		if err := guardRoutes(srv.Routes, srv.Errors, rules); err != nil {
			return err
		}
	}
	for _, m := range ctx.Modules() {
		if sub, ok := m.(*caddyhttp.Subroute); ok {
			if err := guardRoutes(sub.Routes, sub.Errors, rules); err != nil {
				return err
			}
		}
	}
	return nil
}

func guardRoutes(
	main caddyhttp.RouteList, failed *caddyhttp.HTTPErrorConfig, rules *gate.Rules,
) error {
	if failed == nil || len(failed.Routes) == 0 {
		return nil
	}
	if hs := failed.Routes[0].Handlers; len(hs) == 1 {
		if c, ok := hs[0].(*cleaner); ok {
			c.add(rules)
			return nil
		}
	}
	switch {
	case building(main):
		c := &cleaner{rules: []*gate.Rules{rules}}
		first := caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{c}}
		failed.Routes = slices.Insert(failed.Routes, 0, first)
	case !building(failed.Routes): // else the gate itself stands in an error route
		return errTooLate
	}
	return nil
}

// building reports whether Caddy is still building routes: it drops the raw form of
// a route's handlers when all of them are built.
func building(routes caddyhttp.RouteList) bool {
	return slices.ContainsFunc(routes, func(r caddyhttp.Route) bool {
		return len(r.HandlersRaw) > 0
	})
}

// add makes the cleaner remove what belongs to another gate, too.
func (c *cleaner) add(rules *gate.Rules) {
	if !slices.ContainsFunc(c.rules, rules.ScrubsLike) {
		c.rules = append(c.rules, rules)
	}
}

// What gates and cleaners keep in the variables of a request. Neither a client nor
// the handler `vars` can make these types.
type (
	judged     struct{} // a gate has passed the request on
	takenToken string   // a cleaner has taken this token out
)

const judgedVar, tokenVar = "wechat_auth", "wechat_auth.token"

func markJudged(r *http.Request) { caddyhttp.SetVar(r.Context(), judgedVar, judged{}) }

func isJudged(r *http.Request) bool {
	_, ok := caddyhttp.GetVar(r.Context(), judgedVar).(judged)
	return ok
}

// tokenTaken returns the token that a cleaner took out.
func tokenTaken(r *http.Request) string {
	token, _ := caddyhttp.GetVar(r.Context(), tokenVar).(takenToken)
	return string(token)
}

// inErrorRoute reports whether a request has failed before.
func inErrorRoute(r *http.Request) bool {
	return r.Context().Value(caddyhttp.ErrorCtxKey) != nil
}
