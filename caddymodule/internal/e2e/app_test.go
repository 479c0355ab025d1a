package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

// app is an app that knows nothing of WeChat. It reads requests off the socket
// by hand, so that nothing is normalised, joined or dropped before a test sees
// it, and answers with what it was sent. `?status=` chooses another status than
// 200. A WebSocket handshake is accepted: the first line sent back is what was
// received, then everything is echoed.
type app struct {
	addr string
	mu   sync.Mutex
	seen []received
}

// received is one request as the app got it.
type received struct{ probe.Request }

func newApp(tb testing.TB) *app {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	a := &app{addr: l.Addr().String()}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go a.serve(conn)
		}
	}()
	return a
}

// take returns the requests seen since the last call.
func (a *app) take() []received {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.seen = nil }()
	return a.seen
}

func (a *app) serve(conn net.Conn) {
	defer conn.Close()
	br := bufio.NewReader(conn)
	for {
		request, err := probe.ReadRequest(br, conn)
		if err != nil {
			return
		}
		r := received{request}
		a.mu.Lock()
		a.seen = append(a.seen, r)
		a.mu.Unlock()
		said, _ := json.Marshal(r)
		if r.WebSocket() {
			fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"+
				"Upgrade: websocket\r\nX-App: echo\r\n\r\n%s\n", said)
			io.Copy(conn, br)
			return
		}
		status := 200
		if u, err := url.Parse(r.Target()); err == nil && u.Query().Get("status") != "" {
			status, _ = strconv.Atoi(u.Query().Get("status"))
		}
		head := fmt.Sprintf("HTTP/1.1 %d Status\r\nX-App: echo\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", status, len(said))
		if strings.HasPrefix(r.Line, "HEAD ") {
			said = nil
		}
		if _, err := conn.Write(append([]byte(head), said...)); err != nil {
			return
		}
	}
}

// identity is the app's view of a caller.
type identity struct{ openid, unionid, appid, phone string }

func (id *identity) lines() (lines []string) {
	if id == nil {
		return nil
	}
	lines = []string{"x-wx-appid: " + id.appid, "x-wx-openid: " + id.openid}
	if id.phone != "" {
		lines = append(lines, "x-wx-phone: "+id.phone)
	}
	lines = append(lines, "x-wx-source: wx_client")
	if id.unionid != "" {
		lines = append(lines, "x-wx-unionid: "+id.unionid)
	}
	return lines
}

// owned returns, sorted, the header and trailer lines whose names any server
// could read as one of ours (docs/threats.md#owned-name), the name in lower case.
func (r received) owned() (lines []string) {
	for _, line := range slices.Concat(r.Headers, r.Trailers) {
		name, value, _ := strings.Cut(line, ":")
		folded := strings.Map(func(c rune) rune {
			if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
				return c
			}
			return '-'
		}, strings.ToLower(name))
		if strings.HasPrefix(folded, "x-wx-") {
			lines = append(lines, strings.ToLower(name)+": "+strings.TrimSpace(value))
		}
	}
	slices.Sort(lines)
	return lines
}

// check demands that the app was told exactly the identity, or nothing when it
// is nil, and nothing of any token (P1).
func (r received) check(tb testing.TB, want *identity) {
	tb.Helper()
	if got := r.owned(); !slices.Equal(got, want.lines()) {
		tb.Errorf("the app is told %q, want %q", got, want.lines())
	}
	r.checkTokenless(tb)
}

func (r received) checkTokenless(tb testing.TB) {
	tb.Helper()
	if all := strings.Join(r.Lines(), "\n"); strings.Contains(all, "wxs_") {
		tb.Errorf("the app sees a token:\n%s", all)
	}
}
