package wechatauth

import (
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"

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

// TestRefuse_Malformed_NamesThePart holds that the detail of a 400, 403 or 415 names the
// member, header or type that is wrong, and shows no secret.
func TestRefuse_Malformed_NamesThePart(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	platform := w.newGate(&Handler{Cloudrun: true})
	one := w.newGate(&Handler{Apps: []string{caddytest.AppID}})
	alice, bob := w.Token(caddytest.AppID, "alice"), w.Token(caddytest.OtherAppID, "bob")
	const login, t0, json = "/wx/login", caddytest.MadeUp, "application/json"
	for _, tt := range []struct {
		gate   *Handler
		path   string
		header http.Header
		body   string
		want   string
	}{
		{w.gate, login, nil, `{"code":1}`, "code must be a string"},
		{w.gate, login, nil, `{"js_code":"x"}`, "code is missing: it is the string that wx.login"},
		{w.gate, login, nil, `{"code":"x","appid":[]}`, "appid must be a string"},
		{w.gate, login, nil, `{"code":"x"}`, "send appid beside code"},
		{w.gate, login, nil, `{"code":"x","code":"y"}`, "code stands twice"},
		{w.gate, login, nil, `{"code":}`, "syntax ends at byte 9"},
		{w.gate, login, nil, `["x"]`, "begins with a brace"},
		{w.gate, login, nil, `{"code":"x","appid":"wxffffffffffffffff"}`, "wxffffffffffffffff"},
		{w.gate, login, nil, `{"code":"x","appid":"` + t0 + `"}`, "that mini program"},
		{
			w.gate, login,
			http.Header{"Content-Type": {"text/plain; charset=utf-8"}},
			`{}`,
			`it is \"text/plain\"`,
		},
		{w.gate, login, http.Header{"Content-Type": {"a=b"}}, `{}`, "it is of another form"},
		{
			w.gate, login,
			http.Header{"Content-Type": {json}, "Content-Encoding": {"gzip"}},
			``,
			`Content-Encoding is \"gzip\"`,
		},
		{
			w.gate, "/x", http.Header{
				"Authorization": {"Bearer " + t0}, "X-3rd-Session": {alice},
			}, ``, "in Authorization and in X-3rd-Session",
		},
		{w.gate, "/x", http.Header{"X-3rd-Session": {t0, alice}}, ``, "both in X-3rd-Session"},
		{w.gate, "/x", http.Header{"Trailer": {"X-A, X-Wx-Openid"}}, ``, "X-Wx-Openid"},
		{one, "/x", http.Header{"X-3rd-Session": {bob}}, ``, caddytest.OtherAppID},
		{
			w.gate, "/wx/logout",
			http.Header{"X-3rd-Session": {alice}},
			`{"all":1}`,
			"all must be true or false",
		},
		{platform, "/x", http.Header{"X-Wx-Openid": {"o"}}, ``, "no X-Wx-Source"},
		{
			platform, "/x",
			http.Header{"X-Wx-Source": {"wx_client"}, "X-Wx-Appid": {"a,b"}},
			``,
			"malformed: X-Wx-Appid",
		},
		{
			platform, "/x",
			http.Header{"X-Wx-Local-Debug": {"1"}},
			``,
			"local debugging: X-Wx-Local-Debug",
		},
		{platform, login, nil, `{"code":"x"}`, "there is no login endpoint"},
	} {
		r, rec := caddytest.Request("POST", tt.path, "")
		for name, values := range tt.header {
			r.Header[name] = values
		}
		r.Body = caddytest.Body(tt.body)
		if err := tt.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
			t.Fatal(err)
		}
		if got := rec.Body.String(); rec.Code < 400 || rec.Code >= 500 ||
			!strings.Contains(got, tt.want) || strings.Contains(got, "wxs_") {
			t.Errorf("%s %v %s: %d %s, want %q",
				tt.path, tt.header, tt.body, rec.Code, got, tt.want)
		}
	}
}

// TestProblem_AnyRefusal_IDInLog holds that an operator finds the log line of a refusal
// by the id that a client reports.
func TestProblem_AnyRefusal_IDInLog(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	alice := w.Token(caddytest.AppID, "alice")
	for _, tt := range []struct{ method, path, token, body, line string }{
		{"GET", "/x", "", "", "refused"},
		{"GET", "/x", caddytest.MadeUp, "", "refused"},
		{"GET", "/wx/session", "", "", "refused"},
		{"GET", "/wx/none", "", "", "refused"},
		{"POST", "/wx/login", "", "{", "login refused"},
		{"GET", "/wx/login", "", "", "call refused"},
		{"POST", "/wx/logout", alice, "{", "call refused"},
		{"POST", "/wx/decrypt", alice, "{}", "decrypt refused"},
		{"POST", "/wx/phone", alice, "{}", "phone refused"},
	} {
		w.Logs.TakeAll()
		r, rec := caddytest.Request(tt.method, tt.path, tt.token)
		r.Body = caddytest.Body(tt.body)
		if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
			t.Fatal(err)
		}
		id := caddytest.ProblemID(t, rec.Body.Bytes())
		lines := w.Logs.FilterMessage(tt.line).FilterField(zap.String("problem_id", id))
		if lines.Len() != 1 {
			t.Errorf("%s %s: id %s, logged %s", tt.method, tt.path, id, caddytest.Lines(w.Logs))
		}
	}
}
