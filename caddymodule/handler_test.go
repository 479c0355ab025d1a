package caddymodule

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// madeUp has the shape of a token and was made under no key.
const madeUp = "wxs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func decisions() map[result]float64 {
	m := make(map[result]float64)
	for r, c := range metrics.decisionBy {
		m[r] = count(c)
	}
	return m
}

// TestDecisions holds what each kind of request comes to: the answer, whether the app sees it, the one metric that counts it, the one log line of a refusal, and the placeholders.
func TestDecisions(t *testing.T) {
	w := newWorld(t, &Gate{Public: []string{"/healthz"}, Optional: []string{"/feed/*"}, Apps: []string{appID}}).start()
	uncounted := maps.Clone(metrics.decisionBy)
	delete(uncounted, resultNotCloud) // these two are of the mode cloudrun, see TestCloudrun_Decisions
	delete(uncounted, resultLocalDebug)
	revoked := w.token(appID, "revoked")
	if err := w.app.live.Load().sessions.RevokeApp(t.Context(), appID); err != nil {
		t.Fatal(err)
	}
	gone := w.token(appID, "gone")
	if err := w.app.live.Load().sessions.Logout(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	broken := newWorld(t, &Gate{})
	brokenToken := func() string {
		broken.start()
		token := broken.token(appID, "o")
		broken.stop()
		broken.replace(token, store.UserID{AppID: appID, OpenID: "o\r\nX-Evil: 1"})
		// A new life on the same file.
		broken.app.lease, broken.app.settle = lease{release: broken.app.lease.release}, func() {}
		broken.start()
		return token
	}()

	for _, c := range []struct {
		result result
		target string
		token  string
		edit   func(*http.Request)
		world  *world // other than w
		down   bool
		status int // 0: the app answers
		code   string
	}{
		{result: resultPublic, target: "/healthz"},
		{result: resultPublic, target: "/healthz", token: madeUp},
		{result: resultGuest, target: "/feed/new"},
		{result: resultAccepted, target: "/", token: w.token(appID, "alice")},
		{result: resultAccepted, target: "/feed/new", token: w.token(appID, "alice")},
		{result: resultMissing, target: "/", status: 401, code: "session_missing"},
		{result: resultMalformed, target: "/", token: "wxs_short", status: 401, code: "session_invalid"},
		{result: resultMalformed, target: "/feed/new", token: "wxs_short", status: 401, code: "session_invalid"},
		{result: resultForged, target: "/", token: madeUp, status: 401, code: "session_invalid"},
		{result: resultForged, target: "/wx/session", token: madeUp, status: 401, code: "session_invalid"},
		{result: resultUnknown, target: "/", token: gone, status: 401, code: "session_invalid"},
		{result: resultExpired, target: "/", token: w.tokenFor(appID, "late", -time.Minute), status: 401, code: "session_invalid"},
		{result: resultRevoked, target: "/", token: revoked, status: 401, code: "session_invalid"},
		{result: resultOtherApp, target: "/", token: w.token(otherAppID, "bob"), status: 403, code: "app_not_allowed"},
		{result: resultAmbiguous, target: "/", token: madeUp, edit: func(r *http.Request) { r.Header.Set("X-3rd-Session", "wxs_other") }, status: 400, code: "ambiguous_credentials"},
		{result: resultBadTrailer, target: "/healthz", edit: func(r *http.Request) { r.Trailer = http.Header{"X-Wx-Openid": nil} }, status: 400, code: "invalid_request"},
		{result: resultNotFound, target: "/wx/nothing", status: 404, code: "not_found"},
		{result: resultStoreDown, target: "/", token: w.token(appID, "carol"), down: true, status: 503, code: "store_unavailable"},
		{result: resultStoreDown, target: "/feed/new", token: w.token(appID, "carol"), down: true, status: 503, code: "store_unavailable"},
		{result: resultGuest, target: "/feed/new", down: true},
		{result: resultPublic, target: "/healthz", token: w.token(appID, "carol"), down: true},
		{result: resultBroken, target: "/", token: brokenToken, world: broken, status: 401, code: "session_invalid"},
	} {
		t.Run(string(c.result)+c.target, func(t *testing.T) {
			w := w
			if c.world != nil {
				w = c.world
			}
			storeDown.Store(c.down)
			defer storeDown.Store(false)
			w.logs.TakeAll()
			before := decisions()
			r, rec := request("GET", c.target, c.token)
			r.Header.Set("X-Wx-Openid", "forged")
			if c.edit != nil {
				c.edit(r)
			}
			var n next
			if err := w.gate.ServeHTTP(rec, r, &n); err != nil {
				t.Fatal(err)
			}

			after := decisions()
			before[c.result]++
			if !maps.Equal(before, after) {
				t.Errorf("counted %v, want one more %s: %v", after, c.result, before)
			}
			repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
			id, set := repl.GetString("http.auth.user.id")
			if c.status == 0 {
				if !n.called || n.r != r || n.w != http.ResponseWriter(rec) {
					t.Error("the app did not get the request and the writer that the gate got")
				}
				if w.logs.Len() != 0 {
					t.Errorf("logged %s", linesOf(w.logs))
				}
				if r.Header.Get("Authorization") != "" {
					t.Error("the app sees the token")
				}
				want := ""
				if c.result == resultAccepted {
					want = "alice"
				}
				if got := r.Header.Get("X-WX-OPENID"); got != want || id != want || set != (want != "") {
					t.Errorf("the app sees openid %q, placeholder %q (set: %v), want %q", got, id, set, want)
				}
				return
			}
			if n.called {
				t.Error("the app was asked")
			}
			if set {
				t.Errorf("placeholder set to %q", id)
			}
			if r.Header.Get("X-WX-OPENID") != "" {
				t.Error("the forged header is still there, where error routes would find it")
			}
			if rec.Code != c.status {
				t.Errorf("status %d, want %d", rec.Code, c.status)
			}
			if got := code(t, rec); got != c.code {
				t.Errorf("code %q, want %q", got, c.code)
			}
			refused := w.logs.FilterMessage("refused").All()
			if len(refused) != 1 || refused[0].ContextMap()["reason"] != string(c.result) || refused[0].ContextMap()["client_ip"] != "192.0.2.1" {
				t.Errorf("logged %s", linesOf(w.logs))
			}
			if c.token != "" && strings.Contains(linesOf(w.logs), c.token[:9]) {
				t.Error("the token is in the log")
			}
		})
		delete(uncounted, c.result)
	}
	if len(uncounted) > 0 {
		t.Errorf("no request came to %v", slices.Collect(maps.Keys(uncounted)))
	}
}

func TestPlaceholders(t *testing.T) {
	w := newWorld(t, &Gate{}).start()
	r, rec := request("GET", "/", w.token(appID, "alice"))
	if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil {
		t.Fatal(err)
	}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	got := repl.ReplaceAll("{http.auth.user.id} {http.auth.user.unionid} {http.auth.user.appid}", "-")
	if want := "alice - " + appID; got != want {
		t.Errorf("placeholders %q, want %q", got, want)
	}
}

// TestNextError holds that what comes after the gate is none of its business.
func TestNextError(t *testing.T) {
	w := newWorld(t, &Gate{Public: []string{"/healthz"}})
	want := errors.New("from the app")
	r, rec := request("GET", "/healthz", "")
	got := w.gate.ServeHTTP(rec, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return want }))
	if got != want || rec.Body.Len() != 0 {
		t.Errorf("got %v and body %q", got, rec.Body)
	}
}

// TestThreat18_AppBindingOnCacheHits: that a session is in the cache must not open a site that does not accept its mini program.
func TestThreat18_AppBindingOnCacheHits(t *testing.T) {
	w := newWorld(t, &Gate{}).start()
	other := w.newGate(&Gate{Apps: []string{otherAppID}})
	token := w.token(appID, "alice")
	w.warm(token)

	hits := count(metrics.cacheHits)
	r, rec := request("GET", "/", token)
	var n next
	if err := other.ServeHTTP(rec, r, &n); err != nil {
		t.Fatal(err)
	}
	if rec.Code != 403 || n.called {
		t.Errorf("status %d, app asked: %v", rec.Code, n.called)
	}
	if count(metrics.cacheHits) != hits+1 {
		t.Error("the cache was not asked: this test shows nothing")
	}
	for _, target := range []string{"/wx/session", "/wx/logout"} {
		method, body := "GET", ""
		if target == "/wx/logout" {
			method, body = "POST", `{"all":true}`
		}
		r, rec := request(method, target, token)
		r.Body = readCloser(body)
		if err := other.ServeHTTP(rec, r, &n); err != nil {
			t.Fatal(err)
		}
		if rec.Code != 403 {
			t.Errorf("%s: status %d, want 403", target, rec.Code)
		}
	}
}

// warm checks a token until the cache answers.
func (w *world) warm(token string) {
	w.t.Helper()
	for hits := count(metrics.cacheHits); count(metrics.cacheHits) == hits; {
		r, rec := request("GET", "/", token)
		if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil || rec.Code != 200 {
			w.t.Fatal(err, rec.Code)
		}
	}
}

// TestP4_StoreOutage: never a 401, the cached go on, and a login does not spend its code.
func TestP4_StoreOutage(t *testing.T) {
	w := newWorld(t, &Gate{}).start()
	cached, other := w.token(appID, "alice"), w.token(appID, "bob")
	w.warm(cached)
	storeDown.Store(true)
	defer storeDown.Store(false)
	for _, c := range []struct {
		method, target, token, body string
		status                      int
	}{
		{"GET", "/", cached, "", 200},
		{"GET", "/", other, "", 503},
		{"GET", "/wx/session", cached, "", 200},
		{"GET", "/wx/session", other, "", 503},
		{"POST", "/wx/logout", other, `{"all":true}`, 503},
		{"POST", "/wx/login", "", `{"code":"c","appid":"` + appID + `"}`, 503},
	} {
		r, rec := request(c.method, c.target, c.token)
		r.Body = readCloser(c.body)
		if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil {
			t.Fatal(err)
		}
		if rec.Code != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.target, rec.Code, c.status)
		}
		if rec.Code == 503 && (rec.Header().Get("Retry-After") == "" || code(t, rec) != "store_unavailable") {
			t.Errorf("%s %s: 503 without Retry-After or code", c.method, c.target)
		}
	}
}

// TestRequestsBeforeStart: Caddy may listen before the store is open.
func TestRequestsBeforeStart(t *testing.T) {
	first := newWorld(t, &Gate{}).start()
	token := first.token(appID, "alice")
	first.stop()
	path := first.app.opener.(*switchStore).path

	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &Gate{Public: []string{"/healthz"}})
		w.app.opener.(*switchStore).path = path
		for _, c := range []struct {
			target string
			token  string
		}{{"/healthz", ""}, {"/", ""}} { // neither needs the store
			r, rec := request("GET", c.target, c.token)
			if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil || rec.Code == 503 {
				t.Error(err, rec.Code)
			}
		}
		begun := time.Now()
		done := make(chan int)
		for range 3 {
			go func() {
				r, rec := request("GET", "/", token)
				if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil {
					t.Error(err)
				}
				done <- rec.Code
			}()
		}
		time.Sleep(startTimeout - time.Second)
		synctest.Wait()
		if err := w.app.Start(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got := <-done; got != 200 {
				t.Errorf("status %d after Start", got)
			}
		}
		if waited := time.Since(begun); waited != startTimeout-time.Second {
			t.Errorf("answered after %s", waited)
		}
		w.app.lease.close()
	})
}

// TestNeverStarted: a request does not wait for ever, and is not told that its session is bad.
func TestNeverStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &Gate{})
		for _, c := range []struct{ method, target string }{{"GET", "/"}, {"GET", "/wx/session"}, {"POST", "/wx/logout"}, {"POST", "/wx/login"}, {"POST", "/wx/decrypt"}, {"POST", "/wx/phone"}} {
			begun := time.Now()
			r, rec := request(c.method, c.target, madeUp)
			r.Body = readCloser(`{"code":"c"}`)
			var n next
			if err := w.gate.ServeHTTP(rec, r, &n); err != nil {
				t.Fatal(err)
			}
			if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || n.called || time.Since(begun) != startTimeout {
				t.Errorf("%s: status %d after %s", c.target, rec.Code, time.Since(begun))
			}
		}
	})
}

// TestAfterRelease: a request that comes when all is given back is refused, not served on what is closed.
func TestAfterRelease(t *testing.T) {
	w := newWorld(t, &Gate{}).start()
	token := w.token(appID, "alice")
	w.stop()
	r, rec := request("GET", "/", token)
	var n next
	if err := w.gate.ServeHTTP(rec, r, &n); err != nil {
		t.Fatal(err)
	}
	if rec.Code != 503 || n.called {
		t.Errorf("status %d, app asked: %v", rec.Code, n.called)
	}
}

// TestLoginProblem holds the table of DESIGN.md 3 from WeChat's answer to the client's.
func TestLoginProblem(t *testing.T) {
	for class, want := range map[weixin.Class]problem{
		weixin.ClassCodeInvalid:   probCodeInvalid,
		weixin.ClassCodeUsed:      probCodeUsed,
		weixin.ClassUserBlocked:   probBlocked,
		weixin.ClassRateLimited:   probLimited,
		weixin.ClassMisconfigured: probMisconfig,
		weixin.ClassRejected:      probMisconfig,
		weixin.ClassKeyStale:      probMisconfig, // no answer to a login
		weixin.ClassOrderInvalid:  probMisconfig,
		weixin.ClassUnavailable:   probWeChatDown,
		weixin.ClassProtocol:      probWeChatDown,
		weixin.ClassCanceled:      probWeChatDown,
	} {
		if got := loginProblem(&weixin.Error{Class: class}); got != want {
			t.Errorf("%s: %s, want %s", class, got.code, want.code)
		}
	}
	for err, want := range map[error]problem{
		session.ErrUnknownApp:  probOtherApp,
		session.ErrUnavailable: probStoreDown,
		errNotStarted:          probStoreDown,
	} {
		if got := loginProblem(err); got != want {
			t.Errorf("%s: %s, want %s", err, got.code, want.code)
		}
	}
}

// TestThreat24_LoginRequests: what is no login call never reaches WeChat; nothing listens where the test's WeChat would be.
func TestThreat24_LoginRequests(t *testing.T) {
	w := newWorld(t, &Gate{}).start()
	single := w.newGate(&Gate{Apps: []string{appID}})
	for _, c := range []struct {
		name, method, body string
		edit               func(*http.Request)
		gate               *Gate
		status             int
		code               string
	}{
		{name: "GET", method: "GET", status: 405, code: "invalid_request"},
		{name: "PUT", method: "PUT", status: 405, code: "invalid_request"},
		{name: "empty", status: 400, code: "invalid_request"},
		{name: "no code", body: `{}`, status: 400, code: "invalid_request"},
		{name: "empty code", body: `{"code":""}`, status: 400, code: "invalid_request"},
		{name: "number", body: `{"code":1}`, status: 400, code: "invalid_request"},
		{name: "null", body: `{"code":null}`, status: 400, code: "invalid_request"},
		{name: "blank", body: `{"code":"a b"}`, status: 400, code: "invalid_request"},
		{name: "NUL", body: `{"code":"a\u0000b"}`, status: 400, code: "invalid_request"},
		{name: "not ASCII", body: `{"code":"é"}`, status: 400, code: "invalid_request"},
		{name: "257 characters", body: `{"code":"` + strings.Repeat("a", 257) + `"}`, status: 400, code: "invalid_request"},
		{name: "mock code", body: `{"code":"the code is a mock one"}`, status: 400, code: "invalid_request"},
		{name: "name twice", body: `{"code":"a","code":"b"}`, status: 400, code: "invalid_request"},
		{name: "nested", body: `{"code":{"code":"a"}}`, status: 400, code: "invalid_request"},
		{name: "trailing junk", body: `{"code":"a"}{}`, status: 400, code: "invalid_request"},
		{name: "appid a number", body: `{"code":"a","appid":1}`, status: 400, code: "invalid_request"},
		{name: "which mini program", body: `{"code":"a"}`, gate: w.gate, status: 400, code: "invalid_request"},
		{name: "foreign mini program", body: `{"code":"a","appid":"wxaaaaaaaaaaaaaaaa"}`, status: 403, code: "app_not_allowed"},
		{name: "not of this site", body: `{"code":"a","appid":"` + otherAppID + `"}`, status: 403, code: "app_not_allowed"},
		{name: "foreign Referer", body: `{"code":"a"}`, gate: w.gate, edit: func(r *http.Request) {
			r.Header.Set("Referer", "https://servicewechat.com/wxaaaaaaaaaaaaaaaa/1/page-frame.html")
		}, status: 400, code: "invalid_request"},
		{name: "gzip", body: `{"code":"a"}`, edit: func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, status: 415, code: "invalid_request"},
		{name: "form", body: `code=a`, edit: func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, status: 415, code: "invalid_request"},
		{name: "1 MB", body: `{"code":"` + strings.Repeat("a", 1<<20) + `"}`, status: 413, code: "invalid_request"},
		// These would go through to WeChat, which is not there: so the table is not refusing everything.
		{name: "good", body: `{"code":"a","appid":"` + appID + `"}`, status: 503, code: "wechat_unavailable"},
		{name: "good for the only one", body: `{"code":"` + strings.Repeat("a", 256) + `"}`, status: 503, code: "wechat_unavailable"},
		{name: "good by Referer", body: `{"code":"b"}`, gate: w.gate, edit: func(r *http.Request) {
			r.Header.Set("Referer", "https://servicewechat.com/"+appID+"/1/page-frame.html")
		}, status: 503, code: "wechat_unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.logs.TakeAll()
			g := single
			if c.gate != nil {
				g = c.gate
			}
			calls := count(metrics.wechatCalls)
			method := "POST"
			if c.method != "" {
				method = c.method
			}
			r, rec := request(method, "/wx/login", "")
			r.Body = readCloser(c.body)
			if c.edit != nil {
				c.edit(r)
			}
			var n next
			if err := g.ServeHTTP(rec, r, &n); err != nil {
				t.Fatal(err)
			}
			if got := code(t, rec); rec.Code != c.status || got != c.code || n.called {
				t.Errorf("%d %s, want %d %s; app asked: %v", rec.Code, got, c.status, c.code, n.called)
			}
			if called := count(metrics.wechatCalls) != calls; called != (c.status == 503) {
				t.Errorf("WeChat called: %v", called)
			}
			if rec.Code == 405 && rec.Header().Get("Allow") != "POST" {
				t.Error("405 without Allow")
			}
			if c.status != 405 && w.logs.FilterMessage("login refused").Len() != 1 {
				t.Errorf("logged %s", linesOf(w.logs))
			}
		})
	}
}

// TestGateProvision holds what only shows when the parts of a JSON configuration meet.
func TestGateProvision(t *testing.T) {
	setSecrets(t)
	wechat := `"wechat":{"apps":[{"appid":"` + appID + `","secret":"{env.WX_SECRET}"},{"appid":"{env.WX_APPID}","secret":"{env.WX_SECRET}"}]}`
	for _, c := range []struct{ name, apps, gate, want string }{
		{"good", wechat, `"apps":["` + appID + `"]`, ""},
		{"good by placeholder", wechat, `"apps":["{env.WX_APPID}"]`, ""},
		{"no app", ``, ``, "add"},
		{"unconfigured mini program", wechat, `"apps":["` + otherAppID + `"]`, "add the line app " + otherAppID + " {env.WX_SECRET}"},
		{"placeholder of nothing", wechat, `"apps":["{env.WX_NOTHING}"]`, "which the global option wechat does not configure"},
		{"placeholder unknown", wechat, `"apps":["{nothing}"]`, "{nothing}"},
		{"bad path", wechat, `"public":["x"]`, "write /x"},
		{"bad header", wechat, `"headers":{"openid":"Host"}`, "meaning of its own"},
		{"bad token header", wechat, `"token_header":"X-WX-T"`, "use X-3rd-Session"},
		{"unknown field", wechat, `"publik":["/x"]`, `unknown field "publik"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			handler := `{"handler":"wechat_auth"`
			if c.gate != "" {
				handler += "," + c.gate
			}
			apps := `"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"routes":[{"handle":[` + handler + `}]}]}}}`
			if c.apps != "" {
				apps += "," + c.apps
			}
			cfg := load(t, `{"apps":{`+apps+`}}`)
			cfg.Logging = quiet()
			err := caddy.Validate(cfg)
			switch {
			case c.name == "no app":
				c.want = errNoApp.Error()
				fallthrough
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			case err != nil:
				t.Error(err)
			}
		})
	}
}

// TestSessionEndpoint holds the wire form of its answer; who the client is, is not in it.
func TestSessionEndpoint(t *testing.T) {
	w := newWorld(t, &Gate{}).start()
	r, rec := request("GET", "/wx/session", w.token(appID, "alice"))
	if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if want := map[string]any{"expires_in": 3600.0, "unionid_bound": false}; !maps.Equal(got, want) {
		t.Errorf("answer %v, want %v", got, want)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "X-Wxgate": "1"} {
		if got := rec.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
