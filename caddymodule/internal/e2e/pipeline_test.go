package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// talk sends bytes as they are and returns the answers until the connection
// ends. Where nothing more comes we end our half, so that a server that waits
// for more of a request gives up on it.
func talk(addr, text string) (replies []reply, err error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	go io.WriteString(conn, text)
	br := bufio.NewReader(conn)
	for silence := 300 * time.Millisecond; ; {
		conn.SetDeadline(time.Now().Add(silence))
		if _, err := br.Peek(1); err != nil {
			if netErr, ok := err.(net.Error); ok && netErr.Timeout() && silence < patience {
				silence = patience
				conn.(*net.TCPConn).CloseWrite()
				continue
			}
			return replies, nil
		}
		conn.SetDeadline(time.Now().Add(patience))
		r, err := readReply(br, "GET")
		if err != nil || r.status == 0 {
			return replies, err
		}
		replies = append(replies, r)
	}
}

// mustTalk is talk for the test's own goroutine.
func mustTalk(tb testing.TB, addr, text string) []reply {
	tb.Helper()
	replies, err := talk(addr, text)
	if err != nil {
		tb.Fatal(err)
	}
	return replies
}

// honest is a request by a user, with a path of its own.
func honest(user, path, connection, token string) string {
	return fmt.Sprintf("GET %s?%s HTTP/1.1\r\nHost: x\r\n%s\r\nConnection: %s\r\n\r\n", path, user,
		bearer(token), connection)
}

// TestP1_Pipelined sends hostile requests between honest ones on one
// connection; the gate judges each by itself.
func TestP1_Pipelined(t *testing.T) {
	t.Parallel()
	a := newArena(t, mixed)
	tokens := map[string]string{"ada": a.login(t, "ada"), "bob": a.login(t, "bob")}
	get := func(path string, lines ...string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(lines, "", ""),
			"\r\n")
	}
	chunked := "POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%s\r\n" +
		"3\r\nabc\r\n0\r\n%s\r\n"
	hostile := []struct {
		name, bytes string
		status      int
	}{
		{"forged", get("/admin/hostile", "X-WX-OPENID: victim"), 401},
		{
			"forged guest", get("/optional/hostile", "X-WX-OPENID: victim", "X_WX_UNIONID: victim"),
			200,
		},
		{
			"forged on a public route",
			get("/public/hostile", "X-WX-OPENID: victim", bearer(tokens["ada"])), 200,
		},
		{"bad token", get("/admin/hostile", bearer("wxs_bad"), "X-WX-OPENID: victim"), 401},
		{
			"two tokens",
			get("/admin/hostile", bearer(tokens["ada"]), "X-3rd-Session: "+tokens["bob"]), 400,
		},
		{
			"removes the identity", get("/optional/hostile", "Connection: keep-alive, X-Wx-Openid"),
			200,
		},
		{
			"h2c",
			get("/public/hostile", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
				"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
			200,
		},
		{
			"websocket refused",
			get("/admin/hostile", "Connection: Upgrade", "Upgrade: websocket",
				"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
			401,
		},
		{
			"declared trailer",
			fmt.Sprintf(chunked, "public/hostile", "Trailer: X-Wx-Openid\r\n",
				"X-Wx-Openid: victim\r\n"),
			400,
		},
		{
			"undeclared trailer",
			fmt.Sprintf(chunked, "public/hostile", "", "X-Wx-Openid: victim\r\n"), 200,
		},
		{
			"trailer behind another",
			fmt.Sprintf(chunked, "optional/hostile", "Trailer: X-A\r\n",
				"X-A: 1\r\nX-Wx-Openid: victim\r\nAuthorization: Bearer "+tokens["bob"]+"\r\n"),
			200,
		},
		{
			"refused body",
			"POST /admin/hostile HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n" +
				strings.Repeat("GET /admin HTTP/1.1\r\nX-WX-OPENID: victim\r\n\r\n",
					2000)[:65536],
			401,
		},
		{"under the prefix", get("/wx/..%2fadmin/hostile"), 404},
		{
			"malformed login", "POST /wx/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{",
			400,
		},
		{
			"logout without a token",
			"POST /wx/logout HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 401,
		},
		{"odd path", get("/public/..%2fhostile"), 401},
		{"folded line", get("/public/hostile", "X-A: b", " X-WX-OPENID: victim"), 200},
	}
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			ada := honest("ada", "/optional/honest", "keep-alive", tokens["ada"])
			bob := honest("bob", "/honest", "keep-alive", tokens["bob"])
			text := h.bytes + ada + h.bytes + h.bytes + bob + h.bytes + honest("ada", "/honest",
				"close", tokens["ada"])
			if h.name == "forged" {
				text = strings.ReplaceAll(text, "?ada HTTP/1.1",
					"?ada HTTP/1.0") // which may be kept alive as well
			}
			a.app.take()
			replies := mustTalk(t, a.addr, text)
			wants := []int{h.status, 200, h.status, h.status, 200, h.status, 200}
			if len(replies) != len(wants) {
				t.Errorf("%d answers, want %d", len(replies), len(wants))
			}
			for i, r := range replies {
				if r.status != wants[i] {
					t.Errorf("answer %d is %s, want %d", i+1, r, wants[i])
				}
			}
			seen := a.honestOnly(t)
			if seen["ada"] != 2 || seen["bob"] != 1 {
				t.Errorf("the app is asked %v", seen)
			}
		})
	}
}

// honestOnly checks who the app was told that each request came from: ada and
// bob in their own requests, nobody in the others. It returns how often each
// was there.
func (a *arena) honestOnly(t *testing.T) map[string]int {
	t.Helper()
	seen := make(map[string]int)
	for _, r := range a.app.take() {
		path, user, _ := strings.Cut(r.Target(), "?")
		seen[user]++
		switch {
		case strings.HasSuffix(path, "/honest"):
			r.check(t, a.who(appA, user))
			if r.Body != "" {
				t.Errorf("%s sends a body: %q", user, r.Body)
			}
		case strings.HasSuffix(path, "/hostile"):
			r.check(t, nil)
		default:
			t.Errorf("nobody sent %+v", r)
		}
		r.checkClean(t)
	}
	return seen
}
