// Package judge finds ways around the gates of a configuration (P9): it reads the
// compiled routes of Caddy's servers and reports routes that reach a guarded
// app without a gate, and settings that contradict each other.
//
// It must not know sessions, stores, or what a gate decides. A gate tells it what it
// guards by the interface [Gate].
package judge

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// Gate is a handler that judges every request of its site.
type Gate interface {
	// Guards returns the prefix of the gate's endpoints, "" when it has none, and the
	// path patterns that it opens to everybody.
	Guards() (endpoints string, public []string)
}

// Finding is one fault of a configuration.
type Finding struct {
	Refused bool   // the configuration must not run; else a warning
	Where   string // the listener, host and path
	What    string
	Cure    string
}

// String returns the finding in one line.
func (f Finding) String() string {
	return strings.TrimSpace(f.Where+": "+f.What) + "; " + f.Cure
}

// Err returns the finding as an error.
func (f Finding) Err() error { return fmt.Errorf("%s", f) }

// Servers judges all servers of a configuration. Warnings come after refusals.
func Servers(servers map[string]*caddyhttp.Server) []Finding {
	var w walk
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		w.server(servers[name])
	}
	w.sharedUpstreams()
	if w.gates == 0 && w.apis == 0 {
		w.report(Finding{
			Where: "wechat", What: "no site has a gate: the app is not guarded",
			Cure: "write wechat_auth into the site, before reverse_proxy",
		})
	}
	slices.SortStableFunc(w.found, func(a, b Finding) int {
		return cmp.Compare(rank(a), rank(b))
	})
	return w.found
}

// Sites names each site that has a gate, with its listener and where its endpoints are.
func Sites(servers map[string]*caddyhttp.Server) []string {
	var w walk
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		w.server(servers[name])
	}
	return w.sites
}

func (w *walk) addSite(g Gate, where string) {
	site := strings.TrimPrefix(where, "on ")
	if endpoints, _ := g.Guards(); endpoints != "" {
		site += " (" + endpoints + ")"
	}
	if !slices.Contains(w.sites, site) {
		w.sites = append(w.sites, site)
	}
}

// Server judges one server alone and returns the faults that refuse it.
func Server(srv *caddyhttp.Server) []Finding {
	var w walk
	w.server(srv)
	return slices.DeleteFunc(w.found, func(f Finding) bool { return !f.Refused })
}

func rank(f Finding) int {
	if f.Refused {
		return 0
	}
	return 1
}

// walk collects the findings in the routes of all servers.
type walk struct {
	found       []Finding
	uses        []use
	gates, apis int
	sites       []string
}

// use is a proxy to an upstream.
type use struct {
	upstream, where string
	gated           bool
}

// way records the handlers that a request passes before the current one.
type way struct {
	where     string
	paths     []caddyhttp.MatchPath // path matchers, each of which the request matched
	gated     bool                  // by a gate, whatever the request is
	ended     string                // the handler that answers every request, if any
	templates bool
	cache     bool // a shared cache stands before the gate
}

func (w *walk) report(f Finding) {
	if !slices.Contains(w.found, f) {
		w.found = append(w.found, f)
	}
}

func (w *walk) server(srv *caddyhttp.Server) {
	w.routes(srv.Routes, way{where: place(srv)})
}

// routes walks a list in the order in which requests pass it. It returns the way of
// a request after the list.
func (w *walk) routes(list caddyhttp.RouteList, at way) way {
	for _, route := range list {
		inside := at
		inside.where = describe(at.where, route)
		inside.paths = append(slices.Clone(at.paths), pathsOf(route)...)
		for _, h := range route.Handlers {
			inside = w.handler(h, inside)
		}
		if len(route.MatcherSets) == 0 {
			inside.where, inside.paths = at.where, at.paths
			at = inside
		}
	}
	return at
}

// responders answer a request and call no next handler.
var responders = map[caddy.ModuleID]string{
	"http.handlers.reverse_proxy":   "reverse_proxy",
	"http.handlers.file_server":     "file_server",
	"http.handlers.static_response": "respond",
	"http.handlers.wechat_api":      "wechat_api",
}

// handler judges one handler and returns the way of a request behind it.
func (w *walk) handler(h caddyhttp.MiddlewareHandler, at way) way {
	if g, ok := h.(Gate); ok {
		return w.gate(g, at)
	}
	id := idOf(h)
	switch h := h.(type) {
	case *caddyhttp.Subroute:
		return w.routes(h.Routes, at)
	case *reverseproxy.Handler:
		w.proxy(h, at)
	case *headers.Handler:
		if !at.gated && namesUser(h) {
			w.report(Finding{
				Where: at.where, What: "header uses {http.auth.user.*} before the gate has set it",
				Cure: "use header_up inside reverse_proxy, or defer the header with >",
			})
		}
	}
	switch id {
	case "http.handlers.cache":
		if !at.gated {
			at.cache = true
		}
	case "http.handlers.wechat_api":
		w.apis++
	case "http.handlers.templates":
		at.templates = true
	}
	if name, ok := responders[id]; ok && at.ended == "" {
		at.ended = name
	}
	return at
}

func (w *walk) gate(g Gate, at way) way {
	w.addSite(g, at.where)
	w.gates++
	endpoints, public := g.Guards()
	switch {
	case at.ended != "":
		w.report(Finding{
			Refused: true, Where: at.where,
			What: "wechat_auth stands behind " + at.ended + ", so no request reaches it",
			Cure: "put wechat_auth first",
		})
	case at.gated:
		w.report(Finding{
			Refused: true, Where: at.where,
			What: "two wechat_auth on one path: " +
				"the first takes the token, the second refuses all users",
			Cure: "keep one, on the whole site, and list exemptions inside",
		})
	}
	if endpoints != "" && !reaches(at.paths, endpoints+"/login") {
		w.report(Finding{
			Where: at.where, What: endpoints + "/login does not reach this wechat_auth",
			Cure: "write wechat_auth outside of handle, with required <paths…>",
		})
	}
	if at.cache {
		w.report(Finding{
			Where: at.where, What: "a shared cache before the gate answers guests with users' data",
			Cure: "put the cache behind wechat_auth, with order cache after wechat_auth",
		})
	}
	if slices.Contains(public, "/*") {
		w.report(Finding{
			Where: at.where, What: "public /* opens the whole site",
			Cure: "list the public paths, or the guarded ones with required",
		})
	}
	at.gated = true
	return at
}

func (w *walk) proxy(h *reverseproxy.Handler, at way) {
	for _, u := range h.Upstreams {
		w.uses = append(w.uses, use{upstream: u.Dial, where: at.where, gated: at.gated})
	}
	if at.templates {
		w.report(Finding{
			Where: at.where,
			What:  "templates runs over the answers of the app and can read secrets",
			Cure:  "take templates out of this route",
		})
	}
}

// sharedUpstreams reports the ways to a guarded upstream that pass no gate.
func (w *walk) sharedUpstreams() {
	guarded := make(map[string]string)
	for _, u := range w.uses {
		if u.gated {
			guarded[u.upstream] = u.where
		}
	}
	for _, u := range w.uses {
		if with, ok := guarded[u.upstream]; ok && !u.gated {
			w.report(Finding{
				Where: u.where,
				What: fmt.Sprintf("requests reach %s without wechat_auth, which guards it at %s: "+
					"a client can send any identity here", u.upstream, with),
				Cure: "write wechat_auth there too, " +
					"or guard the whole site with required <paths…>",
			})
		}
	}
}

func idOf(h caddyhttp.MiddlewareHandler) caddy.ModuleID {
	if m, ok := h.(caddy.Module); ok {
		return m.CaddyModule().ID
	}
	return ""
}

// place returns how messages call a server.
func place(srv *caddyhttp.Server) string { return "on " + strings.Join(srv.Listen, " ") }

// describe adds the hosts and paths of a route to a place.
func describe(where string, route caddyhttp.Route) string {
	var names []string
	for _, set := range route.MatcherSets {
		for _, m := range set {
			switch m := m.(type) {
			case *caddyhttp.MatchHost:
				names = append(names, *m...)
			case *caddyhttp.MatchPath:
				names = append(names, *m...)
			}
		}
	}
	if len(names) == 0 {
		return where
	}
	outer, listen, _ := strings.Cut(where, "on ")
	return outer + strings.Join(names, ",") + " on " + listen
}

// pathsOf returns the path matchers of a route: those of all its sets together.
func pathsOf(route caddyhttp.Route) []caddyhttp.MatchPath {
	var all caddyhttp.MatchPath
	for _, set := range route.MatcherSets {
		limited := false
		for _, m := range set {
			if p, ok := m.(*caddyhttp.MatchPath); ok {
				all, limited = append(all, *p...), true
			}
		}
		if !limited {
			return nil // this set matches any path
		}
	}
	if all == nil {
		return nil
	}
	return []caddyhttp.MatchPath{all}
}

// reaches reports whether a path passes all path matchers.
func reaches(matchers []caddyhttp.MatchPath, path string) bool {
	r := httptest.NewRequest(http.MethodPost, path, nil)
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), nil)
	return !slices.ContainsFunc(matchers, func(m caddyhttp.MatchPath) bool {
		ok, err := m.MatchWithError(r)
		return err == nil && !ok
	})
}

// namesUser reports whether a header handler uses the user's placeholders at once.
func namesUser(h *headers.Handler) bool {
	ops := []*headers.HeaderOps{h.Request}
	if h.Response != nil && !h.Response.Deferred && h.Response.Require == nil {
		ops = append(ops, h.Response.HeaderOps)
	}
	for _, o := range ops {
		if o == nil {
			continue
		}
		for _, fields := range []http.Header{o.Add, o.Set} {
			for _, values := range fields {
				if strings.Contains(strings.Join(values, " "), "{http.auth.user.") {
					return true
				}
			}
		}
	}
	return false
}
