package wechatapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

func TestMain(m *testing.M) { caddytest.Main(m) }

// world is an app whose WeChat is away, for a wechat_api.
type world struct{ *apptest.World }

func newWorld(t testing.TB) *world { return &world{apptest.Started(t)} }

// newAPI provisions a wechat_api.
func (w *world) newAPI(h *Handler) *Handler {
	w.T.Helper()
	ctx, cancel := caddy.NewContext(w.Ctx) // its end ends what reverse_proxy started
	if err := h.Provision(ctx); err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() {
		if err := h.Cleanup(); err != nil {
			w.T.Error(err)
		}
		cancel()
	})
	h.log, h.refusals = w.Log, wechatapp.NewRefusalLog(w.Log)
	return h
}

// call has a wechat_api answer one request of a program on this machine.
func (a *Handler) call(
	t testing.TB, method, target, body string, edit func(*http.Request),
) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL.RawPath, r.URL.Path = "", target
	r.RemoteAddr, r.Host = "127.0.0.1:1234", "127.0.0.1:8081"
	if edit != nil {
		edit(r)
	}
	rec := httptest.NewRecorder()
	if err := a.ServeHTTP(rec, caddytest.Prepare(r, rec), nil); err != nil {
		t.Fatal(err)
	}
	return rec
}

// TestAPIPaths: the most telling pattern counts a call, and no list opens what is kept.
func TestAPIPaths(t *testing.T) {
	l := newPathList(
		[]string{"/wxa/*", "default", "/wxa/business/*", "/wxa/business/getuserphonenumber"},
	)
	for path, want := range map[string]string{
		"/wxa/x": "/wxa/*", "/wxa/business/x": "/wxa/business/*",
		"/wxa/business/getuserphonenumber": "/wxa/business/getuserphonenumber",
		"/cgi-bin/message/subscribe/send":  "/cgi-bin/message/*", "/wxa/": "/wxa/*", "/wxa": "",
		"/cgi-bin/menu/create": "", "/": "", "": "",
	} {
		if got, ok := l.match(path); got != want || ok != (want != "") {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	if !slices.IsSorted(newPathList(nil)) ||
		len(newPathList([]string{"default", "default"})) != len(defaultPaths) {
		t.Error("the default list is not itself")
	}
	for _, p := range defaultPaths {
		if err := checkAllow(p); err != nil {
			t.Errorf("the default list: %v", err)
		}
	}
	for _, p := range refusedPaths {
		if _, plain := gate.Canonical(p.prefix); !plain || refusedPath(p.prefix) == "" ||
			refusedPath(strings.ToUpper(p.prefix)+"/x") == "" {
			t.Errorf("%s is not refused", p.prefix)
		}
		for _, pattern := range []string{p.prefix, p.prefix + "/*", strings.ToUpper(p.prefix)} {
			if err := checkAllow(pattern); err == nil {
				t.Errorf("%s may be allowed", pattern)
			}
		}
	}
}

// FuzzAPIPath: no path reaches WeChat that a forgiving server would take for
// one that is kept, whatever is allowed.
func FuzzAPIPath(f *testing.F) {
	for _, p := range refusedPaths {
		f.Add(p.prefix)
		f.Add(p.prefix + "/")
		f.Add(strings.ToUpper(p.prefix))
		f.Add("/x/.." + p.prefix)
		f.Add("/" + p.prefix + "%2f")
		f.Add(p.prefix + "%20.")
	}
	w := newWorld(f)
	a := w.newAPI(&Handler{Allow: []string{"/*"}})
	f.Fuzz(func(t *testing.T, escaped string) {
		r := httptest.NewRequest("GET", "/", nil)
		u, err := r.URL.Parse(escaped)
		if err != nil || !strings.HasPrefix(u.Path, "/") {
			return
		}
		r.URL, r.RemoteAddr, r.Host = u, "127.0.0.1:1", "localhost"
		rec := httptest.NewRecorder()
		if err := a.ServeHTTP(rec, caddytest.Prepare(r, rec), nil); err != nil {
			t.Fatal(err)
		}
		if rec.Code == http.StatusForbidden || strings.HasPrefix(u.Path, userPrefix) {
			return
		}
		// It went on its way: to the choice of a mini program, of which there are two.
		got := strings.ToLower(u.Path)
		for _, p := range refusedPaths {
			if rest, ok := strings.CutPrefix(got, p.prefix); ok &&
				strings.TrimLeft(rest, " .") == "" || strings.HasPrefix(got, p.prefix+"/") {
				t.Errorf("%q passes", escaped)
			}
		}
		if u.EscapedPath() != u.Path && strings.ContainsAny(u.Path, `\;%#?`) ||
			strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/../") ||
			strings.HasSuffix(u.Path, "/..") {
			t.Errorf("%q passes", escaped)
		}
	})
}

// TestAPIBound: a body has a length and can be sent again, also a long one; one that is
// too long is refused. No file is left behind.
func TestAPIBound(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	a := &Handler{MaxBody: 100 << 10}
	for _, tt := range []struct {
		size     int
		declared bool
		again    bool
		status   int // of the refusal, 0: none before the body is read
	}{
		{0, true, true, 0},
		{2, true, true, 0},
		{2, false, true, 0},
		{maxReplayed, false, true, 0},
		{maxReplayed + 1, false, true, 0},
		{maxReplayed + 1, true, true, 0},
		{100 << 10, true, true, 0},
		{100<<10 + 1, true, false, 413},
		{100<<10 + 1, false, false, 413},
	} {
		body := strings.Repeat("x", tt.size)
		r := httptest.NewRequest("POST", "/", io.NopCloser(strings.NewReader(body)))
		if tt.declared {
			r.ContentLength = int64(tt.size)
		}
		release, err := a.bound(httptest.NewRecorder(), r)
		if p, _ := errors.AsType[reply.Problem](err); p.Status != tt.status {
			t.Errorf("%+v: %v", tt, err)
		}
		if err != nil {
			continue
		}
		if (r.GetBody != nil) != tt.again || tt.again && r.ContentLength != int64(tt.size) {
			t.Errorf("%+v: again %t, length %d", tt, r.GetBody != nil, r.ContentLength)
		}
		got, err := io.ReadAll(r.Body)
		if tooLong := errors.As(err, new(*http.MaxBytesError)); tooLong != (tt.size > 100<<10) ||
			!tooLong && string(got) != body {
			t.Errorf("%+v: %d bytes, %v", tt, len(got), err)
		}
		if tt.again {
			second, err := r.GetBody()
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(second); string(got) != body {
				t.Errorf("%+v: again %d bytes", tt, len(got))
			}
		}
		release()
	}
	if left := caddytest.Files(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	broken := httptest.NewRequest("POST", "/", iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := a.bound(httptest.NewRecorder(), broken); problemFor(err).Status == 0 ||
		!errors.Is(err, reply.BodyBroken) {
		t.Errorf("a body that breaks off: %v", err)
	}
}

// TestAPIConfig: what is refused when it is loaded, and that a failed load
// leaves something to clean up.
func TestAPIConfig(t *testing.T) {
	w := newWorld(t)
	for name, a := range map[string]*Handler{
		"unknown mini program": {App: "wxffffffffffffffff"},
		"kept path":            {Allow: []string{"/sns/*"}},
		"odd path":             {Allow: []string{"/a/../b"}},
		"unknown placeholder":  {App: "{nothing.x}"},
	} {
		if err := a.Provision(w.Ctx); err == nil {
			t.Errorf("%s is accepted", name)
		}
		if err := a.Cleanup(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, a := range []*Handler{{Timeout: -1}, {MaxBody: -1}} {
		if a.Validate() == nil {
			t.Errorf("%+v is valid", a)
		}
	}
	empty, err := caddy.ProvisionContext(&caddy.Config{Logging: caddytest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Handler).Provision(empty); err == nil ||
		!strings.Contains(err.Error(), "wechat_api needs") {
		t.Errorf("without the app wechat: %v", err)
	}
	t.Setenv("WX_APPID", caddytest.OtherAppID)
	if a := w.newAPI(&Handler{App: "{env.WX_APPID}"}); a.appID != caddytest.OtherAppID {
		t.Errorf("the mini program is %q", a.appID)
	}
}

// TestAPIMetrics: what is counted goes by names from the configuration, and lints.
func TestAPIMetrics(t *testing.T) {
	w := newWorld(t)
	a := w.newAPI(&Handler{App: caddytest.AppID, Allow: []string{"/wxa/*"}})
	reg := prometheus.NewPedanticRegistry()
	if err := metrics.register(reg); err != nil {
		t.Fatal(err)
	}
	before := caddytest.Gathered(t, reg)
	for i := range 3 {
		a.call(t, "POST", fmt.Sprintf("/wxa/%d", i), "", nil) // WeChat is not there
		a.call(t, "POST", fmt.Sprintf("/no/%d", i), "", nil)
		a.call(t, "POST", fmt.Sprintf("/wx/user/%d", i), "", nil)
		a.call(t, "POST", "/wx/user/checksession", "{}", nil)
	}
	after := caddytest.Gathered(t, reg)
	for name, want := range map[string]float64{
		`caddy_wechat_api_calls_total{path="/wxa/*",result="wechat_unavailable"}`:             3,
		`caddy_wechat_api_calls_total{path="other",result="call_not_allowed"}`:                3,
		`caddy_wechat_api_calls_total{path="other",result="not_found"}`:                       3,
		`caddy_wechat_api_calls_total{path="/wx/user/checksession",result="invalid_request"}`: 3,
		`caddy_wechat_api_call_duration_seconds{path="/wxa/*"}`:                               3,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s grew by %v, want %v", name, got, want)
		}
	}
	caddytest.LintMetrics(t, metrics.register, 2)
}

// FuzzUserCall: every user call reads whatever comes, answers as the gate
// answers, and is not the way to a panic or to another status than its problems
// have.
func FuzzUserCall(f *testing.F) {
	names := []string{
		"decrypt",
		"checksession",
		"resetusersessionkey",
		"getpaidunionid",
		"getuserencryptkey",
		"getpluginopenpid",
		"revoke",
		"forget",
	}
	for i := range names {
		for _, body := range []string{
			`{"openid":"alice"}`,
			`{"openid":"alice","appid":"` + caddytest.AppID + `","encryptedData":"AAAA",` +
				`"iv":"AAAA","rawData":"{}","signature":"x"}`,
			`{"openid":"alice","transaction_id":"1"}`,
			`{"openid":"alice","mch_id":"1","out_trade_no":"2"}`, `{"code":"c"}`, `{"openid":1}`,
			`{"openid":"a","openid":"b"}`, `[]`, `{`, ``, `{"openid":{}}`,
		} {
			f.Add(i, body, "application/json")
		}
	}
	f.Add(0, "openid=alice", "application/x-www-form-urlencoded")
	if len(names) != len(userCalls) {
		f.Fatal("a user call is left out")
	}
	w := newWorld(f)
	w.Token(caddytest.AppID, "alice") // makes the user known
	a := w.newAPI(&Handler{App: caddytest.AppID})
	statuses := []int{200, 204, 400, 403, 404, 409, 413, 415, 422, 429, 502, 503}
	f.Fuzz(func(t *testing.T, call int, body, contentType string) {
		name := names[uint(call)%uint(len(names))]
		rec := a.call(
			t, "POST", userPrefix+name, body,
			func(r *http.Request) { r.Header.Set("Content-Type", contentType) },
		)
		if !slices.Contains(statuses, rec.Code) || rec.Header().Get("X-Wxgate") != "1" ||
			rec.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%s %q: %d %v", name, body, rec.Code, rec.Header())
		}
		if rec.Code >= 400 && caddytest.Code(t, rec) == "" {
			t.Errorf("%s %q: no code", name, body)
		}
	})
}
