package gate_test

import (
	"bufio"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"pgregory.net/rapid"
)

// parse reads a request as net/http's server does.
func parse(t testing.TB, method, target string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target +
		" HTTP/1.1\r\nHost: x\r\n\r\n")))
	if err != nil {
		t.Fatalf("%q: %v", target, err)
	}
	return r
}

func TestThreat10_OnlyCanonicalPathsAreOpened(t *testing.T) {
	g := newGate(t,
		gate.Config{Public: []string{"/public/*", "/healthz"}, Optional: []string{"/feed/*"}})
	for target, want := range map[string]gate.Class{
		"/public/":                  gate.Public,
		"/public/a":                 gate.Public,
		"/public/a/b/":              gate.Public,
		"/public/a(1).png":          gate.Public,
		"/public/%E4%BD%A0.png":     gate.Public,
		"/public/a/b-c_d~e.f":       gate.Public,
		"/public/@me":               gate.Public,
		"/public/a+b":               gate.Public,
		"/public/a:b":               gate.Public,
		"/public/!$&'()*+,=:@":      gate.Public,
		"/public/a%20b%5B1%5D":      gate.Public,
		"/public/...":               gate.Public,
		"/public/.well-known/..a":   gate.Public,
		"/public/a?x=/../%2f;":      gate.Public,
		"/healthz":                  gate.Public,
		"/healthz?":                 gate.Public,
		"/feed/1":                   gate.Optional,
		"/public":                   gate.Required,
		"/publicity":                gate.Required,
		"/Public/a":                 gate.Required,
		"/healthz/":                 gate.Required,
		"/healthz/x":                gate.Required,
		"/feed":                     gate.Required,
		"/admin":                    gate.Required,
		"/":                         gate.Required,
		"/public/../admin":          gate.Required,
		"/admin/..%2fpublic/x":      gate.Required,
		"/public/..;/admin":         gate.Required,
		"/public/;/admin":           gate.Required,
		"/public/a;b=c":             gate.Required,
		"/public/%252e%252e/admin":  gate.Required,
		"/public/%5c..%5cadmin":     gate.Required,
		`/public/..\admin`:          gate.Required,
		"//public//x":               gate.Required,
		"/public//x":                gate.Required,
		"/public/%23/../x":          gate.Required,
		"/public/%23x":              gate.Required,
		"/public/%3Fx":              gate.Required,
		"/public%00/x":              gate.Required,
		"/public/%00":               gate.Required,
		"/public/%0A":               gate.Required,
		"/public/%7F":               gate.Required,
		"/public/%2e%2e/admin":      gate.Required,
		"/public/%2E%2E/admin":      gate.Required,
		"/public/.%2e/admin":        gate.Required,
		"/public/%2fadmin":          gate.Required,
		"/public/%2Fadmin":          gate.Required,
		"/public/%25":               gate.Required,
		"/public/%3B":               gate.Required,
		"/public/./x":               gate.Required,
		"/public/.":                 gate.Required,
		"/public/..":                gate.Required,
		"/public/a/../b":            gate.Required,
		"/public/%61":               gate.Public, // RFC 3986 6.2.2: /public/a
		"/public/%7Eme":             gate.Public,
		"/public/%e4%bd%a0":         gate.Public,
		"/public/[1]":               gate.Public,
		"/public/a%5b1%5d":          gate.Public,
		"/public/a%28":              gate.Required, // reserved characters are no equivalents
		"/public/%40me":             gate.Required,
		"/public/%2b":               gate.Required,
		"/public/a%2Ejs":            gate.Required, // nor is a dot for all servers
		"/public/%c3%28":            gate.Required,
		"/public/%e4%bd":            gate.Required,
		"/[public/x":                gate.Required,
		"/%70ublic/a":               gate.Required, // a server may route by the spelling
		"/public/%C0%AF":            gate.Required, // no UTF-8
		"/public/%FF":               gate.Required,
		"/p%75blic/x":               gate.Required,
		"http://x/public/a":         gate.Public,
		"http://x/public/../admin":  gate.Required,
		"http://public/":            gate.Required,
		"x:/public/a":               gate.Public,
		"x:public/a":                gate.Required, // opaque
		"http://x":                  gate.Required,
		"/admin?x=/public/":         gate.Required,
		"/admin?/../public/":        gate.Required,
		"/admin#/public/":           gate.Required,
		"/public/x#":                gate.Required, // net/http takes # as part of a path
		"/admin%3F/public/":         gate.Required,
		"/feed/..%2fpublic%2fx":     gate.Required,
		"/public/%E4%BD%A0/%2e%2e/": gate.Required,
	} {
		if got := g.Route(parse(t, "GET", target)).Class; got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
}

func TestThreat10_RewrittenURLsMustAgree(t *testing.T) {
	g := newGate(t, gate.Config{Public: []string{"/public/*"}})
	for _, tc := range []struct {
		name string
		url  url.URL
		want gate.Class
	}{
		{"path only", url.URL{Path: "/public/a"}, gate.Public},
		{"path only, encoded on the way out", url.URL{Path: "/public/你"}, gate.Public},
		{"raw path agrees", url.URL{Path: "/public/a(1)", RawPath: "/public/a(1)"}, gate.Public},
		{"raw path is stale", url.URL{Path: "/admin", RawPath: "/public/a"}, gate.Required},
		{
			"raw path is public, path is not",
			url.URL{Path: "/public/../admin", RawPath: "/public/a"},
			gate.Required,
		},
		{"opaque goes out instead", url.URL{Path: "/public/a", Opaque: "/admin"}, gate.Required},
		{"opaque to the gate", url.URL{Path: "/public/a", Opaque: "/wx/login"}, gate.NotFound},
		{"empty", url.URL{}, gate.Required},
		{"asterisk", url.URL{Path: "*"}, gate.Required},
	} {
		if got := g.Route(&http.Request{URL: &tc.url}).Class; got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestThreat10_PublicImpliesNormalForm: a rule opens a path only together with
// its normal form, which is canonical and decodes to the same path.
func TestThreat10_PublicImpliesNormalForm(t *testing.T) {
	g := newGate(t, gate.Config{
		Public: []string{"/*", "/a/%E4%BD%A0/*", "/a/b"}, Optional: []string{"/a/*", "/a/c"},
	})
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom(pathParts)).Draw(t, "parts")
		u, err := url.ParseRequestURI("/" + strings.Join(parts, ""))
		if err != nil {
			t.Skip()
		}
		class := g.Route(&http.Request{URL: u}).Class
		if class != gate.Public && class != gate.Optional {
			return
		}
		normal := slowNormal(u.EscapedPath())
		decoded, ok := slowCanonical(normal)
		if !ok || decoded != u.Path {
			t.Fatalf("%q is %v, but its normal form %q is not canonical", u.EscapedPath(), class,
				normal)
		}
		u, _ = url.ParseRequestURI(normal)
		if meant := g.Route(&http.Request{URL: u}).Class; meant < class {
			t.Fatalf("%q is %v, but its normal form %q is %v", parts, class, normal, meant)
		}
	})
}

// TestRoute_TwoSpellings_StricterRuleWins: a server routes by the spelling or by
// the normal form.
func TestRoute_TwoSpellings_StricterRuleWins(t *testing.T) {
	g := newGate(t, gate.Config{
		Public: []string{"/*", "/a/%5B1%5D"}, Optional: []string{"/a/*", "/b/%E4%BD%A0/*", "/c"},
	})
	for target, want := range map[string]gate.Class{
		"/%61/x":        gate.Optional, // /a/x
		"/%63":          gate.Optional, // /c
		"/b/%e4%bd%a0/": gate.Optional,
		"/a/[1]":        gate.Optional, // spelled, it is under /a/*
		"/a/%5B1%5D":    gate.Public,
		"/b/%e4%bd%a1":  gate.Public,
		"/d/[1]":        gate.Public,
	} {
		if got := g.Route(parse(t, "GET", target)).Class; got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
}

// TestThreat12_OddPath_WorkIsBounded counts allocations in place of time: each
// reading of a path costs some.
func TestThreat12_OddPath_WorkIsBounded(t *testing.T) {
	g := newGate(t, gate.Config{})
	for _, odd := range []string{
		"%25252577x;a/%5c..;b//./", "a%2f;x/..//%5cb%3bc/", "//a", "/./..", "%2577x%252f..;/",
	} {
		for _, n := range []int{1, 4, 40, 4000} {
			r := parse(t, "GET", "/"+strings.Repeat(odd, n)+"/wx")
			if allocs := testing.AllocsPerRun(1, func() { g.Route(r) }); allocs > 200 {
				t.Errorf("%d times %s: %v allocations", n, odd, allocs)
			}
		}
	}
}

func TestThreat11_OnlyThePathDecides(t *testing.T) {
	g := newGate(t, gate.Config{Public: []string{"/*"}, Optional: []string{"/a"}})
	for _, tc := range []struct {
		method, target string
		want           gate.Class
	}{
		{"OPTIONS", "*", gate.Required},
		{"CONNECT", "example.com:443", gate.Required},
		{"CONNECT", "/a", gate.Optional},
		{"GET", "http://other.example/a?b", gate.Optional},
		{"BREW", "/a", gate.Optional},
		{"GET", "/b", gate.Public},
	} {
		if got := g.Route(parse(t, tc.method, tc.target)).Class; got != tc.want {
			t.Errorf("%s %s: %v, want %v", tc.method, tc.target, got, tc.want)
		}
	}
}

func TestThreat13And14_HeadersAndMethodProveNothing(t *testing.T) {
	g := newGate(t, gate.Config{Public: []string{"/public/*"}})
	for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "TRACE", "PRI"} {
		r := parse(t, method, "/admin")
		r.Header = http.Header{
			"User-Agent":      {"GoogleHC/1.0"},
			"Referer":         {"https://servicewechat.com/wx0/0/page-frame.html"},
			"X-Original-Url":  {"/public/"},
			"X-Rewrite-Url":   {"/public/"},
			"X-Forwarded-Uri": {"/public/"},
			"Origin":          {"null"},

			"X-Http-Method-Override":        {"OPTIONS"},
			"Access-Control-Request-Method": {"GET"},
		}
		if got := g.Route(r); got != (gate.Route{}) {
			t.Errorf("%s: %v", method, got)
		}
	}
}

func TestRoute_MostSpecificRuleWins(t *testing.T) {
	public := []string{"/*", "/a/b/*", "/a/b/c/d"}
	optional := []string{"/a/*", "/a/b/c/*", "/a/b/"}
	for range 2 { // whatever the order they are written in
		g := newGate(t, gate.Config{Public: public, Optional: optional})
		for target, want := range map[string]gate.Class{
			"/":          gate.Public,
			"/a":         gate.Public,
			"/a/":        gate.Optional,
			"/a/x":       gate.Optional,
			"/a/b":       gate.Optional,
			"/a/b/":      gate.Optional,
			"/a/b/x":     gate.Public,
			"/a/b/c":     gate.Public,
			"/a/b/c/":    gate.Optional,
			"/a/b/c/d":   gate.Public,
			"/a/b/c/d/e": gate.Optional,
		} {
			if got := g.Route(parse(t, "GET", target)).Class; got != want {
				t.Errorf("%s: %v, want %v", target, got, want)
			}
		}
		slices.Reverse(public)
		slices.Reverse(optional)
	}
}

func TestThreat12_EndpointsAnswerOnTheirExactPathOnly(t *testing.T) {
	g := newGate(t, gate.Config{Public: []string{"/*"}})
	for target, want := range map[string]gate.Route{
		"/wx/login":        {Class: gate.Endpoint, Endpoint: "login"},
		"/wx/logout":       {Class: gate.Endpoint, Endpoint: "logout"},
		"/wx/session":      {Class: gate.Endpoint, Endpoint: "session"},
		"/wx/decrypt":      {Class: gate.Endpoint, Endpoint: "decrypt"},
		"/wx/phone":        {Class: gate.Endpoint, Endpoint: "phone"},
		"/wx/sessions":     {Class: gate.Endpoint, Endpoint: "sessions"},
		"/wx/sessions/x":   {Class: gate.Endpoint, Endpoint: "sessions/"},
		"/wx/sessions/x?a": {Class: gate.Endpoint, Endpoint: "sessions/"},
		"/wx/login?a=b":    {Class: gate.Endpoint, Endpoint: "login"},
		"http://y/wx/login": {
			Class: gate.Endpoint, Endpoint: "login",
		},
	} {
		if got := g.Route(parse(t, "POST", target)); got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
	for _, target := range []string{
		"/wx", "/wx/", "/wx/nothing", "/WX/login", "/wx/Login", "/Wx/", "/wx/login/", "/wx/login/x",
		"/wx/sessions/", "/wx/sessions/x/", "/wx/sessions/x/y", "/wx/sessions//x", "/wx/x/sessions",
		"/wx/Sessions/x", "/wx/sessions/..", "/wx/sessions/a%2fb", "/wx/session/x",
		"/wx/login.php", "/wx/phone/", "/wx/Decrypt", "/wx/phone;x",
		"/wx//login", "//wx/login", "///wx", "/./wx/login", "/wx/./login", "/a/../wx/login",
		"/../wx/login", "/wx/login/..",
		"/wx/%6cogin", "/%77x/login", "/%77%78", "/wx%2flogin", "/wx%2Flogin", "/%2fwx",
		"/wx%252flogin", "/%25252577x/login",
		`/wx\login`, `/\wx\login`, "/wx%5clogin", "/%5Cwx", "/a%5c..%5cwx", "/wx;a=b/login",
		"/wx;/login", "/wx/login;x", "/;x/wx",
		"/a/..;/wx/login", "/a/%2e%2e/wx", "/a/%2e%2e;x/wx", "/wx/../admin", "/wx/..%2fadmin",
		"/wx/..;/admin", "/wx/%2e%2e/x",
		"/b/../wx/../admin", "/wx%00", "/wx%00.png", "/wx%3fx", "/wx%23x", "/wx%253f/x",
		"/wx%20/login", "/wx./login", "/%20wx/login",
		"x:wx/login", "x:WX", "/a%2fb/../wx", "/x%2fy/../q/%2e%2e/wx", "/a//../wx/../../wx/x",
		"http://y//wx/login",
		"/%252577x", "/%" + strings.Repeat("25", 300) + "2fwx",
		"/wx/" + strings.Repeat("a/../", 500),
		"//" + strings.Repeat("a/", 1000) + "wx", // too long to be sure
	} {
		if got := g.Route(parse(t, "GET", target)); got != (gate.Route{Class: gate.NotFound}) {
			t.Errorf("%s: %v", target, got)
		}
	}
	for _, target := range []string{
		"/wxfoo", "/wx-static/x", "/wx.html", "/wx_/login", "/a/wx/login", "/wxx/../a", "/awx",
		"//a/wx", "/a//wx/login", "/a%2fwx/login",
		"/a;b/wx", "/proxy/https://example.com/wx/x", "/a/b/../wx", "/w/x", "/w%2fx", "/?/wx/login",
		"/a;/wx/login", "/a/%2e/wx", "/%77",
		"//" + strings.Repeat("a/", 1000), "//" + strings.Repeat("%25", 100) +
			"a;b", // long and odd, but nothing of ours in them
	} {
		if got := g.Route(parse(t, "GET", target)).Class; got != gate.Public &&
			got != gate.Required {
			t.Errorf("%s: %v", target, got)
		}
	}
}

func TestThreat12_LongPrefix(t *testing.T) {
	g := newGate(t, gate.Config{Endpoints: "/Api/wx-1", Public: []string{"/*"}})
	for target, want := range map[string]gate.Class{
		"/Api/wx-1/login":                  gate.Endpoint,
		"/api/wx-1/login":                  gate.NotFound,
		"/Api/wx-1":                        gate.NotFound,
		"/Api":                             gate.Public,
		"/Api/":                            gate.Public,
		"/Api/x":                           gate.Public,
		"/wx-1/login":                      gate.Public,
		"/wx/login":                        gate.Public,
		"/Api/x/../wx-1/login":             gate.NotFound,
		"/Api/..;a/../wx-1/login":          gate.NotFound, // dots first, then parameters
		"/Api//../wx-1/login":              gate.NotFound, // slashes stay
		`/Api/a\b/../wx-1/login`:           gate.NotFound, // \\ is no separator
		"/Api/%2e%2e/../q/%2e%2e/wx-1/x":   gate.NotFound, // dots, decoding, dots
		"/x/../Api/./y/%2e%2e//wx-1%2f":    gate.NotFound,
		"/Api/x/../y/wx-1/z":               gate.Required,
		"/Api/../y/wx-1/z":                 gate.Required,
		"/Api/%2e%2e/wx-1/login":           gate.Required, // no reading reaches it
		"/Api/a%2f..%2fwx-1":               gate.NotFound,
		"/Api/wx%2D1/login":                gate.NotFound,
		"/other/Api//wx-1/login":           gate.Required,
		"/Api/wx-1%2f..%2f..%2f/elsewhere": gate.NotFound,
	} {
		if got := g.Route(parse(t, "GET", target)).Class; got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
}

// pathParts are pieces of paths in all forms.
var pathParts = []string{
	"/", "/", "a", "b", "c", "Z", ".", "..", "%", "%2f", "%2F", "%25", "%2E", "%20", "%E4%BD%A0",
	"%e4%bd%a0", "%e4", "%C0", "%00", "%5B", "[", "]", "%5d", ";", "%3B", "\\", "%5C", "#", "?",
	"~",
	"%7E", "%61", "%63", "(", ")", "%28", "@", ":", "+", "*", "'", "\x00", "\x7f", "é", "\xff",
	"%7F",
	"%80", " ",
}

func TestCanonical_AgreesWithRFC3986ReEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := strings.Join(rapid.SliceOf(rapid.SampledFrom(pathParts)).Draw(t, "parts"), "")
		decoded, ok := gate.Canonical(p)
		wantDecoded, wantOK := slowCanonical(p)
		if ok != wantOK || ok && decoded != wantDecoded {
			t.Fatalf("%q: %q, %t; want %q, %t", p, decoded, ok, wantDecoded, wantOK)
		}
	})
}
