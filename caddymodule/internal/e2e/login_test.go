package e2e_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// mixed is a site with every kind of route.
var mixed = setup{auth: "\t\tpublic /public/* /healthz\n\t\toptional /optional/*"}

// TestLogin logs in and uses the sessions, through one gate.
func TestLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mixed)
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"the whole way", wholeWay},
		{"the app answers", appAnswers},
		{"real clients", realClients},
		{"a presented session ends soon", presentedSession},
		{"other credentials", otherCredentials},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.wechat.Reset()
			tt.run(t, w)
		})
	}
}

// wholeWay is the life of one session (docs/design.md#wire).
func wholeWay(t *testing.T, w *world) {
	w.call(t, "GET", "/hello", "").problem(t, 401, "session_missing")

	r := w.tryLogin(t, "ada")
	s := r.session(t)
	if !s.UnionIDBound || s.ExpiresIn < 48*3600-60 || s.ExpiresIn > 48*3600 {
		t.Errorf("the session is %+v", s)
	}
	if strings.Contains(r.body, w.wechat.OpenID(appA, "ada")) ||
		strings.Contains(r.body, w.wechat.UnionID("ada")) {
		t.Errorf("the login answer tells who it is: %s", r)
	}
	for _, header := range []string{
		bearer(s.Token), "X-3rd-Session: " + s.Token, "authorization:bearer   " + s.Token,
		"Authorization: " + s.Token,
	} {
		r = w.call(t, "GET", "/hello?q=1", "", header)
		if r.status != 200 || r.fromGate() || !r.fromApp() {
			t.Fatalf("%s is answered with %s", header, r)
		}
		got := r.received(t)
		got.check(t, w.who(appA, "ada"))
		if got.Target() != "/hello?q=1" {
			t.Errorf("the app is asked for %q", got.Target())
		}
	}
	w.asked(t, 1)

	r = w.call(t, "GET", "/wx/session", "", bearer(s.Token))
	r.made(t, 200)
	var fields map[string]any
	if err := json.Unmarshal([]byte(r.body), &fields); err != nil ||
		!slices.Equal(slices.Sorted(maps.Keys(fields)), []string{"expires_in", "unionid_bound"}) {
		t.Errorf("/wx/session says %s", r.body)
	}

	for _, again := range []string{"", ", again"} {
		r = w.post(t, "/wx/logout", "", bearer(s.Token))
		if r.made(t, 204); r.body != "" {
			t.Errorf("the logout%s has a body: %s", again, r)
		}
	}
	w.checkDead(t, s.Token)
	w.call(t, "GET", "/wx/session", "", bearer(s.Token)).problem(t, 401, "session_invalid")
	w.call(t, "GET", "/optional/x", "", bearer(s.Token)).problem(t, 401, "session_invalid")
	if r := w.call(t, "GET", "/public/x", "", bearer(s.Token)); !r.fromApp() {
		t.Errorf("a dead token on a public route is answered with %s", r)
	}
	w.call(t, "GET", "/wx/session", "").problem(t, 401, "session_missing")
	w.post(t, "/wx/logout", "").problem(t, 401, "session_missing")
}

// appAnswers passes the app's answers on unchanged, its own 401 included.
func appAnswers(t *testing.T, w *world) {
	token := w.login(t, "ada")
	r := w.call(t, "GET", "/hello?status=401", "", bearer(token))
	if r.status != 401 || r.fromGate() || !r.fromApp() || r.header.Get("WWW-Authenticate") != "" {
		t.Errorf("the app's 401 arrives as %s", r)
	}
	got := w.call(t, "POST", "/orders", "\x00\xff body", bearer(token))
	if r := w.app.take(); got.status != 200 || r[len(r)-1].Body != "\x00\xff body" {
		t.Errorf("the body arrives as %q", r[len(r)-1].Body)
	}
}

// realClients accepts what real clients of wx.request send.
func realClients(t *testing.T, w *world) {
	post := func(t *testing.T, body string, headers ...string) reply {
		return w.call(t, "POST", "/wx/login", body, headers...)
	}
	code := func() string { return w.wechat.Code(appA, "ada") }
	post(t, codeBody(code()), "Content-Type: application/json ; ;;charset").session(t)
	post(t, codeBody(code())).session(t)
	post(
		t, "\ufeff"+codeBody(code()), "Content-Type: application/json, application/json",
	).session(t)
	post(t, "code="+code(), "Content-Type: application/x-www-form-urlencoded").session(t)
	post(t, `{"userInfo":{"nickName":"x","tags":[{}]},`+codeBody(code())[1:]).session(t)
	post(t, `{"scene":1001,"Code":"x","nick":null,"appid":"",`+codeBody(code())[1:]).session(t)
	w.post(t, "/wx/login?from=share", codeBody(code())).session(t)

	stale := w.login(t, "ada")
	w.post(t, "/wx/logout", "", bearer(stale))
	for _, headers := range [][]string{
		{"X-3rd-Session: "},
		{"Authorization: Bearer undefined"},
		{"X-3rd-Session: null"},
		{bearer(stale)},
		{"X-3rd-Session: " + stale},
		{"X-3rd-Session: " + stale, bearer("wxs_another")},
		{bearer("wxs_" + strings.Repeat("A", 5000))},
	} {
		w.tryLogin(t, "ada", headers...).session(t)
	}
}

// presentedSession: the session sent along with a login, and no other, goes on
// for its calls under way and no longer.
func presentedSession(t *testing.T, w *world) {
	ada := w.who(appA, "ada")
	phone, tablet := w.login(t, "ada"), w.login(t, "ada")
	w.checkAlive(t, phone, ada)
	again := w.login(t, "ada", bearer(phone))
	w.checkAlive(t, phone, ada)
	w.checkLeaving(t, phone, true)
	w.checkAlive(t, tablet, ada)
	w.checkAlive(t, again, ada)
	// Somebody else on the same phone.
	bob := w.login(t, "bob", "X-3rd-Session: "+again)
	w.checkAlive(t, again, ada)
	w.checkLeaving(t, again, true)
	w.checkAlive(t, tablet, ada)
	w.checkAlive(t, bob, w.who(appA, "bob"))
	w.checkLeaving(t, tablet, false)
	w.checkLeaving(t, bob, false)
}

// checkLeaving checks whether a session ends within a minute.
func (w *world) checkLeaving(tb testing.TB, token string, want bool) {
	tb.Helper()
	if s := w.expiresIn(tb, token); (s <= 60) != want {
		tb.Errorf("the session ends in %d s; soon: want %v", s, want)
	}
}

// expiresIn returns what /wx/session says, in seconds.
func (w *world) expiresIn(tb testing.TB, token string) int64 {
	tb.Helper()
	r := w.call(tb, "GET", "/wx/session", "", bearer(token))
	r.made(tb, 200)
	var s session
	if err := json.Unmarshal([]byte(r.body), &s); err != nil {
		tb.Fatal(err)
	}
	return s.ExpiresIn
}

// otherCredentials leaves credentials that do not begin with wxs_ to the app.
func otherCredentials(t *testing.T, w *world) {
	token := w.login(t, "ada")
	for _, foreign := range []string{
		"Bearer eyJhbGciOiJub25lIn0.e30.", "Basic YTpi", "Bearer", "bearer  x", "Digest a=\"wxs_\"",
	} {
		t.Run(foreign, func(t *testing.T) {
			line := "Authorization: " + foreign
			w.call(t, "GET", "/x", "", line).problem(t, 401, "session_missing")
			for _, c := range []struct {
				path  string
				token []string
				want  *identity
			}{
				{"/x", []string{"X-3rd-Session: " + token}, w.who(appA, "ada")},
				{"/optional/x", []string{"X-3rd-Session: " + token}, w.who(appA, "ada")},
				{"/optional/x", nil, nil},
				{"/public/x", nil, nil},
				{"/public/x", []string{"X-3rd-Session: " + token}, nil},
			} {
				r := w.call(t, "GET", c.path, "", append(c.token, line)...)
				if !r.fromApp() {
					t.Fatalf("%s: %s", c.path, r)
				}
				got := r.received(t)
				if v := got.Values("authorization"); len(v) != 1 || v[0] != foreign {
					t.Errorf("%s: the app sees Authorization %q, want %q", c.path, v, foreign)
				}
				if strings.Contains(r.body, token) {
					t.Errorf("%s: the app sees the token: %s", c.path, r.body)
				}
				if owned := got.owned(); !slices.Equal(owned, c.want.lines()) {
					t.Errorf("%s: the app is told %q, want %q", c.path, owned, c.want.lines())
				}
			}
		})
	}
}

// TestLogin_SeveralMiniPrograms serves several mini programs, by appid or
// Referer, and a site for one of them.
func TestLogin_SeveralMiniPrograms(t *testing.T) {
	t.Parallel()
	staff := freeAddr(t)
	w := prepareWorld(t, setup{apps: []string{appA, appB}})
	w.sites = siteAt(staff, "\twechat_auth {\n\t\tapps "+appB+"\n\t}\n\treverse_proxy "+w.app.addr)
	w.start(t)
	referer := func(appid string) string {
		return "Referer: https://servicewechat.com/" + appid + "/devtools/page-frame.html"
	}

	a := w.post(t, "/wx/login", appBody(w.wechat.Code(appA, "ada"), appA)).session(t).Token
	b := w.post(t, "/wx/login", appBody(w.wechat.Code(appB, "ada"), appB)).session(t).Token
	w.checkAlive(t, a, w.who(appA, "ada"))
	w.checkAlive(t, b, w.who(appB, "ada"))
	w.checkAlive(t,
		w.post(t, "/wx/login", codeBody(w.wechat.Code(appB, "ada")),
			referer(appB)).session(t).Token,
		w.who(appB, "ada"))
	w.checkAlive(t,
		w.post(t, "/wx/login", appBody(w.wechat.Code(appB, "ada"), appB),
			referer(appA)).session(t).Token,
		w.who(appB, "ada"))

	w.wechat.Reset()
	w.post(t, "/wx/login", codeBody(w.wechat.Code(appA, "ada"))).problem(t, 400, "invalid_request")
	for _, hint := range []string{
		"Referer: https://servicewechat.com/wx1111111111111111/1/",
		"Referer: https://evil.example/" + appA + "/", "Referer: https://servicewechat.com/" + appA,
		"Referer: " + appA,
	} {
		w.post(t, "/wx/login", codeBody(w.wechat.Code(appA, "ada")),
			hint).problem(t, 400, "invalid_request")
	}
	w.post(t, "/wx/login", appBody(w.wechat.Code(appA, "ada"), "wx1111111111111111")).
		problem(t, 403, "app_not_allowed")
	w.post(t, "/wx/login", `{"code":"abc","appid":7}`).problem(t, 400, "invalid_request")
	if n := w.wechat.Count(exchangePath); n != 0 {
		t.Errorf("WeChat was called %d times for calls that say no good mini program", n)
	}
	w.post(t, "/wx/login", appBody(w.wechat.Code(appA, "ada"), appB)).
		problem(t, 401, "code_invalid")

	other := *w
	other.addr = staff
	for range 2 { // the second time from the cache
		other.call(t, "GET", "/x", "", bearer(a)).problem(t, 403, "app_not_allowed")
		other.checkAlive(t, b, w.who(appB, "ada"))
	}
	other.call(t, "GET", "/wx/session", "", bearer(a)).problem(t, 403, "app_not_allowed")
	other.post(t, "/wx/logout", `{"all":true}`, bearer(a)).problem(t, 403, "app_not_allowed")
	other.post(t, "/wx/login",
		appBody(w.wechat.Code(appA, "ada"), appA)).problem(t, 403, "app_not_allowed")
	w.checkAlive(t, a, w.who(appA, "ada"))
	// The site serves one mini program, so the appid may be left out.
	other.checkAlive(t,
		other.post(t, "/wx/login", codeBody(w.wechat.Code(appB, "bob")),
			referer(appA)).session(t).Token,
		w.who(appB, "bob"))
}

// TestThreat25_OneCodeOneSession makes one exchange and one session of a code
// that is sent in parallel, and again after a lost answer.
func TestThreat25_OneCodeOneSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultSlow, Delay: 200 * time.Millisecond})
	body := codeBody(w.wechat.Code(appA, "ada"))
	replies := together(t, 16, func(int) (addr, text string) {
		return w.addr, request(w.addr, "POST", "/wx/login", body)
	})()
	token := replies[0].session(t).Token
	for _, r := range append(replies, w.post(t, "/wx/login", body)) {
		if got := r.session(t).Token; got != token {
			t.Errorf("one code has two tokens: %s, %s", got, token)
		}
	}
	w.asked(t, 1)
	w.checkAlive(t, token, w.who(appA, "ada"))

	s := w.setup
	s.wechat = "\t\tsession {\n\t\t\treplay 0\n\t\t}"
	w.mustReload(t, s)
	body = codeBody(w.wechat.Code(appA, "ada"))
	w.post(t, "/wx/login", body).session(t)
	w.post(t, "/wx/login", body).problem(t, 401, "code_used")
}
