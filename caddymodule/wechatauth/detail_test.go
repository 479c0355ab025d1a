package wechatauth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// TestRefuse_NoToken_SaysWhere holds that a 401 for a missing token names the headers
// that are read, and where a token was seen instead, never the token.
func TestRefuse_NoToken_SaysWhere(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	own := w.newGate(&Handler{TokenHeader: "X-Token", Endpoints: "/auth"})
	const t0 = caddytest.MadeUp
	for _, tt := range []struct {
		gate         *Handler
		path         string
		name, value  string
		want, absent string
	}{
		{
			w.gate, "/x", "", "",
			"no token in the header Authorization or X-3rd-Session: call wx.login", "",
		},
		{w.gate, "/wx/session", "", "", "POST its code to /wx/login", "there is one"},
		{w.gate, "/x", "Token", t0, "one in the header Token,", "wx.login"},
		{
			w.gate, "/wx/session", "X-Token", t0, "send it as Authorization: Bearer <3rd_session>",
			"",
		},
		{
			w.gate, "/x", "Authorization", "Bearer x, Bearer " + t0,
			"one in Authorization in another form", "",
		},
		{w.gate, "/x", "Cookie", "a=b; t=" + t0, "one in the header Cookie", ""},
		{w.gate, "/x?token=" + t0, "", "", "one in the query", ""},
		{w.gate, "/x/" + t0, "", "", "one in the path", ""},
		{w.gate, "/x", "X-" + strings.Repeat("A", 99), t0, "one in another header", "AAAA"},
		{own, "/x", "", "", "POST its code to /auth/login", "Authorization"},
		{own, "/x", "Authorization", "Bearer " + t0, "send it as X-Token: <3rd_session>", ""},
		{own, "/x", "X-3rd-Session", t0, "one in the header X-3rd-Session", ""},
	} {
		r, rec := caddytest.Request("GET", tt.path, "")
		if tt.name != "" {
			r.Header[http.CanonicalHeaderKey(tt.name)] = []string{tt.value}
		}
		if err := tt.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
			t.Fatal(err)
		}
		got := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(rec.Body.String())
		if rec.Code != 401 || !strings.Contains(got, tt.want) || strings.Contains(got, "wxs_") ||
			tt.absent != "" && strings.Contains(got, tt.absent) {
			t.Errorf("%.20s %.20s: %d %s", tt.path, tt.name, rec.Code, got)
		}
	}
}

// TestRefuse_NoEndpoint_NamesThem holds that a 404 under the prefix names the word that
// owns it and the endpoints.
func TestRefuse_NoEndpoint_NamesThem(t *testing.T) {
	g := newWorld(t, &Handler{Endpoints: "/auth"}).gate
	r, rec := caddytest.Request("GET", "/auth/profile", "")
	if err := g.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/auth", "endpoints", "login", "session"} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%q is not in %s", want, rec.Body)
		}
	}
}
