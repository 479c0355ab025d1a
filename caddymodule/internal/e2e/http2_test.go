package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// h2get is a request with further fields.
func h2get(fields ...string) stream {
	return stream{fields: slices.Concat([]string{":method: GET", ":scheme: https", ":authority: {host}", ":path: {path}"}, fields, []string{"{auth}"})}
}

// h2head is a request whose pseudo fields are given in full.
func h2head(fields ...string) stream { return stream{fields: append(fields, "{auth}")} }

// h2upload is a POST with trailers.
func h2upload(declared string, trailers ...string) stream {
	s := stream{fields: []string{":method: POST", ":scheme: https", ":authority: {host}", ":path: {path}", "{auth}"}, body: "abc", trailers: trailers}
	if declared != "" {
		s.fields = append(s.fields, "trailer: "+declared)
	}
	return s
}

// TestThreat1to9_HTTP2 runs against every kind of route.
func TestThreat1to9_HTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, nil, func(t *testing.T, a *h2arena) {
		a.run(t, slices.Concat(h2names(), h2values, h2hop, h2trailers(), h2pseudo, h2credentials))
	})
}

// h2names are THREATS.md 1 and 2. A name that HTTP/2 does not have is net/http's to refuse.
func h2names() (rows []h2attack) {
	for _, name := range []string{
		"x-wx-openid", "x-wx-unionid", "x-wx-appid", "x-wx-source", "x-wx-from-openid", "x-wx-",
		"x_wx_openid", "x.wx.openid", "x-wx_openid", "x~wx~openid", "x-wx!openid", "x|wx'openid", "x+wx+unionid", "x^wx^appid", "x`wx`source", "x#wx$openid", "x%wx&openid", "x*wx*openid",
	} {
		rows = append(rows, h2attack{name: "1, 2 " + name, stream: h2get(name + ": victim")})
	}
	for _, name := range []string{
		"X-WX-OPENID", "x-Wx-openid", "x-wx-openid ", " x-wx-openid", "x wx openid", "x-wx-openid:", ":x-wx-openid", "x-wx-openid\x00", "x-a\r\nx-wx-openid", "x-wx\nopenid", "x-wx-öpenid", "x\u212ax-wx-openid", "x-wx-openid\t", "x(wx)openid", "",
	} {
		rows = append(rows, h2attack{name: fmt.Sprintf("1 no name %q", name), stream: h2get(name + ": victim"), want: never})
	}
	return rows
}

var h2values = []h2attack{
	{name: "9 nothing odd", stream: h2get("accept: */*")},
	{name: "1 twice", stream: h2get("x-wx-openid: victim", "x-wx-openid: victim2")},
	{name: "1 empty", stream: h2get("x-wx-openid: ", "x-wx-unionid: ")},
	{name: "1 all of them", stream: h2get("x-wx-openid: v", "x-wx-unionid: v", "x-wx-appid: v", "x-wx-source: v", "x_wx_openid: v", "x~wx~openid: v")},
	{name: "1 line in a value", stream: h2get("x-a: b\r\nX-WX-OPENID: victim"), want: never},
	{name: "1 bare LF in a value", stream: h2get("x-a: b\nX-WX-OPENID: victim"), want: never},
	{name: "1 NUL in a value", stream: h2get("x-a: b\x00"), want: never},
	{name: "6 original URL", stream: h2get("x-original-url: /public/x", "x-rewrite-url: /public/x", "x-forwarded-uri: /public/x")},
	{name: "6 forwarded", stream: h2get("x-forwarded-for: 127.0.0.1", "x-forwarded-host: x", "forwarded: for=127.0.0.1", "x-forwarded-user: victim")},
	{name: "crumbs of a cookie", stream: h2get("cookie: a=b", "cookie: x-wx-openid=victim")},
}

// h2hop are THREATS.md 3 and 5: HTTP/2 has no Connection, so that net/http answers in the app's stead, but an alias of it is a header like any other.
var h2hop = []h2attack{
	{name: "3 connection", stream: h2get("connection: x-wx-openid"), want: never},
	{name: "3 connection close", stream: h2get("connection: close"), want: never},
	{name: "3 keep-alive", stream: h2get("keep-alive: x-wx-openid"), want: never},
	{name: "3 proxy-connection", stream: h2get("proxy-connection: x-wx-openid"), want: never},
	{name: "3 transfer-encoding", stream: h2get("transfer-encoding: chunked"), want: never},
	{name: "3 te", stream: h2get("te: x-wx-openid"), want: never},
	{name: "3 te trailers", stream: h2get("te: trailers")},
	{name: "3 aliases", stream: h2get("connection!: x-wx-openid", "connection_: x-wx-openid", "proxy_connection: x-wx-appid", "x-connection: x-wx-openid")},
	{name: "5 upgrade", stream: h2get("upgrade: websocket"), want: never},
	{name: "5 upgrade h2c", stream: h2get("upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA"), want: never},
	{name: "5 settings alone", stream: h2get("http2-settings: AAMAAABkAARAAAAAAAIAAAAA", "http2_settings: AAMAAABkAARAAAAAAAIAAAAA")},
	{name: "5 alias of upgrade", stream: h2get("upgrade!: h2c", "connection!: upgrade")},
}

// h2trailers are THREATS.md 4.
func h2trailers() (rows []h2attack) {
	badRequest := refused(http.StatusBadRequest, "invalid_request")
	for _, name := range []string{"x-wx-openid", "x_wx_openid", "x~wx~unionid", "x-3rd-session"} {
		rows = append(
			rows,
			h2attack{name: "4 declared " + name, stream: h2upload("x-checksum, "+name, "x-checksum: 1", name+": wxs_victim"), want: badRequest},
			h2attack{name: "4 declared in capitals " + name, stream: h2upload(strings.ToUpper(name)), want: badRequest},
			h2attack{name: "4 undeclared " + name, stream: h2upload("", name+": wxs_victim")},
			h2attack{name: "4 behind another " + name, stream: h2upload("x-checksum", "x-checksum: 1", name+": wxs_victim"), want: func(t *testing.T, o outcome) {
				asUsual(t, o)
				for _, r := range o.app {
					if len(r.Trailers) != 1 || strings.ToLower(r.Trailers[0]) != "x-checksum: 1" {
						t.Errorf("the app receives the trailers %q, want the declared one", r.Trailers)
					}
				}
			}},
		)
	}
	return append(
		rows,
		h2attack{name: "4 authorization", stream: h2upload("authorization", "authorization: Bearer wxs_victim"), want: never}, // net/http does not let it be one
		h2attack{name: "4 declared without a body", stream: h2get("trailer: x-wx-openid"), want: badRequest},
		h2attack{name: "4 pseudo field", stream: h2upload("x-checksum", ":path: /public/x"), want: never},
		h2attack{name: "4 capitals", stream: h2upload("x-checksum", "X-WX-OPENID: victim"), want: never},
	)
}

// h2pseudo: what stands for the request line must be there once, first and sound.
var h2pseudo = []h2attack{
	{name: "two paths", stream: h2get(":path: /public/x"), want: never},
	{name: "two methods", stream: h2get(":method: POST"), want: never},
	{name: "two authorities", stream: h2get(":authority: public"), want: never},
	{name: "two schemes", stream: h2get(":scheme: http"), want: never},
	{name: "path behind the fields", stream: h2head(":method: GET", ":scheme: https", ":authority: {host}", "accept: */*", ":path: {path}"), want: never},
	{name: "pseudo field of an answer", stream: h2get(":status: 200"), want: never},
	{name: "no path", stream: h2head(":method: GET", ":scheme: https", ":authority: {host}"), want: never},
	{name: "no method", stream: h2head(":scheme: https", ":authority: {host}", ":path: {path}"), want: never},
	{name: "no scheme", stream: h2head(":method: GET", ":authority: {host}", ":path: {path}"), want: never},
	{name: "foreign scheme", stream: h2head(":method: GET", ":scheme: ftp", ":authority: {host}", ":path: {path}"), want: never},
	{name: "scheme that is a line", stream: h2head(":method: GET", ":scheme: http://{host}/public/x?", ":authority: {host}", ":path: {path}"), want: never},
	{name: "other scheme", stream: h2head(":method: GET", ":scheme: http", ":authority: {host}", ":path: {path}")},
	{name: "method that is a line", stream: h2head(":method: GET /public/x HTTP/1.1", ":scheme: https", ":authority: {host}", ":path: {path}"), want: noLine},
	{name: "method with a line break", stream: h2head(":method: GET / HTTP/1.1\r\nX-WX-OPENID: victim\r\n\r\n", ":scheme: https", ":authority: {host}", ":path: {path}"), want: never},
	{name: "method of one's own", stream: h2head(":method: WX-LOGIN", ":scheme: https", ":authority: {host}", ":path: {path}")},
	{name: "authority with a path", stream: h2head(":method: GET", ":scheme: https", ":authority: {host}/public/x?", ":path: {path}"), want: noLine},
	{name: "authority with a user", stream: h2head(":method: GET", ":scheme: https", ":authority: victim@{host}", ":path: {path}"), want: never},
	{name: "host instead of authority", stream: h2head(":method: GET", ":scheme: https", ":path: {path}", "host: {host}")},
	{name: "host beside authority", stream: h2get("host: {host}")},
	{name: "another host beside authority", stream: h2get("host: public"), want: never},
	{name: "two hosts", stream: h2get("host: {host}", "host: {host}"), want: never},
	{name: "body shorter than it says", stream: stream{fields: []string{":method: POST", ":scheme: https", ":authority: {host}", ":path: {path}", "{auth}", "content-length: 9"}, body: "abc"}, want: never},
	{name: "body longer than it says", stream: stream{fields: []string{":method: POST", ":scheme: https", ":authority: {host}", ":path: {path}", "{auth}", "content-length: 1"}, body: "abc"}, want: never},
	{name: "request in a body", stream: stream{fields: []string{":method: POST", ":scheme: https", ":authority: {host}", ":path: {path}", "{auth}"}, body: "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\nX-WX-OPENID: victim\r\n\r\n"}},
}

// noLine: the odd pseudo field makes no second request line. Whether it passes at all is net/http's affair.
func noLine(t *testing.T, o outcome) {
	t.Helper()
	if o.route != public {
		neverOpen(t, o)
	}
	for _, r := range o.app {
		if strings.Count(r.Line, " ") != 2 || r.target() != pathOf[o.route] {
			t.Errorf("the app is asked %q", r.Line)
		}
	}
}

// h2credentials are THREATS.md 8.
var h2credentials = []h2attack{
	{name: "8 field twice", stream: h2plain("x-3rd-session: {good}", "x-3rd-session: {other}"), want: ambiguous},
	{name: "8 field and bearer", stream: h2plain("x-3rd-session: {good}", "authorization: Bearer {other}"), want: ambiguous},
	{name: "8 good and dead", stream: h2plain("x-3rd-session: {good}", "authorization: Bearer {dead}"), want: ambiguous},
	{name: "8 bearer twice", stream: h2plain("authorization: Bearer {dead}", "authorization: Bearer {good}"), want: ambiguous},
	{name: "token in a misspelt field", stream: h2get("x_3rd_session: {good}", "x~3rd~session: {good}")},
}

func h2plain(fields ...string) stream {
	s := h2get(fields...)
	s.fields = s.fields[:len(s.fields)-1]
	return s
}
