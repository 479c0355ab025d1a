package wechatapi

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// TestAPICallers: the connection decides who is on this machine, and no header
// can make anybody local.
func TestAPICallers(t *testing.T) {
	w := newWorld(t)
	local, remote := w.newAPI(new(Handler)), w.newAPI(&Handler{AllowRemote: true})
	unix := func(r *http.Request) *http.Request {
		return r.WithContext(
			context.WithValue(
				r.Context(), http.LocalAddrContextKey, &net.UnixAddr{Name: "/x", Net: "unix"},
			),
		)
	}
	for name, tt := range map[string]struct {
		edit    func(*http.Request)
		allowed bool
	}{
		"loopback":           {func(r *http.Request) {}, true},
		"loopback, other":    {from("127.9.9.9:1"), true},
		"IPv6 loopback":      {from("[::1]:1"), true},
		"mapped loopback":    {from("[::ffff:127.0.0.1]:1"), true},
		"unix socket":        {func(r *http.Request) { r.RemoteAddr = "@"; *r = *unix(r) }, true},
		"another machine":    {from("10.0.0.7:1"), false},
		"mapped, elsewhere":  {from("[::ffff:10.0.0.7]:1"), false},
		"link-local":         {from("[fe80::1%eth0]:1"), false},
		"unspecified":        {from("0.0.0.0:1"), false},
		"nothing":            {func(r *http.Request) { r.RemoteAddr = "" }, false},
		"@ without a socket": {from("@"), false},
		"claims to be local": {from("10.0.0.7:1", "X-Forwarded-For", "127.0.0.1"), false},
		"client_ip is local": {from("10.0.0.7:1", "X-Real-Ip", "::1"), false},
		"through a proxy":    {header("X-Forwarded-For", "192.0.2.1"), false},
		"proxy on a socket": {
			func(r *http.Request) { *r = *unix(r); r.Header.Set("Via", "1.1 Caddy") }, false,
		},
		"behind a CDN":       {header("CF-Connecting-IP", "192.0.2.1"), false},
		"behind another CDN": {header("True-Client-IP", "192.0.2.1"), false},
		"host of a proxy":    {header("X-Forwarded-Host", "x"), false},
		"scheme of a proxy":  {header("X-Forwarded-Proto", "https"), false},
		"through a platform": {header("X-Original-Forwarded-For", "192.0.2.1"), false},
		"under a name":       {func(r *http.Request) { r.Host = "evil.example" }, false},
		"name on a socket": {
			func(r *http.Request) { *r = *unix(r); r.Host = "api.example.com" }, true,
		},
		"from fetch of Node": {header("Sec-Fetch-Mode", "cors"), true},
	} {
		for _, target := range []string{"/wx/user/none", "/not/listed"} {
			got, want := caddytest.Code(
				t, local.call(t, "POST", target, "", tt.edit),
			), "caller_not_allowed"
			if tt.allowed {
				want = map[bool]string{
					true: "not_found", false: "call_not_allowed",
				}[target == "/wx/user/none"]
			}
			if got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			rec := remote.call(t, "POST", target, "", tt.edit)
			if got := caddytest.Code(t, rec); got == "caller_not_allowed" {
				t.Errorf("%s: refused in spite of allow_remote", name)
			}
		}
	}
}

// TestAPICallers_Pages: a web page gets nothing, on no listener and whatever is
// allowed, and is told no way around that.
func TestAPICallers_Pages(t *testing.T) {
	w := newWorld(t)
	for name, a := range map[string]*Handler{
		"local": w.newAPI(new(Handler)), "remote": w.newAPI(&Handler{AllowRemote: true}),
	} {
		for _, header := range []string{"Origin: null", "Origin: http://127.0.0.1:8081", "Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: empty", "Sec-Fetch-Dest:"} {
			for _, target := range []string{"/wx/user/none", "/not/listed"} {
				rec := a.call(t, "POST", target, "", func(r *http.Request) {
					header, value, _ := strings.Cut(header, ":")
					r.Header.Set(header, strings.TrimSpace(value))
				})
				if got := caddytest.Code(t, rec); got != "caller_not_allowed" ||
					strings.Contains(rec.Body.String(), "allow_remote") {
					t.Errorf("%s, %s: %s", name, header, rec.Body)
				}
			}
		}
	}
}

// hosts says under which names a program on this machine may call.
var hosts = map[string]bool{
	"": true, "127.0.0.1": true, "127.0.0.1:24013": true, "[::1]": true, "[::1]:80": true,
	"[::FFFF:127.0.0.1]:80": true, "192.0.2.7:80": true,
	"localhost": true, "LOCALHOST:8081": true, "localhost.": true, "gate-internal": true,
	"gate-internal:80": true, "a.localhost": true, "gate.internal.:80": true, "Gate.Local": true,
	"x.test": true, "x.y.lan": true, "x.home.arpa": true, "api.weixin.qq.com": true,
	"API.weixin.qq.com.:80": true, "sh.api.weixin.qq.com": true,

	"evil.example": false, "evil.example:24013": false, "EVIL.example.": false,
	"evil.example.:80": false, "evil.example..": false, "localhost.evil.example": false,
	"127.0.0.1.evil.example": false, "evil-weixin.qq.com": false, "weixin.qq.com": false,
	"qq.com": false, "evillocal.example": false, "mylan.example": false,
	"x.localhost..": false, "home.arpa": false, "[fe80::1%evil.example]:80": false,
	"evil.example:80:90": false, ".example": false, "1.2.3": false, "127.0.0.1.": false,
}

func TestAPICallers_Hosts(t *testing.T) {
	w := newWorld(t)
	local, remote := w.newAPI(new(Handler)), w.newAPI(&Handler{AllowRemote: true})
	for host, allowed := range hosts {
		call := func(a *Handler) string {
			return caddytest.Code(
				t, a.call(t, "GET", "/not/listed", "", func(r *http.Request) { r.Host = host }),
			)
		}
		if got := call(local); (got == "call_not_allowed") != allowed ||
			(got == "caller_not_allowed") == allowed {
			t.Errorf("Host %q: %s", host, got)
		}
		if got := call(remote); got != "call_not_allowed" {
			t.Errorf("Host %q with allow_remote: %s", host, got)
		}
	}
}

// FuzzAPIHost: however a browser might write it, no name under .example passes.
func FuzzAPIHost(f *testing.F) {
	for host := range hosts {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.ContainsAny(name, ":[]%") {
			return
		}
		if ip, err := netip.ParseAddr(name); unpublished(name) != unpublished(name+":80") ||
			err == nil && !unpublished(ip.String()) {
			t.Errorf("%q is another with a port", name)
		}
		for _, host := range []string{
			name + ".example", name + ".Example.", name + ".EXAMPLE:80", name + ".example.:80",
			name + ".example:",
		} {
			if unpublished(host) {
				t.Errorf("%q passes", host)
			}
		}
	})
}

// header returns an edit that sets a header.
func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// from returns an edit that sets the address of the caller, and headers.
func from(addr string, headers ...string) func(*http.Request) {
	return func(r *http.Request) {
		r.RemoteAddr = addr
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
}

// TestThreat39_APICallers_Secret holds that a caller without the secret gets nothing,
// wherever it is, and that without a value no caller has it.
func TestThreat39_APICallers_Secret(t *testing.T) {
	t.Setenv("WX_API_SECRET", "canary-of-the-app")
	w := newWorld(t)
	const none = "{env.WXGATE_TEST_NOT_SET}"
	for _, tt := range []struct {
		name    string
		secret  string
		remote  bool
		shown   []string
		allowed bool
	}{
		{"none asked for", "", false, nil, true},
		{"shown", "{env.WX_API_SECRET}", false, []string{"canary-of-the-app"}, true},
		{"shown, remote", "{env.WX_API_SECRET}", true, []string{"canary-of-the-app"}, true},
		{"missing", "{env.WX_API_SECRET}", false, nil, false},
		{"missing, remote", "{env.WX_API_SECRET}", true, nil, false},
		{"empty", "{env.WX_API_SECRET}", false, []string{""}, false},
		{"wrong", "{env.WX_API_SECRET}", false, []string{"canary-of-the-ape"}, false},
		{"twice", "{env.WX_API_SECRET}", false, []string{"canary-of-the-app", "x"}, false},
		{"no value", none, false, nil, false},
		{"no value, empty", none, false, []string{""}, false},
	} {
		h := w.newAPI(&Handler{Secret: tt.secret, AllowRemote: tt.remote})
		rec := h.call(t, "POST", "/wx/user/none", "", func(r *http.Request) {
			if tt.shown != nil {
				r.Header["X-Wxgate-Secret"] = tt.shown
			}
		})
		body := rec.Body.String()
		if got := caddytest.Code(t, rec) == "not_found"; got != tt.allowed ||
			strings.Contains(body, "canary") {
			t.Errorf("%s: %s", tt.name, body)
		}
	}
}
