package playground

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
	"github.com/wxgate/wxgate/cmd/internal/webtest"
)

func TestMain(m *testing.M) {
	// Go's server waits half a second after an answer to a body that it did not read.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

const appID = "wx0123456789abcdef"

// startPage serves the page for a gate at a base URL, and returns its own.
func startPage(t *testing.T, gate string) (s *Server, base string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sim := weixintest.New(weixintest.Config{Apps: map[string]string{appID: "secret"}})
	s = new(Server)
	stop := s.Start(l, Config{
		Sites: []Site{
			{URL: gate, Prefix: "/wx", Token: "Authorization: Bearer ", Apps: []string{appID}},
		},
		Users: []string{"ada"}, WeChat: sim,
		Explain: func(method, url string, headers []string) ([]Row, error) {
			return nil, fmt.Errorf("%s %s %q", method, url, headers)
		},
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		sim.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s, "http://" + l.Addr().String()
}

// post calls the page's API as the page does.
func post(t *testing.T, base, name string, in any, out any) int {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	status, _, text := webtest.Ask(t, http.MethodPost, base+"/api/"+name, string(body),
		"Origin: "+base, "Content-Type: application/json")
	if err := json.Unmarshal([]byte(text), out); err != nil {
		t.Fatalf("%s: %d %s: %v", name, status, text, err)
	}
	return status
}

// TestThreat31_Page_OtherPages_Refused: the page logs users in and reads their tokens, so
// no other page may call it: not of another site, nor of another port of this machine, nor
// of a name that was rebound to it.
func TestThreat31_Page_OtherPages_Refused(t *testing.T) {
	_, base := startPage(t, "http://127.0.0.1:1")
	host := strings.TrimPrefix(base, "http://")
	_, port, _ := net.SplitHostPort(host)
	const (
		kind = "Content-Type: application/json"
		call = "POST /api/state"
	)
	from := func(origin string, more ...string) []string {
		return append([]string{"Origin: " + origin, kind}, more...)
	}
	for name, tt := range map[string]struct {
		request string
		headers []string
		status  int
	}{
		"the page":      {call, from(base), 200},
		"in Chromium":   {call, from(base, "Sec-Fetch-Site: same-origin"), 200},
		"by localhost":  {call, from("http://localhost:"+port, "Host: localhost:"+port), 200},
		"charset":       {call, []string{"Origin: " + base, kind + "; charset=utf-8"}, 200},
		"file":          {"GET /", nil, 200},
		"link to it":    {"GET /", []string{"Sec-Fetch-Site: cross-site"}, 200},
		"rebound file":  {"GET /", []string{"Host: evil.example:" + port}, 403},
		"rebound call":  {call, from("http://evil.example", "Host: evil.example"), 403},
		"no port":       {"GET /", []string{"Host: localhost"}, 403},
		"other site":    {call, from("https://evil.example"), 403},
		"sandbox":       {call, from("null"), 403},
		"no origin":     {call, []string{kind}, 403},
		"two origins":   {call, from(base, "Origin: https://evil.example"), 403},
		"another port":  {call, from("http://127.0.0.1:1"), 403},
		"other scheme":  {call, from("https://" + host), 403},
		"other name":    {call, from("http://localhost:" + port), 403},
		"same site":     {call, from(base, "Sec-Fetch-Site: same-site"), 403},
		"form":          {call, []string{"Origin: " + base, "Content-Type: text/plain"}, 403},
		"no type":       {call, []string{"Origin: " + base}, 403},
		"preflight":     {"OPTIONS /api/state", []string{"Origin: https://evil.example"}, 403},
		"by GET":        {"GET /api/state", from(base), 404},
		"not there":     {"POST /api/secret", from(base), 405},
		"no such file":  {"GET /page.go", nil, 404},
		"out of folder": {"GET /..%2fguard.go", nil, 404},
	} {
		method, path, _ := strings.Cut(tt.request, " ")
		status, h, body := webtest.Ask(t, method, base+path, "{}", tt.headers...)
		if status != tt.status {
			t.Errorf("%s: %d %s, want %d", name, status, body, tt.status)
		}
		if h.Get("Access-Control-Allow-Origin") != "" || h.Get("Set-Cookie") != "" {
			t.Errorf("%s: headers %v", name, h)
		}
		if status == 200 && h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control is %q", name, h.Get("Cache-Control"))
		}
		for header, want := range map[string]string{
			"Content-Security-Policy":      "default-src 'none'; script-src 'self';",
			"X-Content-Type-Options":       "nosniff",
			"X-Frame-Options":              "DENY",
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if !strings.HasPrefix(h.Get(header), want) {
				t.Errorf("%s: %s is %q", name, header, h.Get(header))
			}
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
		t.Errorf("the policy is not strict: %s", policy)
	}
}

// TestPage_Files_HaveNothingInline: the policy forbids it, and browsers would tell the
// reader of the console only.
func TestPage_Files_HaveNothingInline(t *testing.T) {
	b, err := files.ReadFile("page/index.html")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := files.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := files.ReadFile("page/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"innerHTML", "outerHTML", "AdjacentHTML", "eval(", "//cdn"} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s holds %s", e.Name(), bad)
			}
		}
	}
	for _, bad := range []string{"style=", "onclick=", "<style", "<script>", "http:", "https:"} {
		if strings.Contains(string(b), bad) {
			t.Errorf("index.html holds %s", bad)
		}
	}
}

func TestAPI_BadCalls_SayWhichMember(t *testing.T) {
	_, base := startPage(t, "http://127.0.0.1:1")
	with := func(change func(*request)) request {
		r := request{Method: "GET", Path: "/"}
		change(&r)
		return r
	}
	header := func(name, value string) func(*request) {
		return func(r *request) { r.Headers = [][2]string{{name, value}} }
	}
	long := strings.Repeat("a", maxCall)
	user := func(name string) any { return map[string]any{"appid": appID, "user": name} }
	for _, tt := range []struct {
		call string
		in   any
		want string
	}{
		{"exchange", with(func(r *request) { r.Site = 1 }), "bad_site"},
		{"exchange", with(func(r *request) { r.Site = -1 }), "bad_site"},
		{"exchange", with(func(r *request) { r.Method = "GET /x HTTP/1.1\r\nX:" }), "bad_method"},
		{"exchange", with(func(r *request) { r.Method = "" }), "bad_method"},
		{"exchange", with(func(r *request) { r.Path = "http://example.com/" }), "bad_path"},
		{"exchange", with(func(r *request) { r.Path = "/" + long[:9000] }), "bad_path"},
		{"exchange", with(header("X-A", "b\r\nX-C: d")), "bad_header"},
		{"exchange", with(header("X A", "b")), "bad_header"},
		{"exchange", with(header("", "b")), "bad_header"},
		{"exchange", with(header("X-Ä", "b")), "bad_header"},
		{"exchange", with(header("host", "example.com")), "framing_header"},
		{"exchange", with(header("Content-Length", "1")), "framing_header"},
		{"exchange", with(header("TRANSFER-Encoding", "chunked")), "framing_header"},
		{"exchange", with(func(r *request) { r.Body = long[:maxBody+1] }), "too_large"},
		{"exchange", with(func(r *request) { r.Headers = make([][2]string, 65) }), "too_large"},
		{"exchange", map[string]any{"url": "http://example.com"}, "bad_call"},
		{"exchange", long, "bad_call"},
		{"code", user(""), "bad_user"},
		{"code", user(`a"b`), "bad_user"},
		{"code", map[string]any{"appid": "wx1", "user": "ada"}, "bad_app"},
		{"phone_code", map[string]any{"appid": appID, "phone": "none"}, "bad_phone"},
		{"encrypt", map[string]any{"appid": appID, "user": "ada", "data": 1}, "bad_data"},
		{"wechat", map[string]any{"mode": "gone"}, "bad_call"},
	} {
		var got mistake
		if status := post(t, base, tt.call, tt.in, &got); status != 400 || got.Code != tt.want {
			t.Errorf("%s %.200v: %d %v, want %s", tt.call, tt.in, status, got, tt.want)
		}
	}
	var x exchange
	in := with(func(*request) {})
	if post(t, base, "exchange", in, &x); x.Error == nil || x.Error.Code != "no_gate" {
		t.Errorf("without a gate: %+v", x)
	}
}

// TestCode_UnionID_AsThePageSays, and what the developer set over /_sim/user stays until
// the page says something else.
func TestCode_UnionID_AsThePageSays(t *testing.T) {
	s, base := startPage(t, "http://127.0.0.1:1")
	s.cfg.WeChat.SetUser(appID, "ada", weixintest.UserOptions{OpenID: "o-own", UnionID: "u-own"})
	for _, tt := range []struct {
		unionid bool
		want    string // in the answer of WeChat
	}{{true, "u-own"}, {false, ""}, {true, s.cfg.WeChat.UnionID("ada")}} {
		var code codeAnswer
		post(
			t,
			base,
			"code",
			map[string]any{"appid": appID, "user": "ada", "unionid": tt.unionid},
			&code,
		)
		got := exchangeCode(s, code.Code)
		if got["unionid"] != tt.want && !(tt.want == "" && got["unionid"] == nil) {
			t.Errorf("unionid %v: %v, want %q", tt.unionid, got, tt.want)
		}
	}
}
