package wechatauth

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

const assertionSite = `http://api.example.com, http://127.0.0.1 {
wechat_auth {
	assertion {
		audience orders
	}
	verify
	optional /feed/*
	public /open
}
echo
}`

// claimsOf verifies an assertion with the keys that a site publishes.
func (s *server) claimsOf(token string) (claims map[string]any) {
	s.T.Helper()
	status, h, body := s.send(get("/wx/jwks.json", ""))
	if status != 200 || h.Get("Cache-Control") != "public, max-age=300" ||
		h.Get("Content-Type") != "application/json" {
		s.T.Fatalf("the key set: %d %v %s", status, h, body)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(body), &set); err != nil {
		s.T.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err == nil {
		err = parsed.Claims(set, &claims)
	}
	if err != nil {
		s.T.Fatalf("%q: %v", token, err)
	}
	return claims
}

// TestP12_Site_Signs: each request of a user has a proof, and nobody else's does.
func TestP12_Site_Signs(t *testing.T) {
	plain := newServer(t, "http:// {\nwechat_auth\necho\n}")
	s := newServer(t, assertionSite)
	const forged = "X-WX-ASSERTION: forged\r\nX_WX_ASSERTION: forged\r\n" +
		"Connection: X-WX-ASSERTION\r\n"
	const mine = "X-3rd-Session: {token}\r\n"
	proof := func(path, lines string) string {
		t.Helper()
		status, h, body := s.send(get(path, lines+forged))
		if status != 200 || strings.Contains(body, "forged") {
			t.Fatalf("%s: %d %s", path, status, body)
		}
		if strings.HasPrefix(path, "/wx/verify") {
			if v, ok := h["X-Wx-Assertion"]; !ok || len(v) != 1 {
				t.Errorf("%s: %q", path, v)
			}
			return h.Get("X-Wx-Assertion")
		}
		_, rest, _ := strings.Cut(body, "X-Wx-Assertion: ")
		value, _, _ := strings.Cut(rest, "\n")
		return value
	}
	for _, path := range []string{"/orders", "/feed/x", "/wx/verify/x", "/wx/verify-optional"} {
		claims := s.claimsOf(proof(path, mine))
		if claims["iss"] != "https://api.example.com" || claims["aud"] != "orders" ||
			claims["sub"] != "alice" || claims["appid"] != caddytest.AppID ||
			claims["unionid"] != nil || claims["jti"] != nil {
			t.Errorf("%s: %v", path, claims)
		}
	}
	for _, path := range []string{"/feed/x", "/open", "/wx/verify-optional/x"} {
		if v := proof(path, ""); v != "" {
			t.Errorf("%s: a guest has the proof %q", path, v)
		}
	}
	if proof("/orders", mine) != proof("/wx/verify", mine) {
		t.Error("a hot request signs")
	}
	for lines, path := range map[string]string{
		mine: "/wx/jwks.json", "X-3rd-Session: wxs_bad\r\n": "/wx/jwks.json",
		mine + "Authorization: Bearer wxs_other\r\n": "/wx/jwks.json?x",
	} {
		if status, _, body := s.send(get(path, lines)); status != 200 {
			t.Errorf("%q: %d %s", lines, status, body)
		}
	}
	post := "POST" + strings.TrimPrefix(get("/wx/jwks.json", "Content-Length: 0\r\n"), "GET")
	if status, h, _ := s.send(post); status != 405 || h.Get("Allow") != "GET" {
		t.Errorf("POST: %d %v", status, h)
	}
	if status, _, _ := plain.send(get("/wx/jwks.json", "")); status != 404 {
		t.Errorf("without the word: %d", status)
	}
	if _, _, body := plain.send(get("/x", mine+forged)); strings.Contains(body, "ssertion") {
		t.Errorf("without the word the app gets\n%s", body)
	}
}

// TestP12_NoKey_503: a user never comes as a guest because the proof is missing, and no
// outage logs anyone out.
func TestP12_NoKey_503(t *testing.T) {
	site := func() *Handler {
		return &Handler{Verify: true, Assertion: &Assertion{"orders", "https://a.example.com"}}
	}
	w := newWorld(t, site()).start()
	token := w.Token(caddytest.AppID, "alice")
	w.warm(token)
	plain := &world{World: apptest.Started(t)} // its app has no key
	h := *w.gate
	h.app = plain.App
	plainToken := plain.Token(caddytest.AppID, "alice")
	for _, target := range []string{"/orders", "/wx/verify", "/wx/jwks.json"} {
		r, rec := caddytest.Request("GET", target, plainToken)
		var n caddytest.Next
		if err := h.ServeHTTP(rec, r, &n); err != nil || n.Called || rec.Code != 503 ||
			rec.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d, %v, called %v", target, rec.Code, err, n.Called)
		}
	}
	caddytest.Break(t)
	r, rec := caddytest.Request("GET", "/wx/jwks.json", "")
	if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil || rec.Code != 200 {
		t.Errorf("the key set in an outage: %d, %v", rec.Code, err)
	}
	r, rec = caddytest.Request("GET", "/orders", token)
	var n caddytest.Next
	if err := w.gate.ServeHTTP(rec, r, &n); err != nil || !n.Called ||
		r.Header.Get("X-Wx-Assertion") == "" {
		t.Errorf("a cached user in an outage: %d, %v", rec.Code, err)
	}
}

// TestAssertion_Issuer: it is the site's, never what a client writes into Host.
func TestAssertion_Issuer(t *testing.T) {
	const lines = "wechat_auth {\nassertion {\naudience a\nISSUER\n}\n}\necho\n"
	for i, c := range []struct{ site, issuer, want string }{
		{"http://one.example.com, http://two.example.com, http://127.0.0.1", "", "https://one.example.com"},
		{"http://one.example.com {\nerror 404\n}\nhttp://two.example.com", "", "https://two.example.com"},
		{"http://", "issuer https://id.example.com/x", "https://id.example.com/x"},
		{"http://", "", ""},
		{"http://*.example.com", "", ""},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			site := c.site + " {\n" + strings.Replace(lines, "ISSUER", c.issuer, 1) + "}"
			if c.want == "" {
				t.Setenv("WX_SECRET", caddytest.Canary)
				out, _, err := caddytest.Adapt(fmt.Sprintf(
					"{\norder echo last\nwechat {\napp %s {env.WX_SECRET}\n}\n}\n%s",
					caddytest.AppID, site))
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := provision(t, string(out)); err == nil ||
					!strings.Contains(err.Error(), "write issuer https://") {
					t.Errorf("provisioned: %v", err)
				}
				return
			}
			s := newServer(t, site)
			host := strings.TrimPrefix(strings.TrimPrefix(c.want, "https://"), "id.example.com/x")
			text := "GET /x HTTP/1.1\r\nHost: " + host + "\r\nX-3rd-Session: {token}\r\n\r\n"
			if host == "" {
				text = get("/x", "X-3rd-Session: {token}\r\n")
			}
			_, _, body := s.send(text)
			_, rest, _ := strings.Cut(body, "X-Wx-Assertion: ")
			token, _, _ := strings.Cut(rest, "\n")
			parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
			if err != nil {
				t.Fatal(err, body)
			}
			var claims jwt.Claims
			if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil ||
				claims.Issuer != c.want {
				t.Errorf("issued by %q, %v", claims.Issuer, err)
			}
		})
	}
}
