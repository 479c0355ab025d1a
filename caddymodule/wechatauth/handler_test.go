package wechatauth

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

func decisions() map[Result]float64 {
	m := make(map[Result]float64)
	for r, c := range metrics.decisionBy {
		m[r] = caddytest.Count(c)
	}
	return m
}

// early makes a request one of 0-RTT (threat 38).
func early(method string) func(*http.Request) {
	return func(r *http.Request) { r.Method, r.TLS = method, new(tls.ConnectionState) }
}

// TestDecisions holds what each kind of request comes to: the answer, whether
// the app sees it, the one metric that counts it, the one log line of a
// refusal, and the placeholders.
func TestDecisions(t *testing.T) {
	w := newWorld(
		t,
		&Handler{
			Public:   []string{"/healthz"},
			Optional: []string{"/feed/*"},
			Apps:     []string{caddytest.AppID},
		},
	).start()
	uncounted := maps.Clone(metrics.decisionBy)
	delete(uncounted, NotPlatform) // these two are of the mode cloudrun, see TestCloudrun_Decisions
	delete(uncounted, LocalDebug)
	delete(uncounted, Preflight) // see TestCors_Preflight_NeedsNoToken
	revoked := w.Token(caddytest.AppID, "revoked")
	if err := w.Live().Sessions.RevokeApp(t.Context(), caddytest.AppID); err != nil {
		t.Fatal(err)
	}
	gone := w.Token(caddytest.AppID, "gone")
	if err := w.Live().Sessions.Logout(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	broken := newWorld(t, &Handler{}).start()
	broken.Stop()
	brokenToken := broken.Insert(store.UserID{
		AppID: caddytest.AppID, OpenID: "o\r\nX-Evil: 1",
	})
	broken = newWorld(t, &Handler{}, apptest.OnFile(broken.Path)).start()

	for _, c := range []struct {
		result Result
		target string
		token  string
		edit   func(*http.Request)
		world  *world // other than w
		down   bool
		status int // 0: the app answers
		code   string
	}{
		{result: Public, target: "/healthz"},
		{result: Public, target: "/healthz", token: caddytest.MadeUp},
		{result: Guest, target: "/feed/new"},
		{result: Accepted, target: "/", token: w.Token(caddytest.AppID, "alice")},
		{result: Accepted, target: "/feed/new", token: w.Token(caddytest.AppID, "alice")},
		{result: Missing, target: "/", status: 401, code: "session_missing"},
		{result: Malformed, target: "/", token: "wxs_short", status: 401, code: "session_invalid"},
		{
			result: Malformed, target: "/feed/new", token: "wxs_short", status: 401,
			code: "session_invalid",
		},
		{
			result: Forged, target: "/", token: caddytest.MadeUp, status: 401,
			code: "session_invalid",
		},
		{
			result: Forged, target: "/wx/session", token: caddytest.MadeUp, status: 401,
			code: "session_invalid",
		},
		{result: Unknown, target: "/", token: gone, status: 401, code: "session_invalid"},
		{
			result: Expired, target: "/", token: w.TokenFor(caddytest.AppID, "late", -time.Minute),
			status: 401, code: "session_invalid",
		},
		{result: Revoked, target: "/", token: revoked, status: 401, code: "session_invalid"},
		{
			result: OtherApp, target: "/", token: w.Token(caddytest.OtherAppID, "bob"), status: 403,
			code: "app_not_allowed",
		},
		{
			result: Ambiguous, target: "/", token: caddytest.MadeUp,
			edit: func(r *http.Request) { r.Header.Set("X-3rd-Session", "wxs_other") }, status: 400,
			code: "ambiguous_credentials",
		},
		{
			result: BadTrailer, target: "/healthz",
			edit:   func(r *http.Request) { r.Trailer = http.Header{"X-Wx-Openid": nil} },
			status: 400, code: "invalid_request",
		},
		{result: Early, target: "/wx/session", edit: early("GET"), status: 425, code: "too_early"},
		{result: Early, target: "/wx/login", edit: early("POST"), status: 425, code: "too_early"},
		{
			result: Early, target: "/", token: w.Token(caddytest.AppID, "alice"),
			edit: early("POST"), status: 425, code: "too_early",
		},
		{
			result: Early, target: "/feed/new", token: caddytest.MadeUp, edit: early("QUERY"),
			status: 425, code: "too_early",
		},
		{
			result: Accepted, target: "/", token: w.Token(caddytest.AppID, "alice"),
			edit: early("GET"),
		},
		{result: Guest, target: "/feed/new", edit: early("POST")},
		{result: Missing, target: "/", edit: early("POST"), status: 401, code: "session_missing"},
		{
			result: Public, target: "/healthz", token: w.Token(caddytest.AppID, "alice"),
			edit: early("POST"),
		},
		{result: NotFound, target: "/wx/nothing", status: 404, code: "not_found"},
		{
			result: StoreDown, target: "/", token: w.Token(caddytest.AppID, "carol"), down: true,
			status: 503, code: "store_unavailable",
		},
		{
			result: StoreDown, target: "/feed/new", token: w.Token(caddytest.AppID, "carol"),
			down: true, status: 503, code: "store_unavailable",
		},
		{result: Guest, target: "/feed/new", down: true},
		{result: Public, target: "/healthz", token: w.Token(caddytest.AppID, "carol"), down: true},
		{
			result: BadIdentity, target: "/", token: brokenToken, world: broken, status: 401,
			code: "session_invalid",
		},
	} {
		t.Run(string(c.result)+c.target, func(t *testing.T) {
			w := w
			if c.world != nil {
				w = c.world
			}
			caddytest.Down.Store(c.down)
			defer caddytest.Down.Store(false)
			w.Logs.TakeAll()
			w.gate.refusals = wechatapp.NewRefusalLog(w.Log) // in full again
			before := decisions()
			r, rec := caddytest.Request("GET", c.target, c.token)
			r.Header.Set("X-Wx-Openid", "forged")
			if c.edit != nil {
				c.edit(r)
			}
			var n caddytest.Next
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
				if !n.Called || n.R != r || n.W != http.ResponseWriter(rec) {
					t.Error("the app did not get the request and the writer that the gate got")
				}
				if w.Logs.Len() != 0 {
					t.Errorf("logged %s", caddytest.Lines(w.Logs))
				}
				if r.Header.Get("Authorization") != "" {
					t.Error("the app sees the token")
				}
				want := ""
				if c.result == Accepted {
					want = "alice"
				}
				if got := r.Header.Get("X-WX-OPENID"); got != want || id != want || !set {
					t.Errorf("the app sees openid %q, placeholder %q (set: %v), want %q",
						got, id, set, want)
				}
				return
			}
			if n.Called {
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
			if got := caddytest.Code(t, rec); got != c.code {
				t.Errorf("code %q, want %q", got, c.code)
			}
			refused := w.Logs.FilterMessage("refused").All()
			if len(refused) != 1 || refused[0].ContextMap()["reason"] != string(c.result) ||
				refused[0].ContextMap()["client_ip"] != "192.0.2.1" {
				t.Errorf("logged %s", caddytest.Lines(w.Logs))
			}
			if c.token != "" && strings.Contains(caddytest.Lines(w.Logs), c.token[:9]) {
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
	w := newWorld(t, &Handler{}).start()
	r, rec := caddytest.Request("GET", "/", w.Token(caddytest.AppID, "alice"))
	if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
		t.Fatal(err)
	}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	got := repl.ReplaceAll(
		"{http.auth.user.id} {http.auth.user.unionid} {http.auth.user.appid}", "-",
	)
	if want := "alice - " + caddytest.AppID; got != want {
		t.Errorf("placeholders %q, want %q", got, want)
	}
}

// TestNextError holds that what comes after the gate is none of its business.
func TestNextError(t *testing.T) {
	w := newWorld(t, &Handler{Public: []string{"/healthz"}})
	want := errors.New("from the app")
	r, rec := caddytest.Request("GET", "/healthz", "")
	got := w.gate.ServeHTTP(
		rec, r,
		caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return want }),
	)
	if got != want || rec.Body.Len() != 0 {
		t.Errorf("got %v and body %q", got, rec.Body)
	}
}

// TestThreat18_AppBindingOnCacheHits: that a session is in the cache must not
// open a site that does not accept its mini program.
func TestThreat18_AppBindingOnCacheHits(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	other := w.newGate(&Handler{Apps: []string{caddytest.OtherAppID}})
	token := w.Token(caddytest.AppID, "alice")
	w.warm(token)

	hits := w.Metric("caddy_wechat_cache_hits_total")
	r, rec := caddytest.Request("GET", "/", token)
	var n caddytest.Next
	if err := other.ServeHTTP(rec, r, &n); err != nil {
		t.Fatal(err)
	}
	if rec.Code != 403 || n.Called {
		t.Errorf("status %d, app asked: %v", rec.Code, n.Called)
	}
	if w.Metric("caddy_wechat_cache_hits_total") != hits+1 {
		t.Error("the cache was not asked: this test shows nothing")
	}
	for _, target := range []string{"/wx/session", "/wx/logout"} {
		method, body := "GET", ""
		if target == "/wx/logout" {
			method, body = "POST", `{"all":true}`
		}
		r, rec := caddytest.Request(method, target, token)
		r.Body = caddytest.Body(body)
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
	w.T.Helper()
	const metric = "caddy_wechat_cache_hits_total"
	for hits := w.Metric(metric); w.Metric(metric) == hits; {
		r, rec := caddytest.Request("GET", "/", token)
		if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil || rec.Code != 200 {
			w.T.Fatal(err, rec.Code)
		}
	}
}

// TestP4_StoreOutage: never a 401, the cached go on, and a login does not spend
// its code.
func TestP4_StoreOutage(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	cached, other := w.Token(caddytest.AppID, "alice"), w.Token(caddytest.AppID, "bob")
	w.warm(cached)
	caddytest.Down.Store(true)
	defer caddytest.Down.Store(false)
	for _, c := range []struct {
		method, target, token, body string
		status                      int
	}{
		{"GET", "/", cached, "", 200},
		{"GET", "/", other, "", 503},
		{"GET", "/wx/session", cached, "", 200},
		{"GET", "/wx/session", other, "", 503},
		{"POST", "/wx/logout", other, `{"all":true}`, 503},
		{"POST", "/wx/login", "", `{"code":"c","appid":"` + caddytest.AppID + `"}`, 503},
	} {
		r, rec := caddytest.Request(c.method, c.target, c.token)
		r.Body = caddytest.Body(c.body)
		if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
			t.Fatal(err)
		}
		if rec.Code != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.target, rec.Code, c.status)
		}
		if rec.Code == 503 &&
			(rec.Header().Get(
				"Retry-After",
			) == "" || caddytest.Code(t, rec) != "store_unavailable") {
			t.Errorf("%s %s: 503 without Retry-After or code", c.method, c.target)
		}
	}
}

// TestRequestsBeforeStart: Caddy may listen before the store is open.
func TestRequestsBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// In the bubble, too: its clock is another one.
		first := newWorld(t, &Handler{}).start()
		token := first.Token(caddytest.AppID, "alice")
		first.Stop()
		w := newWorld(t, &Handler{Public: []string{"/healthz"}}, apptest.OnFile(first.Path))
		for _, c := range []struct {
			target string
			token  string
		}{{"/healthz", ""}, {"/", ""}} { // neither needs the store
			r, rec := caddytest.Request("GET", c.target, c.token)
			if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil || rec.Code == 503 {
				t.Error(err, rec.Code)
			}
		}
		begun := time.Now()
		done := make(chan int)
		for range 3 {
			go func() {
				r, rec := caddytest.Request("GET", "/", token)
				if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
					t.Error(err)
				}
				done <- rec.Code
			}()
		}
		time.Sleep(wechatapp.StartTimeout - time.Second)
		synctest.Wait()
		if err := w.App.Start(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got := <-done; got != 200 {
				t.Errorf("status %d after Start", got)
			}
		}
		if waited := time.Since(begun); waited != wechatapp.StartTimeout-time.Second {
			t.Errorf("answered after %s", waited)
		}
		w.Stop()
	})
}

// TestNeverStarted: a request does not wait for ever, and is not told that its
// session is bad.
func TestNeverStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &Handler{})
		for _, c := range []struct{ method, target string }{
			{"GET", "/"},
			{"GET", "/wx/session"},
			{"POST", "/wx/logout"},
			{"POST", "/wx/login"},
			{"POST", "/wx/decrypt"},
			{"POST", "/wx/phone"},
		} {
			begun := time.Now()
			r, rec := caddytest.Request(c.method, c.target, caddytest.MadeUp)
			r.Body = caddytest.Body(`{"code":"c"}`)
			var n caddytest.Next
			if err := w.gate.ServeHTTP(rec, r, &n); err != nil {
				t.Fatal(err)
			}
			if rec.Code != 503 || rec.Header().Get("Retry-After") == "" || n.Called ||
				time.Since(begun) != wechatapp.StartTimeout {
				t.Errorf("%s: status %d after %s", c.target, rec.Code, time.Since(begun))
			}
		}
	})
}

// TestAfterRelease: a request that comes when all is given back is refused, not
// served on what is closed.
func TestAfterRelease(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	token := w.Token(caddytest.AppID, "alice")
	w.Stop()
	r, rec := caddytest.Request("GET", "/", token)
	var n caddytest.Next
	if err := w.gate.ServeHTTP(rec, r, &n); err != nil {
		t.Fatal(err)
	}
	if rec.Code != 503 || n.Called {
		t.Errorf("status %d, app asked: %v", rec.Code, n.Called)
	}
}

// TestThreat24_LoginRequests holds that a malformed login never reaches WeChat; nothing
// listens where the test's WeChat would be. TestReadObjectBody has the malformed bodies.
func TestThreat24_LoginRequests(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	single, both := w.newGate(&Handler{Apps: []string{caddytest.AppID}}), w.gate
	codes := map[int]string{403: "app_not_allowed", 503: "wechat_unavailable"}
	const referer = "Referer: https://servicewechat.com/"
	for _, c := range []struct {
		name   string
		gate   *Handler
		status int
		body   string
		header string
	}{
		{"empty", single, 400, ``, ""},
		{"empty code", single, 400, `{"code":""}`, ""},
		{"number", single, 400, `{"code":1}`, ""},
		{"blank", single, 400, `{"code":"a b"}`, ""},
		{"NUL", single, 400, `{"code":"a\u0000b"}`, ""},
		{"not ASCII", single, 400, `{"code":"é"}`, ""},
		{"257 characters", single, 400, `{"code":"` + strings.Repeat("a", 257) + `"}`, ""},
		{"mock code", single, 400, `{"code":"the code is a mock one"}`, ""},
		{"name twice", single, 400, `{"code":"a","code":"b"}`, ""},
		{"appid a number", single, 400, `{"code":"a","appid":1}`, ""},
		{"which mini program", both, 400, `{"code":"a"}`, ""},
		{"foreign mini program", single, 403, `{"code":"a","appid":"wxaaaaaaaaaaaaaaaa"}`, ""},
		{"of another site", single, 403, `{"code":"a","appid":"` + caddytest.OtherAppID + `"}`, ""},
		{"foreign Referer", both, 400, `{"code":"a"}`, referer + "wxaaaaaaaaaaaaaaaa/1/x.html"},
		{"Referer elsewhere", both, 400, `{"code":"a"}`, "Referer: http://x/" + caddytest.AppID},
		{"gzip", single, 415, `{"code":"a"}`, "Content-Encoding: gzip"},
		{"text", single, 415, `{"code":"a"}`, "Content-Type: text/plain"},
		{"1 MB", single, 413, `{"code":"` + strings.Repeat("a", 1<<20) + `"}`, ""},
		// These go on to WeChat, which is not there.
		{"good", single, 503, `{"code":"a","appid":"` + caddytest.AppID + `"}`, ""},
		{"longest code", single, 503, `{"code":"` + strings.Repeat("a", 256) + `"}`, ""},
		{"form", single, 503, `code=f`, "Content-Type: application/x-www-form-urlencoded"},
		{"more", single, 503, `{"code":"m","userInfo":{"nickName":"x"}}`, ""},
		{"Referer", both, 503, `{"code":"b"}`, referer + caddytest.AppID + "/1/page-frame.html"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.Logs.TakeAll()
			c.gate.refusals = wechatapp.NewRefusalLog(c.gate.log)
			calls := w.Metric("caddy_wechat_weixin_calls_total")
			r, rec := caddytest.Request("POST", "/wx/login", "")
			r.Body = caddytest.Body(c.body)
			if name, value, ok := strings.Cut(c.header, ": "); ok {
				r.Header.Set(name, value)
			}
			var n caddytest.Next
			if err := c.gate.ServeHTTP(rec, r, &n); err != nil {
				t.Fatal(err)
			}
			want := cmp.Or(codes[c.status], "invalid_request")
			if got := caddytest.Code(t, rec); rec.Code != c.status || got != want || n.Called {
				t.Errorf(
					"%d %s, want %d %s; app asked: %v",
					rec.Code,
					got,
					c.status,
					want,
					n.Called,
				)
			}
			called := w.Metric("caddy_wechat_weixin_calls_total") != calls
			if called != (c.status == 503) {
				t.Errorf("WeChat called: %v", called)
			}
			if w.Logs.FilterMessage("login refused").Len() != 1 {
				t.Errorf("logged %s", caddytest.Lines(w.Logs))
			}
		})
	}
	for _, method := range []string{"GET", "PUT", "post"} {
		r, rec := caddytest.Request(method, "/wx/login", "")
		if err := single.ServeHTTP(rec, r, new(caddytest.Next)); err != nil || rec.Code != 405 ||
			rec.Header().Get("Allow") != "POST" {
			t.Errorf("%s: %d %v, %v", method, rec.Code, rec.Header(), err)
		}
	}
}

// TestGateProvision holds what only shows when the parts of a JSON configuration meet.
func TestGateProvision(t *testing.T) {
	caddytest.SetSecrets(t)
	wechat := `"wechat":{"apps":[{"appid":"` + caddytest.AppID + `","secret":"{env.WX_SECRET}"},` +
		`{"appid":"{env.WX_APPID}","secret":"{env.WX_SECRET}"}]}`
	for _, c := range []struct{ name, apps, gate, want string }{
		{"good", wechat, `"apps":["` + caddytest.AppID + `"]`, ""},
		{"good by placeholder", wechat, `"apps":["{env.WX_APPID}"]`, ""},
		{"no app", ``, ``, "add"},
		{
			"unconfigured mini program", wechat, `"apps":["` + caddytest.OtherAppID + `"]`,
			"add the line app " + caddytest.OtherAppID + " {env.WX_SECRET}",
		},
		{
			"placeholder of nothing", wechat, `"apps":["{env.WX_NOTHING}"]`,
			"which the global option wechat does not configure",
		},
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
			apps := `"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"routes":[` +
				`{"handle":[` + handler + `}]}]}}}`
			if c.apps != "" {
				apps += "," + c.apps
			}
			cfg := caddytest.Load(t, `{"apps":{`+apps+`}}`)
			cfg.Logging = caddytest.Quiet()
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

// TestSessionEndpoint holds the wire form of its answer; who the client is, is
// not in it.
func TestSessionEndpoint(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	r, rec := caddytest.Request("GET", "/wx/session", w.Token(caddytest.AppID, "alice"))
	if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if want := map[string]any{"expires_in": 3600.0, "unionid_bound": false}; !maps.Equal(
		got, want,
	) {
		t.Errorf("answer %v, want %v", got, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Wxgate": "1",
	} {
		if got := rec.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestThreat22_OneAnswerForAllReasons: malformed, forged, unknown, expired and
// revoked tokens cannot be told apart by the answer; TestDecisions holds that
// they all get this one.
func TestThreat22_OneAnswerForAllReasons(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	gone := w.Token(caddytest.AppID, "gone")
	if err := w.Live().Sessions.Logout(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	var first string
	for _, token := range []string{
		"wxs_short", caddytest.MadeUp, gone, w.TokenFor(caddytest.AppID, "late", -time.Minute),
	} {
		r, rec := caddytest.Request("GET", "/", token)
		if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
			t.Fatal(err)
		}
		got := caddytest.Answer(t, rec)
		if first == "" {
			first = got
		}
		if got != first {
			t.Errorf("%s\ndiffers from\n%s", got, first)
		}
	}
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, io.EOF
}

// TestThreat26_SharedRateAnswer: whom the other gates have let in too often is
// told when to come back, before the body is read; and whom this one refuses is
// not counted by the others.
func TestThreat26_SharedRateAnswer(t *testing.T) {
	t.Setenv("WX_SECRET", caddytest.Canary)
	app, ctx := caddytest.ProvisionApp(
		t,
		caddytest.AppJSON(
			fmt.Sprintf(
				`"api":{"base_url":"http://127.0.0.1:1"},"store":{"type":"fleet","path":%q},"login_rate":{"per_client":"2/h"}`,
				filepath.Join(t.TempDir(), "s.db"),
			),
		),
	)
	a := app.(*wechatapp.App)
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	g := new(Handler)
	if err := g.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	g.log, g.refusals = zap.NewNop(), wechatapp.NewRefusalLog(zap.New(core))
	refused := caddytest.Count(metrics.loginLimits)
	spent := caddytest.Spend(1500 * time.Millisecond)
	// The waits are spread; the third time the gate's own limit refuses.
	for _, want := range [][]string{{"2", "3"}, {"2", "3"}, {"1800"}} {
		r, rec := caddytest.Request("POST", "/wx/login", "")
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, "203.0.113.7")
		r.Body = io.NopCloser(unread{t})
		if err := g.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
			t.Fatal(err)
		}
		if got := rec.Header().Get("Retry-After"); rec.Code != http.StatusTooManyRequests ||
			!slices.Contains(want, got) || caddytest.Code(t, rec) != "rate_limited" {
			t.Errorf("%d, Retry-After %q, want %q", rec.Code, got, want)
		}
	}
	if keys, _ := spent(); keys != "203.0.113.7/32 203.0.113.7/32" {
		t.Errorf("spent %q", keys)
	}
	if n := caddytest.Count(metrics.loginLimits) - refused; n != 3 {
		t.Errorf("the metric tells of %v", n)
	}
	if lines := caddytest.Lines(logs); !strings.Contains(lines, errLimit(limit.OfClient).Error()) {
		t.Errorf("the log does not name the limit: %s", lines)
	}
}

// TestHandler_JSONRoundTrip_Same: a configuration that was read is written again,
// value by value.
func TestHandler_JSONRoundTrip_Same(t *testing.T) {
	const gate = `{"endpoints":"/auth","public":["/a"],"optional":["/b/*"],` +
		`"apps":["wx0123456789abcdef"],"token_header":"X-T",` +
		`"headers":{"appid":"X-A","openid":"X-O","phone":"X-P","source":"X-S","unionid":"X-U"}}`
	for _, text := range []string{`{}`, gate} {
		var g Handler
		if err := json.Unmarshal([]byte(text), &g); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(&g)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != text {
			t.Errorf("got  %s\nwant %s", got, text)
		}
	}
}
