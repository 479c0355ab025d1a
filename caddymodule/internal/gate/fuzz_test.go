package gate_test

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

func FuzzClean(f *testing.F) {
	f.Add("X-Wx-Openid", "victim", "Connection", "close, X-Wx-Openid", "X_wx_appid")
	f.Add("Upgrade", "h2c", "http2-settings", "x", "")
	f.Add("X~Wx~Openid", "", "X-USER-id", "a", "x.user.id")
	f.Add(":protocol", "websocket", "cOnNection", "upgrade", "Digest, X-3RD-session")
	f.Add("Trailer", "X_Wx_", "authorization", "Bearer wxs_1", "Authorization")
	g := newGate(f, gate.Config{Headers: map[string]string{"unionid": "X-User-Id"}})
	reserved := func(name string) bool {
		folded := slowFold(name)
		return strings.HasPrefix(folded, "x-wx-") ||
			slices.Contains([]string{"x-user-id", "x-3rd-session", "authorization"}, folded)
	}
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, trailer string) {
		r := request(http.Header{
			name1: {value1}, name2: {value2, value1},
			"Connection": {value1, value2}, "Trailer": {trailer},
		})
		r.Trailer = http.Header{trailer: nil}
		_, err := g.Clean(r)
		if declared := reserved(trailer) && trailer == strings.Trim(trailer, " \t"); declared &&
			!errors.Is(err, gate.ErrOwnedTrailer) {
			t.Fatalf("trailer %q: err %v", trailer, err)
		}
		for name := range r.Trailer {
			if reserved(name) {
				t.Fatalf("trailer %q survived", name)
			}
		}
		for name, values := range r.Header {
			switch folded := slowFold(name); {
			case name == "X-3rd-Session" || name == "Authorization":
			case reserved(name):
				t.Fatalf("%q survived", name)
			case folded == "http2-settings":
				t.Fatalf("%q survived", name)
			case folded == "connection":
				if name != "Connection" || len(values) != 1 {
					t.Fatalf("%q: %q", name, values)
				}
				for _, option := range splitList(values[0]) {
					if !slices.Contains([]string{"close", "keep-alive", "Upgrade"}, option) {
						t.Fatalf("option %q survived", option)
					}
				}
			case folded == "upgrade":
				if name != "Upgrade" || len(values) != 1 ||
					strings.ToLower(strings.TrimSpace(values[0])) != "websocket" {
					t.Fatalf("%q: %q", name, values)
				}
			}
		}
	})
}

func FuzzCredential(f *testing.F) {
	f.Add("Bearer wxs_a", "wxs_b", "Basic x", byte(0))
	f.Add("wxs_a", " ", "bearer\twxs_a", byte(1))
	f.Add("Bearer eyJ", "undefined", "", byte(2))
	f.Add("Bearer  wxs_", "wxs_", "Bearer wxs_ ", byte(3))
	configs := []gate.Config{
		{},
		{TokenHeader: "X-Token"},
		{TokenHeader: "Authorization"},
		{TokenHeader: "X-3rd-Session"},
	}
	var gates []*gate.Rules
	for _, c := range configs {
		gates = append(gates, newGate(f, c))
	}
	f.Fuzz(func(t *testing.T, a, b, c string, which byte) {
		n := int(which) % len(gates)
		header := http.Header{"Authorization": {a, b, c}, "X-3rd-Session": {b, c}, "X-Token": {c}}
		before := header.Clone()
		token, err := gates[n].Credential(request(header))
		if err != nil && (token != "" || !errors.Is(err, gate.ErrAmbiguousCredentials)) {
			t.Fatalf("%q, %v", token, err)
		}
		plain := []string{"X-3rd-Session", "X-Token", "", "X-3rd-Session"}[n]
		for name, values := range header {
			if name == plain {
				t.Fatalf("%s survived", name)
			}
			for _, v := range values {
				if name != "X-Token" && holdsToken(v, name == "Authorization") {
					t.Fatalf("%s: %q survived", name, v)
				}
				if !slices.Contains(before[name], v) {
					t.Fatalf("%s: %q appeared", name, v)
				}
			}
		}
		for _, v := range before["Authorization"] {
			if !holdsToken(v, true) && !slices.Contains(header["Authorization"], v) {
				t.Fatalf("%q was not ours", v)
			}
		}
	})
}

// holdsToken reports whether a header value is a token, bare or, in
// Authorization, after any scheme.
func holdsToken(value string, scheme bool) bool {
	value = strings.Trim(value, " \t\r\n")
	if strings.HasPrefix(value, "wxs_") {
		return true
	}
	_, rest, ok := strings.Cut(strings.ReplaceAll(value, "\t", " "), " ")
	return scheme && ok && strings.HasPrefix(strings.TrimLeft(rest, " \r\n"), "wxs_")
}

func FuzzRoute(f *testing.F) {
	for _, seed := range []string{
		"/public/x", "/public/../admin", "/public/%E4%BD%A0", "/wx/login", "/WX;x/login", "//wx",
		"/a/%252e%252e/wx", "*", "",
		"x:wx/login", "http://x/public/a(1)", "/%5c..%5cwx", "/public/%2e%2e/wx", "/a//../wx",
		"/wx%00", "/wx ./login", "/public/[]",
	} {
		f.Add(seed, seed)
	}
	g := newGate(f,
		gate.Config{
			Public:   []string{"/public/*", "/healthz"},
			Optional: []string{"/feed/*", "/a%20b"},
		})
	f.Fuzz(func(t *testing.T, target, path string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			u = &url.URL{Path: path, RawPath: target}
		}
		checkRoute(t, g, u)
		checkRoute(t, g, &url.URL{Path: path, RawPath: target})
		checkRoute(t, g, &url.URL{Path: path})
	})
}

func checkRoute(t *testing.T, g *gate.Rules, u *url.URL) {
	route := g.Route(&http.Request{Method: "GET", URL: u})
	sent := u.RequestURI() // what goes to the app
	if i := strings.IndexByte(sent, '?'); i >= 0 {
		sent = sent[:i]
	}
	if (route.Class == gate.Endpoint) != (route.Endpoint != "") {
		t.Fatalf("%q: %v", sent, route)
	}
	switch route.Class {
	case gate.NotFound:
		return
	case gate.Required:
	case gate.Endpoint:
		if sent != "/wx/"+route.Endpoint || u.Path != sent {
			t.Fatalf("%q is endpoint %q", sent, route.Endpoint)
		}
		return
	default:
		if decoded, ok := slowCanonical(slowNormal(sent)); !ok || decoded != u.Path {
			t.Fatalf("%q is %v, but its normal form is not canonical", sent, route.Class)
		}
		opened := map[gate.Class][]string{
			gate.Public:   {"/public/", "/healthz"},
			gate.Optional: {"/feed/", "/a%20b"},
		}[route.Class]
		if !slices.ContainsFunc(opened,
			func(p string) bool {
				return sent == p || strings.HasSuffix(p, "/") && strings.HasPrefix(sent, p)
			}) {
			t.Fatalf("%q is %v by no rule", sent, route.Class)
		}
	}
	for _, reading := range slowReadings(sent) {
		if reading == "/wx" || strings.HasPrefix(reading, "/wx/") {
			t.Fatalf("%q is %v, but may be read as %q", sent, route.Class, reading)
		}
	}
}

// slowNormal applies RFC 3986 6.2.2 to a path, except to an encoded dot.
func slowNormal(escaped string) string {
	escaped = strings.NewReplacer("[", "%5B", "]", "%5D").Replace(escaped)
	return regexp.MustCompile("%[0-9a-fA-F]{2}").ReplaceAllStringFunc(escaped,
		func(s string) string {
			c, _ := url.PathUnescape(s)
			if regexp.MustCompile("^[A-Za-z0-9_~-]$").MatchString(c) {
				return c
			}
			return strings.ToUpper(s)
		})
}

// slowCanonical is the definition of a canonical path, written anew: decode,
// check, encode, compare.
func slowCanonical(escaped string) (string, bool) {
	decoded, err := url.PathUnescape(escaped)
	if err != nil || !utf8.ValidString(decoded) || !strings.HasPrefix(decoded, "/") ||
		strings.ContainsAny(decoded, `\;%#?`) ||
		bytes.ContainsFunc([]byte(decoded), func(c rune) bool { return c < ' ' || c == 0x7f }) ||
		strings.Contains(decoded, "//") || strings.Contains(decoded+"/", "/./") ||
		strings.Contains(decoded+"/", "/../") {
		return "", false
	}
	var b strings.Builder
	for _, c := range []byte(decoded) {
		const literal = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" +
			"-._~!$&'()*+,=:@/"
		if strings.IndexByte(literal, c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" +
				strings.ToUpper(string("0123456789abcdef"[c>>4])+string("0123456789abcdef"[c&15])))
		}
	}
	return decoded, b.String() == escaped
}

// slowReadings returns some ways in which servers of the day read a path.
func slowReadings(escaped string) (readings []string) {
	for _, backslash := range []bool{false, true} {
		for _, params := range []bool{false, true} {
			p := escaped
			for range 4 {
				q := p
				if backslash {
					q = strings.ReplaceAll(q, `\`, "/")
				}
				if params {
					segments := strings.Split(q, "/")
					for i := range segments {
						segments[i], _, _ = strings.Cut(segments[i], ";")
					}
					q = strings.Join(segments, "/")
				}
				readings = append(readings, strings.ToLower(q), strings.ToLower(path.Clean("/"+q)))
				decoded, err := url.PathUnescape(p)
				if err != nil {
					break
				}
				p = decoded
			}
		}
	}
	return readings
}

func FuzzPattern(f *testing.F) {
	for _, seed := range []string{
		"/a/*", "/*", "*", "", "/%E4%BD%A0", "/a//b", "X-WX-OPENID",
		"Authorization", "/wx", "/%", "/\xff*",
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, c := range []gate.Config{
			{Public: []string{a, b}},
			{Public: []string{a}, Optional: []string{b}},
			{Endpoints: a, Public: []string{b}},
			{Headers: map[string]string{"openid": a}, TokenHeader: b},
			{Headers: map[string]string{"appid": a, "source": b}},
			{TokenPrefix: a},
		} {
			g, err := gate.New(c)
			if err != nil {
				continue
			}
			for _, p := range c.Public { // an accepted pattern matches the path that it names
				u, err := url.ParseRequestURI(strings.TrimSuffix(p, "*"))
				if err != nil {
					t.Fatalf("%q: %v", p, err)
				}
				class := g.Route(&http.Request{URL: u}).Class
				if class != gate.Public &&
					!slices.Contains(c.Optional, strings.TrimSuffix(p, "*")) {
					t.Fatalf("%q: %v", p, class)
				}
			}
		}
	})
}
