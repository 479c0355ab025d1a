package judge

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Step is one handler on the way of a request through a server.
type Step struct {
	Handler caddyhttp.MiddlewareHandler
	ID      caddy.ModuleID
	Where   string
	Request *http.Request // as the handler gets it

	// Unsure says why the way from here on is a guess; empty when it is known.
	Unsure string
}

// Trace follows a request through the routes of a server, by their own matchers, to
// the first handler that answers it. It runs the handlers that only change the
// request (rewrite, vars, map, request headers), and no other.
func Trace(srv *caddyhttp.Server, r *http.Request) []Step {
	rec := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, srv)
	t := tracer{groups: make(map[string]bool)}
	t.routes(srv.Routes, r, place(srv), func(*http.Request) {})
	return t.steps
}

type tracer struct {
	steps  []Step
	groups map[string]bool // satisfied
}

// routes follows r through a list; next is what comes behind the list.
func (t *tracer) routes(
	list caddyhttp.RouteList, r *http.Request, where string, next func(*http.Request),
) {
	if len(list) == 0 {
		next(r)
		return
	}
	route, rest := list[0], list[1:]
	behind := func(r *http.Request) { t.routes(rest, r, where, next) }
	if route.Group != "" && t.groups[route.Group] {
		behind(r)
		return
	}
	matches, err := route.MatcherSets.AnyMatchWithError(r)
	if err != nil || !matches {
		behind(r)
		return
	}
	if route.Group != "" {
		t.groups[route.Group] = true
	}
	if route.Terminal {
		behind = func(*http.Request) {}
	}
	t.handlers(route.Handlers, r, describe(where, route), behind)
}

// pure handlers change the request and have no other effect.
var pure = map[caddy.ModuleID]bool{
	"http.handlers.rewrite": true, "http.handlers.vars": true, "http.handlers.map": true,
	"http.handlers.headers": true, "http.handlers.request_body": true,
}

// passing handlers call the next one, whatever the request.
var passing = map[caddy.ModuleID]bool{
	"http.handlers.encode": true, "http.handlers.templates": true, "http.handlers.tracing": true,
	"http.handlers.log_append": true, "http.handlers.wechat_auth": true,
	"http.handlers.copy_response": true, "http.handlers.push": true,
	"http.handlers.wxgate_tap": true, // what wxgate dev looks with
}

func (t *tracer) handlers(
	list []caddyhttp.MiddlewareHandler, r *http.Request, where string, next func(*http.Request),
) {
	if len(list) == 0 {
		next(r)
		return
	}
	h, rest := list[0], list[1:]
	behind := func(r *http.Request) { t.handlers(rest, r, where, next) }
	if sub, ok := h.(*caddyhttp.Subroute); ok {
		t.routes(sub.Routes, r, where, behind)
		return
	}
	id := idOf(h)
	step := Step{Handler: h, ID: id, Where: where, Request: r}
	_, ends := responders[id]
	if !ends && !pure[id] && !passing[id] {
		step.Unsure = id.Name() + " may answer the request or change it"
	}
	t.steps = append(t.steps, step)
	switch {
	case ends:
	case pure[id]:
		_ = h.ServeHTTP(httptest.NewRecorder(), r, caddyhttp.HandlerFunc(
			func(_ http.ResponseWriter, r *http.Request) error {
				behind(r)
				return nil
			}))
	default:
		behind(r)
	}
}

// Hosts returns the hosts that the routes of a server name, a wildcard with a label in
// its place, and "" when a route serves any host.
func Hosts(srv *caddyhttp.Server) (hosts []string) {
	for _, route := range srv.Routes {
		named := false
		for _, set := range route.MatcherSets {
			for _, m := range set {
				if h, ok := m.(*caddyhttp.MatchHost); ok {
					named = true
					for _, host := range *h {
						hosts = append(hosts, strings.Replace(host, "*", "any", 1))
					}
				}
			}
		}
		if !named {
			hosts = append(hosts, "")
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
