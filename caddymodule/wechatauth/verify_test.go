package wechatauth

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// identityNames are the headers of an answer to a proxy.
var identityNames = []string{
	"X-Wx-Openid", "X-Wx-Unionid", "X-Wx-Appid", "X-Wx-Source", "X-Wx-Phone",
}

// checkIdentity wants each identity header once in an answer, with the user or empty.
func checkIdentity(t *testing.T, h http.Header, openID string) {
	t.Helper()
	want := make([]string, len(identityNames))
	if openID != "" {
		want[0], want[2], want[3] = openID, caddytest.AppID, "wx_client"
	}
	for i, name := range identityNames {
		if got, ok := h[name]; !ok || len(got) != 1 || got[0] != want[i] {
			t.Errorf("%s is %q, want %q", name, got, want[i])
		}
	}
}

// verifySite answers no preflight at verify: a proxy would let its client's pass.
const verifySite = "http:// {\nwechat_auth {\nverify\npublic /open/*\napps " +
	caddytest.AppID + "\ntickets\ncors https://evil.example.com\n}\necho\n}"

// TestVerify_AnyRequest_JudgedBySession holds that nothing but the caller's choice of
// the endpoint and the token decides (docs/threats.md#t48).
func TestVerify_AnyRequest_JudgedBySession(t *testing.T) {
	s := newServer(t, verifySite)
	const good, bad = "X-3rd-Session: {token}\r\n", "X-3rd-Session: " + caddytest.MadeUp + "\r\n"
	other := "X-3rd-Session: " + s.Token(caddytest.OtherAppID, "bob") + "\r\n"
	forged := "X-WX-OPENID: victim\r\nX-WX-UNIONID: victim\r\nX_WX_OPENID: victim\r\n" +
		"X-Original-URI: /open/x\r\nX-Forwarded-Uri: /open/x\r\nX-Original-URL: /open/x\r\n" +
		"X-Forwarded-Method: OPTIONS\r\nX-Forwarded-Host: open.example.com\r\n"
	for _, lines := range []string{
		"", forged,
		"X-Forwarded-Proto: wss\r\n", "X-Forwarded-Proto: ws\r\nX-Forwarded-For: 1.2.3.4\r\n",
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
		"Origin: https://evil.example.com\r\nAccess-Control-Request-Method: POST\r\n",
		"Content-Length: 5\r\n", "Content-Length: 5\r\nExpect: 100-continue\r\n",
		"Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n",
	} {
		for _, path := range []string{
			"/wx/verify", "/wx/verify/", "/wx/verify/api/orders", "/wx/verify?optional=1",
			"/wx/verify/wx/verify-optional", "/wx/verify/../verify-optional/x",
			"/wx/verify/%2e%2e/verify-optional", "/wx/verify/..%2fverify-optional",
			"/wx/verify//x", "/wx/verify/open/x", "/wx/verify/%00", "/wx/verify/;x\\y",
			"/wx/verify/wx/login", "/wx/verify/" + strings.Repeat("x", 8<<10),
		} {
			for _, method := range []string{
				"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW",
			} {
				if len(lines) > 0 && method != "GET" && method != "POST" {
					continue
				}
				for _, c := range []struct {
					tokens           string
					status, optional int
					openID           string
				}{
					{"", 401, 200, ""},
					{"X-3rd-Session: \r\n", 401, 200, ""},
					{"Authorization: Bearer app\r\n", 401, 200, ""},
					{good, 200, 200, "alice"},
					{"Authorization: Bearer {token}\r\n", 200, 200, "alice"},
					{bad, 401, 401, ""},
					{good + "Authorization: Bearer wxs_other\r\n", 400, 400, ""},
					{other, 403, 403, ""},
				} {
					if len(path) > 100 && c.tokens != good && c.tokens != "" {
						continue
					}
					optional := strings.Replace(path, "verify", "verify-optional", 1)
					for path, want := range map[string]int{path: c.status, optional: c.optional} {
						text := method + " " + path + " HTTP/1.1\r\nHost: {host}\r\n" +
							lines + c.tokens + "\r\n"
						// send fails when the answer waits for a body.
						status, h, body := s.send(text)
						if status != want || h.Get("X-Wxgate") == "" {
							t.Fatalf("%.300q: %d %s, want %d", text, status, body, want)
						}
						if status == 200 {
							checkIdentity(t, h, c.openID)
						} else if status == 401 && h.Get("WWW-Authenticate") == "" {
							t.Errorf("%q: no challenge", text)
						}
					}
				}
			}
		}
	}
}

// TestVerify_EnvoyHeaders_NameWhatToRemove: Envoy leaves its client's headers as they
// are unless the answer names them.
func TestVerify_EnvoyHeaders_NameWhatToRemove(t *testing.T) {
	s := newServer(t, verifySite)
	for _, c := range []struct{ lines, want string }{
		{"X-3rd-Session: {token}\r\n", "X-Wx-Unionid, X-Wx-Phone, Authorization, X-3rd-Session"},
		{
			"Authorization: Bearer {token}\r\n",
			"X-Wx-Unionid, X-Wx-Phone, Authorization, X-3rd-Session",
		},
		{ // the app's own Authorization stays
			"X-3rd-Session: {token}\r\nAuthorization: Basic YTpi\r\n",
			"X-Wx-Unionid, X-Wx-Phone, X-3rd-Session",
		},
		{"", strings.Join(identityNames, ", ") + ", Authorization, X-3rd-Session"},
	} {
		_, h, _ := s.send(get("/wx/verify-optional/x", c.lines))
		if got := h[headersToRemove]; !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: to remove are %q, want %q", c.lines, got, c.want)
		}
	}
}

// TestVerify_Body_DoesNotHoldUpTheNext: a proxy that announces a body and sends none
// gets its answer, and a connection without a body goes on.
func TestVerify_Body_DoesNotHoldUpTheNext(t *testing.T) {
	s := newServer(t, verifySite)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	br := bufio.NewReader(c)
	for i, length := range []string{"0", "0", "5"} {
		fmt.Fprintf(c, "POST /wx/verify-optional HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n",
			length)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 200 || resp.Close != (length != "0") {
			t.Fatalf("%d: %v, %v", i, resp, err)
		}
		resp.Body.Close()
	}
}

// TestP4_Verify_StoreOutage_503: an outage logs nobody out, here neither.
func TestP4_Verify_StoreOutage_503(t *testing.T) {
	w := newWorld(t, &Handler{Verify: true}).start()
	token := w.Token(caddytest.AppID, "alice")
	caddytest.Break(t)
	for target, status := range map[string]int{
		"/wx/verify/x": 503, "/wx/verify-optional/x": 503,
	} {
		r, rec := caddytest.Request("GET", target, token)
		var n caddytest.Next
		if err := w.gate.ServeHTTP(rec, r, &n); err != nil || n.Called {
			t.Fatal(err, n.Called)
		}
		if rec.Code != status || rec.Header().Get("Retry-After") == "" ||
			caddytest.Code(t, rec) != "store_unavailable" {
			t.Errorf("%s: %d %v %s", target, rec.Code, rec.Header(), rec.Body)
		}
	}
	r, rec := caddytest.Request("GET", "/wx/verify-optional", "")
	if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil || rec.Code != 200 {
		t.Errorf("a guest: %d, %v", rec.Code, err)
	}
}

// TestVerify_NotConfigured_NotFound: without the word there is no such endpoint, and
// another spelling is none either.
func TestVerify_NotConfigured_NotFound(t *testing.T) {
	s := newServer(t, "http:// {\nwechat_auth\necho\n}")
	with := newServer(t, verifySite)
	for path, at := range map[string]*server{
		"/wx/verify": s, "/wx/verify/x": s, "/wx/verify-optional": s,
		"/wx/verifyx": with, "/wx/Verify": with, "/wx/verify-optionalx": with,
		"/wx//verify": with, "/wx/x/../verify": with, "/wx/verif%79": with, "/WX/verify": with,
	} {
		status, _, body := at.send(get(path, "X-3rd-Session: {token}\r\n"))
		if status != 404 || code(body) != "not_found" {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}
