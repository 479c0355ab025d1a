package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
)

// h2target is a row for one :path, sent with every credential.
func h2target(path string, want func(*testing.T, outcome)) h2attack {
	return h2attack{name: fmt.Sprintf("%q", path), stream: h2head(":method: GET", ":scheme: https", ":authority: {host}", ":path: "+path), want: want}
}

// TestThreat10to14_HTTP2: a :path is any text at all, and yet opens nothing but what its rules say.
func TestThreat10to14_HTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, nil, func(t *testing.T, a *h2arena) {
		a.run(t, append(
			h2paths(),
			h2attack{name: "14 OPTIONS", stream: h2head(":method: OPTIONS", ":scheme: https", ":authority: {host}", ":path: {path}", "origin: https://evil.example")},
			h2attack{name: "14 TRACE", stream: h2head(":method: TRACE", ":scheme: https", ":authority: {host}", ":path: {path}")},
			h2attack{name: "13 health checker", stream: h2get("user-agent: GoogleHC/1.0", "referer: https://servicewechat.com/"+appA+"/1/page-frame.html")},
			h2attack{name: "11 query", stream: h2head(":method: GET", ":scheme: https", ":authority: {host}", ":path: {path}?x=/public/&y=/../public/x")},
			h2attack{name: "11 OPTIONS *", stream: h2head(":method: OPTIONS", ":scheme: https", ":authority: {host}", ":path: *"), want: neverOpen},
			h2attack{name: "11 CONNECT", stream: h2head(":method: CONNECT", ":authority: {host}"), want: neverOpen},
			h2attack{name: "11 CONNECT to a path", stream: h2head(":method: CONNECT", ":authority: /public/x"), want: neverOpen},
			h2attack{name: "11 CONNECT with a path", stream: h2head(":method: CONNECT", ":scheme: https", ":authority: {host}", ":path: /public/x"), want: never},
		))
	})
}

func h2paths() (rows []h2attack) {
	for _, path := range []string{"/public/x", "/public/", "/public/a/b.c?x=/admin", "/public/%E7%A0%81", "/healthz", "/healthz?/../admin", "/public/x HTTP/1.1", "/public/ x"} {
		rows = append(rows, h2target(path, opened))
	}
	for _, path := range []string{"/", "/public", "/publicx", "/PUBLIC/x", "/healthz/", "/admin?x=/public/"} {
		rows = append(rows, h2target(path, guarded))
	}
	for _, path := range []string{
		"", "*", "?", "x", "public/x", "http://{host}/admin", "http://{host}/public/../admin", "//public//x", "///public/x", "http:/public/x", "/admin#/public/x", "/admin\\..\\public\\x",
		"/public/../admin", "/admin/..%2fpublic/x", "/public/..%2fadmin", "/public/..%2Fadmin", "/public/..;/admin", "/public/%252e%252e/admin", "/public/%5c..%5cadmin", "/public/%23/../x", "/public%00/x", "/public/%2e%2e/admin", "/public/.",
		"/admin /public/x", "/public/x\r\nX-WX-OPENID: victim", "/public/\x00", "/public/\xff", "/public/\x7f", "/public/\t", "/public/%", "/public/%zz", "/public/%ff", "/public/;x", "/public//x", "/./public/x",
		"/%70ublic/x", "/public%2fx", "/optional/..%2fadmin", "/optional/../admin", "/healthz%00", "/healthz/../admin", "//healthz", "/public/x%0d%0aX-WX-OPENID:%20victim", "/public/[x]%2e",
	} {
		rows = append(rows, h2target(path, neverOpen))
	}
	for _, path := range []string{
		"/wx", "/wx/", "/wx/login/", "/WX/login", "/wx//login", "//wx/login", "/wx/%6cogin", "/%77x/login", "/wx/./login", "/x/../wx/login", "/wx;a/login", "/wx\\login", "/wx%5clogin", "/wx%2flogin", "/wx/login%00", "/public/..%2fwx/login", "/wx/../admin",
	} {
		rows = append(rows, h2target(path, notFound))
	}
	return append(rows, h2target("/wx/login", refused(http.StatusMethodNotAllowed, "invalid_request")), h2target("/wxx/login", guarded))
}

// extended is an extended CONNECT (RFC 8441).
func extended(protocol, path string, fields ...string) stream {
	return h2head(append([]string{":method: CONNECT", ":protocol: " + protocol, ":scheme: https", ":authority: {host}", ":path: " + path, "sec-websocket-version: 13"}, fields...)...)
}

// TestThreat5_ExtendedConnect: HTTP/2 has a way of its own to open a tunnel. By default nobody here speaks it; where an operator lets it in, it is for WebSocket and passes the gate.
func TestThreat5_ExtendedConnect(t *testing.T) {
	t.Parallel()
	rows := func(want func(*testing.T, outcome)) []h2attack {
		return []h2attack{
			{name: "websocket", stream: extended("websocket", "{path}"), want: want},
			{name: "websocket and forged", stream: extended("websocket", "{path}", "x-wx-openid: victim", "x_wx_unionid: victim", "x~wx~appid: victim"), want: want},
			{name: "connect-udp", stream: extended("connect-udp", "{path}"), want: noTunnel},
			{name: "h2c", stream: extended("h2c", "{path}", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA"), want: noTunnel},
			{name: "websocket, odd case", stream: extended("WebSocket", "{path}"), want: noTunnel},
			{name: "nothing", stream: extended("", "{path}"), want: noTunnel},
			{name: "by GET", stream: h2get(":protocol: websocket"), want: noTunnel},
			{name: "two protocols", stream: extended("websocket", "{path}", ":protocol: h2c"), want: never},
			{name: "behind the fields", stream: h2get(":protocol: websocket"), want: noTunnel},
			{name: "odd path", stream: extended("websocket", "/public/..%2fadmin"), want: neverOpen},
			{name: "no path", stream: h2head(":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: {host}"), want: never},
		}
	}
	t.Run("off", func(t *testing.T) {
		overHTTP2(t, nil, func(t *testing.T, a *h2arena) { a.run(t, rows(never)) })
	})
	t.Run("on", func(t *testing.T) {
		overHTTP2(t, []string{"GODEBUG=http2xconnect=1"}, func(t *testing.T, a *h2arena) {
			a.run(t, rows(tunnel))
			if len(a.app.take()) > 0 {
				t.Error("the app hears more")
			}
		})
	})
}

// tunnel: the handshake is treated as its path and credential deserve.
func tunnel(t *testing.T, o outcome) {
	t.Helper()
	if o.route == endpoint {
		o.refused(t, http.StatusMethodNotAllowed, "invalid_request")
		return
	}
	asUsual(t, o)
	for _, r := range o.app {
		if v := r.values("upgrade"); len(v) != 1 || v[0] != "websocket" {
			t.Errorf("the app is asked to upgrade to %q", v)
		}
	}
}

// noTunnel: whatever becomes of the request, the app is not asked for a tunnel.
func noTunnel(t *testing.T, o outcome) {
	t.Helper()
	if o.route != public && o.route != optional {
		neverOpen(t, o)
	}
	for _, r := range o.app {
		if len(r.values("upgrade")) > 0 || len(r.values(":protocol")) > 0 {
			t.Errorf("the app is asked for a tunnel: %+v", r)
		}
	}
}
