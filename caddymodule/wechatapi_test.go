package caddymodule

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
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// newAPI provisions a wechat_api in a world.
func (w *world) newAPI(a *WeChatAPI) *WeChatAPI {
	w.t.Helper()
	ctx, cancel := caddy.NewContext(w.ctx) // whose end ends what reverse_proxy started
	if err := a.Provision(ctx); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := a.Cleanup(); err != nil {
			w.t.Error(err)
		}
		cancel()
	})
	a.log = w.app.log
	return a
}

// call has a wechat_api answer one request of a program on this machine.
func (a *WeChatAPI) call(t testing.TB, method, target, body string, edit func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.URL.RawPath, r.URL.Path = "", target
	r.RemoteAddr, r.Host = "127.0.0.1:1234", "127.0.0.1:8081"
	if edit != nil {
		edit(r)
	}
	rec := httptest.NewRecorder()
	if err := a.ServeHTTP(rec, prepare(r, rec), nil); err != nil {
		t.Fatal(err)
	}
	return rec
}

// TestAPIPaths: the most telling pattern counts a call, and no list opens what is kept.
func TestAPIPaths(t *testing.T) {
	l := newPathList([]string{"/wxa/*", "default", "/wxa/business/*", "/wxa/business/getuserphonenumber"})
	for path, want := range map[string]string{
		"/wxa/x": "/wxa/*", "/wxa/business/x": "/wxa/business/*", "/wxa/business/getuserphonenumber": "/wxa/business/getuserphonenumber",
		"/cgi-bin/message/subscribe/send": "/cgi-bin/message/*", "/wxa/": "/wxa/*", "/wxa": "", "/cgi-bin/menu/create": "", "/": "", "": "",
	} {
		if got, ok := l.match(path); got != want || ok != (want != "") {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	if !slices.IsSorted(newPathList(nil)) || len(newPathList([]string{"default", "default"})) != len(defaultPaths) {
		t.Error("the default list is not itself")
	}
	for _, p := range defaultPaths {
		if err := checkAllow(p); err != nil {
			t.Errorf("the default list: %v", err)
		}
	}
	for _, p := range refusedPaths {
		if _, plain := gate.Canonical(p.prefix); !plain || refusedPath(p.prefix) == "" || refusedPath(strings.ToUpper(p.prefix)+"/x") == "" {
			t.Errorf("%s is not refused", p.prefix)
		}
		for _, pattern := range []string{p.prefix, p.prefix + "/*", strings.ToUpper(p.prefix)} {
			if err := checkAllow(pattern); err == nil {
				t.Errorf("%s may be allowed", pattern)
			}
		}
	}
}

// FuzzAPIPath: no path reaches WeChat that a forgiving server would take for one that is kept, whatever is allowed.
func FuzzAPIPath(f *testing.F) {
	for _, p := range refusedPaths {
		f.Add(p.prefix)
		f.Add(p.prefix + "/")
		f.Add(strings.ToUpper(p.prefix))
		f.Add("/x/.." + p.prefix)
		f.Add("/" + p.prefix + "%2f")
		f.Add(p.prefix + "%20.")
	}
	w := newWorld(f, new(Gate)).start()
	a := w.newAPI(&WeChatAPI{Allow: []string{"/*"}})
	f.Fuzz(func(t *testing.T, escaped string) {
		r := httptest.NewRequest("GET", "/", nil)
		u, err := r.URL.Parse(escaped)
		if err != nil || !strings.HasPrefix(u.Path, "/") {
			return
		}
		r.URL, r.RemoteAddr, r.Host = u, "127.0.0.1:1", "localhost"
		rec := httptest.NewRecorder()
		if err := a.ServeHTTP(rec, prepare(r, rec), nil); err != nil {
			t.Fatal(err)
		}
		if rec.Code == http.StatusForbidden || strings.HasPrefix(u.Path, userPrefix) {
			return
		}
		// It went on its way: to the choice of a mini program, of which there are two.
		got := strings.ToLower(u.Path)
		for _, p := range refusedPaths {
			if rest, ok := strings.CutPrefix(got, p.prefix); ok && strings.TrimLeft(rest, " .") == "" || strings.HasPrefix(got, p.prefix+"/") {
				t.Errorf("%q passes", escaped)
			}
		}
		if u.EscapedPath() != u.Path && strings.ContainsAny(u.Path, `\;%#?`) || strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/../") || strings.HasSuffix(u.Path, "/..") {
			t.Errorf("%q passes", escaped)
		}
	})
}

// TestAPIBound: a short body can be sent again and has a length; a long one streams; one that is too long ends.
func TestAPIBound(t *testing.T) {
	a := &WeChatAPI{MaxBody: 100 << 10}
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
		{maxReplayed + 1, false, false, 0},
		{maxReplayed + 1, true, false, 0},
		{100 << 10, true, false, 0},
		{100<<10 + 1, true, false, 413},
		{100<<10 + 1, false, false, 0},
	} {
		body := strings.Repeat("x", tt.size)
		r := httptest.NewRequest("POST", "/", io.NopCloser(strings.NewReader(body)))
		if tt.declared {
			r.ContentLength = int64(tt.size)
		}
		err := a.bound(httptest.NewRecorder(), r)
		if p, _ := errors.AsType[problem](err); p.status != tt.status {
			t.Errorf("%+v: %v", tt, err)
		}
		if err != nil {
			continue
		}
		if (r.GetBody != nil) != tt.again || tt.again && r.ContentLength != int64(tt.size) {
			t.Errorf("%+v: again %t, length %d", tt, r.GetBody != nil, r.ContentLength)
		}
		got, err := io.ReadAll(r.Body)
		if tooLong := errors.As(err, new(*http.MaxBytesError)); tooLong != (tt.size > 100<<10) || !tooLong && string(got) != body {
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
	}
	broken := httptest.NewRequest("POST", "/", iotest.ErrReader(io.ErrUnexpectedEOF))
	if err := a.bound(httptest.NewRecorder(), broken); apiProblem(err).status == 0 || !errors.Is(err, errBodyBroken) {
		t.Errorf("a body that breaks off: %v", err)
	}
}

// TestAPIConfig: what is refused when it is loaded, and that a failed load leaves something to clean up.
func TestAPIConfig(t *testing.T) {
	w := newWorld(t, new(Gate))
	for name, a := range map[string]*WeChatAPI{
		"unknown mini program": {App: "wxffffffffffffffff"},
		"kept path":            {Allow: []string{"/sns/*"}},
		"odd path":             {Allow: []string{"/a/../b"}},
		"unknown placeholder":  {App: "{nothing.x}"},
	} {
		if err := a.Provision(w.ctx); err == nil {
			t.Errorf("%s is accepted", name)
		}
		if err := a.Cleanup(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, a := range []*WeChatAPI{{Timeout: -1}, {MaxBody: -1}} {
		if a.Validate() == nil {
			t.Errorf("%+v is valid", a)
		}
	}
	empty, err := caddy.ProvisionContext(&caddy.Config{Logging: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := new(WeChatAPI).Provision(empty); err == nil || !strings.Contains(err.Error(), "wechat_api needs") {
		t.Errorf("without the app wechat: %v", err)
	}
	t.Setenv("WX_APPID", otherAppID)
	if a := w.newAPI(&WeChatAPI{App: "{env.WX_APPID}"}); a.appID != otherAppID {
		t.Errorf("the mini program is %q", a.appID)
	}
}

// apiSite is a Caddyfile whose wechat_api holds the given lines.
func apiSite(lines string) string { return directive("wechat_api {\n" + lines + "\n}") }

// wrongAPIs are for TestThreat7_WrongCaddyfile.
var wrongAPIs = []wrong{
	{"unknown word", apiSite("allowed /x # here"), []string{`unknown word "allowed"`, "app, allow, allow_remote, timeout or max_body"}},
	{"matcher", directive("wechat_api /wxa/* # here"), []string{"wechat_api takes no matcher", "/wxa/*", "site of its own"}},
	{"app twice", apiSite("app " + appID + "\napp " + appID + " # here"), []string{"app is given twice"}},
	{"bad app", apiSite("app wx1 # here"), []string{cureAppID}},
	{"kept path", apiSite("allow /wxa/x /sns/jscode2session # here"), []string{"refused in any case", "session_keys"}},
	{"kept path in capitals", apiSite("allow /CGI-BIN/stable_token # here"), []string{"refused in any case"}},
	{"odd path", apiSite("allow /wxa/*/x # here"), []string{"* is allowed as the last segment only"}},
	{"nothing to allow", apiSite("allow # here"), []string{"allow takes at least one value"}},
	{"value after allow_remote", apiSite("allow_remote 10.0.0.0/8 # here"), []string{"allow_remote takes no value"}},
	{"allow_remote twice", apiSite("allow_remote\nallow_remote # here"), []string{"allow_remote is given twice"}},
	{"bad timeout", apiSite("timeout 0s # here"), []string{"timeout takes a duration above zero"}},
	{"bad size", apiSite("max_body 20MB # here"), []string{"max_body takes a size such as", `"20MB"`}},
	{"size of nothing", apiSite("max_body 0 # here"), []string{"max_body takes a size"}},
	{"huge size", apiSite("max_body 9999999999MiB # here"), []string{"max_body takes a size"}},
	{"no app", ":80 {\n\twechat_api # here\n}\n", []string{"wechat_api needs the global option wechat"}},
	{"cloudrun and token", site("cloudrun\ntoken header X-T # here"), []string{"take out token and headers, or cloudrun"}},
	{"cloudrun and headers", site("cloudrun\nheaders {\nopenid X-O # here\n}"), []string{"take out token and headers, or cloudrun"}},
	{"value after cloudrun", site("cloudrun on # here"), []string{"cloudrun takes no value"}},
}

// TestAPIMetrics: what is counted goes by names from the configuration, and lints.
func TestAPIMetrics(t *testing.T) {
	w := newWorld(t, new(Gate)).start()
	a := w.newAPI(&WeChatAPI{App: appID, Allow: []string{"/wxa/*"}})
	reg := prometheus.NewPedanticRegistry()
	if err := apiMetrics.register(reg); err != nil {
		t.Fatal(err)
	}
	before := gathered(t, reg)
	for i := range 3 {
		a.call(t, "POST", fmt.Sprintf("/wxa/%d", i), "", nil) // WeChat is not there
		a.call(t, "POST", fmt.Sprintf("/no/%d", i), "", nil)
		a.call(t, "POST", fmt.Sprintf("/wx/user/%d", i), "", nil)
		a.call(t, "POST", "/wx/user/checksession", "{}", nil)
	}
	after := gathered(t, reg)
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
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// FuzzUserCall: every user call reads whatever comes, answers as the gate answers, and is not the way to a panic or to another status than its problems have.
func FuzzUserCall(f *testing.F) {
	names := []string{"decrypt", "checksession", "resetusersessionkey", "getpaidunionid", "getuserencryptkey", "getpluginopenpid", "revoke", "forget"}
	for i := range names {
		for _, body := range []string{
			`{"openid":"alice"}`, `{"openid":"alice","appid":"` + appID + `","encryptedData":"AAAA","iv":"AAAA","rawData":"{}","signature":"x"}`,
			`{"openid":"alice","transaction_id":"1"}`, `{"openid":"alice","mch_id":"1","out_trade_no":"2"}`, `{"code":"c"}`, `{"openid":1}`, `{"openid":"a","openid":"b"}`, `[]`, `{`, ``, `{"openid":{}}`,
		} {
			f.Add(i, body, "application/json")
		}
	}
	f.Add(0, "openid=alice", "application/x-www-form-urlencoded")
	if len(names) != len(userCalls) {
		f.Fatal("a user call is left out")
	}
	w := newWorld(f, new(Gate)).start()
	w.token(appID, "alice") // makes the user known
	a := w.newAPI(&WeChatAPI{App: appID})
	statuses := []int{200, 204, 400, 403, 404, 409, 413, 415, 422, 429, 502, 503}
	f.Fuzz(func(t *testing.T, call int, body, contentType string) {
		name := names[uint(call)%uint(len(names))]
		rec := a.call(t, "POST", userPrefix+name, body, func(r *http.Request) { r.Header.Set("Content-Type", contentType) })
		if !slices.Contains(statuses, rec.Code) || rec.Header().Get("X-Wxgate") != "1" || rec.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%s %q: %d %v", name, body, rec.Code, rec.Header())
		}
		if rec.Code >= 400 && code(t, rec) == "" {
			t.Errorf("%s %q: no code", name, body)
		}
	})
}
