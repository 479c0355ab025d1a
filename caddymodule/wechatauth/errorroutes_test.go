package wechatauth

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// forged are identity, a token and a connection option as a client may send them.
const forged = "X-WX-OPENID: victim\r\nX_Wx_Openid: victim\r\nx.wx~unionid: victim\r\n" +
	"My-User: victim\r\nAuthorization: Bearer {token}\r\nX-3rd-Session: {token}\r\n" +
	"Connection: close, X-Request-Id\r\nX-Request-Id: 1\r\n"

// TestThreat35_ErrorRoutes_NoForgery holds that no request which fails before the gate
// brings identity or a token to an app behind an error route.
func TestThreat35_ErrorRoutes_NoForgery(t *testing.T) {
	const fallback = "handle_errors {\necho\n}\n"
	const site = "http:// {\nLINES\nwechat_auth {\npublic /public/*\n}\necho\n" + fallback + "}\n"
	sites := map[string]string{
		"plain": site,
		"two gates": site + "http://other.test {\n" +
			"wechat_auth {\nheaders {\nopenid My-User\n}\n}\necho\n}\n",
		"gate in handle": strings.Replace(
			site, "wechat_auth {\npublic /public/*\n}\necho\n",
			"handle /x {\nwechat_auth\n}\nhandle {\nwechat_auth {\npublic /public/*\n}\necho\n}\n",
			1,
		),
	}
	chunked := "Transfer-Encoding: chunked\r\nTrailer: X-Note\r\n\r\n" +
		"2\r\nhi\r\n0\r\nX-Note: 1\r\nX-Wx-Openid: victim\r\n"
	servers := make(map[string]*server) // by their Caddyfile: several requests have one
	for _, tt := range []struct{ name, lines, request string }{
		{"empty host", "", strings.Replace(get("/orders", forged), "{host}", "", 1)},
		{"dots as host", "", strings.Replace(get("/orders", forged), "{host}", "...", 1)},
		{"long method", "", strings.Repeat("A", 33) + get("/orders", forged)},
		{
			"basic_auth",
			"basic_auth {\nbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}",
			get("/orders", forged),
		},
		{"no file", "try_files {path} =404", get("/orders", forged)},
		{"error", "error /orders 418", get("/orders", forged)},
		{"trailer", "error /orders 418", get("/orders", forged+chunked)},
	} {
		for name, site := range sites {
			site = strings.Replace(site, "LINES", tt.lines, 1)
			if servers[site] == nil {
				servers[site] = newServer(t, site)
			}
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				_, _, got := servers[site].send(tt.request)
				if !strings.Contains(got, "X-Request-Id: 1\n") {
					t.Fatalf("the error route does not answer:\n%s", got)
				}
				if strings.Contains(got, "wxs_") || strings.Contains(got, "auth.user") {
					t.Errorf("the app gets the token, or a placeholder by name:\n%s", got)
				}
				want := 0
				if name != "two gates" {
					want = 1 // My-User is nobody's there
				}
				if n := strings.Count(got, "victim"); n != want {
					t.Errorf("the app gets the forgery %d times, want %d:\n%s", n, want, got)
				}
			})
		}
	}
}

// TestThreat35_ErrorRoutes_AppDown holds that a fallback sees the user, with or
// without a gate of its own, and that a gate there judges what none has judged.
func TestThreat35_ErrorRoutes_AppDown(t *testing.T) {
	const site = "http:// {\nwechat_auth {\npublic /public/*\noptional /feed/*\n}\n" +
		"error /fail/* 418\nrewrite /moved /public/x\nhandle {\nerror 502\n}\n" +
		"handle_errors {\nGATE\necho\n}\n}\n"
	alice := "user <alice>\n"
	servers := make(map[string]*server) // by the gate of the error routes
	for _, tt := range []struct {
		gate, path, token string
		want              string // a part of what the app gets, or the code of the refusal
	}{
		{"", "/orders", "{token}", alice},
		{"wechat_auth", "/orders", "{token}", alice},
		{"wechat_auth {\npublic /public/*\n}", "/orders", "{token}", alice},
		{"", "/feed/x", "", "user <>\n"},
		{"wechat_auth", "/feed/x", "{token}", alice},
		{"wechat_auth {\noptional /feed/*\n}", "/feed/x", "", "user <>\n"},
		{"wechat_auth {\npublic /public/*\n}", "/public/x", "{token}", "user <>\n"},
		{"wechat_auth", "/moved", "", "session_missing"}, // judged as /public/x
		{"wechat_auth", "/fail/x", "", "session_missing"},
		{"wechat_auth", "/fail/x", "wxs_" + strings.Repeat("A", 41), "session_invalid"},
		{"wechat_auth", "/fail/x", "{token}", alice},
	} {
		if servers[tt.gate] == nil {
			servers[tt.gate] = newServer(t, strings.Replace(site, "GATE", tt.gate, 1))
		}
		t.Run(tt.gate+tt.path, func(t *testing.T) {
			auth := ""
			if tt.token != "" {
				auth = "Authorization: Bearer " + tt.token + "\r\n"
			}
			_, _, got := servers[tt.gate].send(get(tt.path, "X-Wx-Openid: victim\r\n"+auth))
			if code(got) != tt.want && !strings.Contains(got, tt.want) {
				t.Errorf("got\n%s\nwant %q", got, tt.want)
			}
			if strings.Contains(got, "victim") || strings.Contains(got, "wxs_") {
				t.Errorf("the app gets the forgery or the token:\n%s", got)
			}
		})
	}
}

// TestThreat35_ErrorRoutes_OtherApp holds that a gate in an error route accepts only
// the mini programs of its list.
func TestThreat35_ErrorRoutes_OtherApp(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	other := w.newGate(&Handler{Apps: []string{caddytest.OtherAppID}})
	r, rec := caddytest.Request("GET", "/", w.Token(caddytest.AppID, "alice"))
	var n caddytest.Next
	if err := w.gate.ServeHTTP(rec, r, &n); err != nil || !n.Called {
		t.Fatal(err, rec.Code)
	}
	n = caddytest.Next{}
	if err := other.ServeHTTP(rec, r, &n); err != nil || n.Called {
		t.Errorf("passed on (%v), error %v", n.Called, err)
	}
}

// TestThreat35_ErrorRoutes_NoEndpoint holds that a gate in an error route answers no
// endpoint.
func TestThreat35_ErrorRoutes_NoEndpoint(t *testing.T) {
	s := newServer(t, "http:// {\nerror 418\nwechat_auth\necho\n"+
		"handle_errors {\nwechat_auth\necho\n}\n}\n")
	status, _, got := s.send(get("/wx/session", "X-3rd-Session: {token}\r\n"))
	if status != 404 || code(got) != "not_found" {
		t.Errorf("%d %s", status, got)
	}
}

// TestThreat35_ErrorRoutes_Built holds that gates add one route to the error routes of
// their server and of subroutes around them, and none where there are no error routes.
func TestThreat35_ErrorRoutes_Built(t *testing.T) {
	const gate, proxy = `{"handler":"wechat_auth"}`, `{"handler":"static_response"}`
	const failed = `"errors":{"routes":[{"handle":[` + proxy + `]},{"handle":[` + proxy + `]}]}`
	const named = `,"named_routes":{"x":{"handle":[` + gate + `]}}`
	nested := func(more string) string {
		return `{"handler":"subroute","routes":[{"handle":[` + gate + `]}]` + more + `}`
	}
	for _, tt := range []struct {
		name, routes, errors string
		want                 int // error routes of the server; -1: refused
	}{
		{"no gate", proxy, failed, 2},
		{"no error routes", gate, `"errors":{"routes":[]}`, 0},
		{"one gate", gate, failed, 3},
		{"three gates", gate + "," + gate + "," + nested(""), failed, 3},
		{"gate in an error route", proxy, strings.Replace(failed, proxy, nested(""), 1), 2},
		{"gates in both", gate, strings.Replace(failed, proxy, gate, 1), 3},
		{"named route", proxy, failed + named, -1},
		{"named route and gate", gate, failed + named, 3},
		{"subroute", nested("," + failed), failed, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("WX_SECRET", caddytest.Canary)
			_, app, err := provision(t, `{"apps":{"wechat":`+caddytest.AppJSON("")+
				`,"http":{"servers":{"a":{"routes":[{"handle":[`+tt.routes+`]}],`+tt.errors+`}}}}}`)
			if tt.want < 0 {
				if err == nil || !strings.Contains(err.Error(), "write wechat_auth in the site") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			srv := app.Servers["a"]
			if n := len(srv.Errors.Routes); n != tt.want {
				t.Errorf("%d error routes, want %d", n, tt.want)
			}
			if sub, ok := srv.Routes[0].Handlers[0].(*caddyhttp.Subroute); ok {
				if n := len(sub.Errors.Routes); n != 3 {
					t.Errorf("%d error routes in the subroute, want 3", n)
				}
			}
		})
	}
}
