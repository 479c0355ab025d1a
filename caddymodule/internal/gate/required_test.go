package gate_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// TestThreat36_Required holds that the word required asks for a session wherever some
// server may read one of its paths, and nowhere else.
func TestThreat36_Required(t *testing.T) {
	g := newGate(t, gate.Config{Required: []string{"/api/*", "/me", "/shop/caf%C3%A9/*"}})
	for class, targets := range map[gate.Class][]string{
		gate.Required: {
			"/api", "/api/", "/api/orders", "/api/a/b", "/api.json", "/api.v1.json/x",
			"/API/orders", "/api/../x", "/api;x/orders", "/api/orders;x", "//api/orders",
			"/x//../api", "/%61pi/orders",
			"/x/..%2fapi/orders", "/%2561pi/orders", "/x\\..\\api", "/;/api", "/./api", "/api%00",
			"/api%20/orders", "/api./orders", "/x/%2e%2e/api/orders", "/api%3fx", "/api%2forders",
			"/me", "/me/", "/ME", "/me.json", "/me/photo", "/me;jsessionid=1", "/Me%20",
			"/\u212aapi/../api",
			"/shop/caf%C3%A9", "/shop/caf%c3%a9/x", "/shop/CAF%C3%89", "/shop/café/x",
			"/%c0%afapi/orders", "/\x01", "/%ff", "*", "",
		},
		gate.Public: {
			"/", "/x", "/index.html", "/apix", "/xapi", "/x/api/orders", "/mex", "/meal.json",
			"/me-too", "/assets/%E5%9B%BE.png", "/assets//a.png", "/a;b.css", "/a%2fb", "/a%20b",
			"/assets/../x",
			"/shop/", "/shop/cafe", "/100%25", "/.well-known/x",
		},
		gate.Endpoint: {"/wx/login"},
		gate.NotFound: {"/wx", "/wx/x", "/WX/login", "/x/..%2fwx/login"},
	} {
		for _, target := range targets {
			r := request(nil)
			r.URL = &url.URL{Path: target}
			if path, err := url.PathUnescape(target); err == nil {
				r.URL = &url.URL{Path: path, RawPath: target}
			}
			if got := g.Route(r).Class; got != class {
				t.Errorf("%q is of class %d, want %d", target, got, class)
			}
			if e := g.Explain(r); e.Path == "" || strings.Contains(e.Path, "no rule") {
				t.Errorf("%q is explained by %q", target, e.Path)
			}
		}
	}
	r := request(nil)
	r.URL = &url.URL{Scheme: "x", Opaque: "public"}
	if got := g.Route(r).Class; got != gate.Required {
		t.Errorf("an opaque URL is of class %d", got)
	}
}

func TestThreat7_Required_Refused(t *testing.T) {
	for _, c := range []gate.Config{
		{Required: []string{"/a"}, Public: []string{"/b"}},
		{Required: []string{"/a"}, Optional: []string{"/b"}},
	} {
		wantError(t, c, "take out public and optional, or required")
	}
	wantError(t, gate.Config{Required: []string{"/*"}}, "leave it out")
	wantError(t, gate.Config{Required: []string{"/"}}, "leave it out")
	wantError(t, gate.Config{Required: []string{"api"}}, "write /api")
	wantError(t, gate.Config{Required: []string{"/a", "/a"}}, "listed twice")
	wantError(t, gate.Config{Required: []string{"/wx/*"}}, "answered by the gate itself")
}
