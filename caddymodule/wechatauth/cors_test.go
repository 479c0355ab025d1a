package wechatauth

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const corsSite = "http:// {\nwechat_auth {\ncors https://h5.example.com http://localhost:5173\n" +
	"public /open/*\n}\norigins\n}"

func init() {
	caddy.RegisterModule(origins{})
	httpcaddyfile.RegisterHandlerDirective("origins",
		func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return origins{}, nil })
	httpcaddyfile.RegisterDirectiveOrder("origins", httpcaddyfile.After, "respond")
}

// origins is an app that lets every page in by itself.
type origins struct{}

func (origins) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID: "http.handlers.origins", New: func() caddy.Module { return new(origins) },
	}
}

func (origins) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	w.Header().Add("Access-Control-Allow-Origin", "*")
	w.Header().Add("Access-Control-Expose-Headers", "X-Total")
	w.Header().Add("Vary", "Accept")
	_, err := w.Write([]byte("app"))
	return err
}

const h5 = "Origin: https://h5.example.com\r\n"

func TestCors_Preflight_NeedsNoToken(t *testing.T) {
	s := newServer(t, corsSite)
	before := decisions()[Preflight]
	paths := []string{"/api/x", "/wx/login", "/open/x", "/wx/nothing"}
	defer func() {
		if got := decisions()[Preflight] - before; got != float64(len(paths)+1) {
			t.Errorf("%v preflights are counted", got)
		}
	}()
	for _, path := range paths {
		status, h, body := s.send("OPTIONS " + path + " HTTP/1.1\r\nHost: {host}\r\n" + h5 +
			"Access-Control-Request-Method: DELETE\r\n" +
			"Access-Control-Request-Headers: authorization, x-trace\r\n\r\n")
		if status != 204 || body != "" || h.Get("X-Wxgate") == "" {
			t.Errorf("%s: %d %s", path, status, body)
		}
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin":  "https://h5.example.com",
			"Access-Control-Allow-Methods": "DELETE",
			"Access-Control-Allow-Headers": "authorization, x-trace",
			"Access-Control-Max-Age":       "7200",
		} {
			if got := h[name]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if !slices.Contains(h["Vary"], "Origin") {
			t.Errorf("%s: a cache gives it to another origin: %q", path, h["Vary"])
		}
	}
	for _, lines := range []string{
		"Origin: https://evil.example.com\r\nAccess-Control-Request-Method: GET\r\n",
		"Origin: null\r\nAccess-Control-Request-Method: GET\r\n",
		"Origin: https://h5.example.com.evil.com\r\nAccess-Control-Request-Method: GET\r\n",
		h5 + h5 + "Access-Control-Request-Method: GET\r\n",
		h5, "Access-Control-Request-Method: GET\r\n",
	} {
		status, h, body := s.send("OPTIONS /api/x HTTP/1.1\r\nHost: {host}\r\n" + lines + "\r\n")
		if status != 401 || code(body) != "session_missing" {
			t.Errorf("%q: %d %s", lines, status, body)
		}
		if got := h.Get(allowOrigin); got != "" && lines != h5 {
			t.Errorf("%q: allowed %q", lines, got)
		}
	}
	_, h, _ := s.send("OPTIONS /x HTTP/1.1\r\nHost: {host}\r\n" + h5 +
		"Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: a;b\r\n\r\n")
	if got := h["Access-Control-Allow-Headers"]; got != nil {
		t.Errorf("allows %q", got)
	}
}

// TestCors_Answers_HaveOneOrigin: the app's own headers are not doubled, and the page
// reads what the client needs of a refusal.
func TestCors_Answers_HaveOneOrigin(t *testing.T) {
	s := newServer(t, corsSite)
	const token = "Authorization: Bearer {token}\r\n"
	for _, c := range []struct {
		path, lines string
		status      int
		exposed     string
	}{
		{"/api/x", h5 + token, 200, "X-Total, X-Wxgate, Retry-After"},
		{"/open/x", h5, 200, "X-Total, X-Wxgate, Retry-After"},
		{"/api/x", h5, 401, "X-Wxgate, Retry-After"},
		{"/wx/session", h5 + token, 200, "X-Wxgate, Retry-After"},
	} {
		status, h, body := s.send(get(c.path, c.lines))
		if status != c.status {
			t.Fatalf("%s: %d %s", c.path, status, body)
		}
		if got := h[allowOrigin]; len(got) != 1 || got[0] != "https://h5.example.com" {
			t.Errorf("%s: %s is %q", c.path, allowOrigin, got)
		}
		if got := strings.Join(h[exposeHeaders], ", "); got != c.exposed {
			t.Errorf("%s: %s is %q", c.path, exposeHeaders, got)
		}
		if h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: cookies are sent", c.path)
		}
	}
	// Another page gets what the app says, and nothing of the gate's.
	_, h, _ := s.send(get("/open/x", "Origin: https://evil.example.com\r\n"))
	if got := h[allowOrigin]; len(got) != 1 || got[0] != "*" || h[exposeHeaders][0] != "X-Total" {
		t.Errorf("another page: %v", h)
	}
	if !slices.Contains(h["Vary"], "Origin") {
		t.Errorf("a cache gives it to the H5 page: %q", h["Vary"])
	}
}

func TestCors_WrongOrigin_IsRefused(t *testing.T) {
	for _, origin := range []string{
		"*", "null", "h5.example.com", "https://h5.example.com/", "https://h5.example.com/x",
		"https://H5.example.com", "https://*.example.com", "ftp://h5.example.com", "https://",
		"https://u@h5.example.com",
	} {
		if err := checkOrigin(origin); err == nil {
			t.Errorf("%q passes", origin)
		}
	}
}
