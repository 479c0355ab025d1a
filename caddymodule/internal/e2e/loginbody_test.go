package e2e_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestThreat24_MalformedLogin refuses malformed logins over the wire.
// TestReadObjectBody and TestThreat24_LoginRequests have the full list.
func TestThreat24_MalformedLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	good := codeBody(w.wechat.Code(appA, "ada"))
	w.post(t, "/wx/login", good+good).problem(t, 400, "invalid_request")
	for _, method := range []string{"GET", "OPTIONS", "HEAD", "post", "QUERY"} {
		r := w.call(t, method, "/wx/login", good, "Content-Type: application/json")
		if r.made(t, 405); r.header.Get("Allow") != "POST" {
			t.Errorf("Allow is %q, want POST", r.header.Get("Allow"))
		}
	}
	w.asked(t, 0)
	if seen := w.app.take(); len(seen) != 0 {
		t.Errorf("the app was called: %v", seen)
	}
	// A code is visible ASCII, and no placeholder.
	for _, code := range []string{"{env.WX_SECRET_0}", "x&appid=" + appB} {
		w.wechat.Reset()
		w.post(t, "/wx/login", codeBody(code)).problem(t, 401, "code_invalid")
		digest := sha256.Sum256([]byte(code))
		calls := w.wechat.Calls()
		if len(calls) != 1 || calls[0].AppID != appA || calls[0].Code == "" ||
			!strings.HasPrefix(hex.EncodeToString(digest[:]), calls[0].Code) {
			t.Errorf("%s: WeChat received %+v", code, calls)
		}
	}
	w.post(t, "/wx/login", good).session(t)
	framing(t, w)
}

// framing has the gate read a body however it is cut into pieces.
func framing(t *testing.T, w *world) {
	w.wechat.Reset()
	head := func(lines ...string) string {
		return "POST /wx/login HTTP/1.1\r\nHost: " + w.addr + "\r\n" + strings.Join(append(lines,
			"Connection: close"),
			"\r\n") + "\r\n\r\n"
	}
	chunked := func(body string, size int) string {
		var b strings.Builder
		for piece := range slices.Chunk([]byte(body), size) {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(piece), piece)
		}
		return b.String() + "0\r\n\r\n"
	}
	body := func() string { return codeBody(w.wechat.Code(appA, "ada")) }

	raw(t, w.addr, head("Transfer-Encoding: chunked")+chunked(body(), 1)).session(t)
	trailing := func(name string) reply {
		text := strings.TrimSuffix(chunked(body(), 9), "\r\n") + name + ": 7\r\n\r\n"
		return raw(t, w.addr, head("Transfer-Encoding: chunked", "Trailer: "+name)+text)
	}
	trailing("X-Checksum").session(t)
	trailing("X-Wx-Openid").problem(t, 400, "invalid_request")
	long := chunked(strings.Repeat(" ", 1<<20), 1<<14)
	raw(t, w.addr, head("Transfer-Encoding: chunked")+long).problem(t, 413, "invalid_request")
	raw(t, w.addr, head("Transfer-Encoding: chunked")+"zz\r\n").problem(t, 400, "invalid_request")

	b := body()
	r := raw(t, w.addr, head("Expect: 100-continue", fmt.Sprintf("Content-Length: %d", len(b)))+b)
	r.session(t)
	if r.continued != 1 {
		t.Errorf("%d answers 100, want one", r.continued)
	}
	r = raw(t, w.addr,
		head("Expect: 100-continue", "Content-Type: text/plain", "Content-Length: 99"))
	r.problem(t, 415, "invalid_request")
	if r.continued != 0 {
		t.Error("a refused call is asked for its body")
	}
	if n := w.wechat.Count(exchangePath); n != 3 {
		t.Errorf("WeChat was called %d times, want 3", n)
	}

	t.Run("in pieces", func(t *testing.T) {
		conn, br := dial(t, w.addr)
		b := body()
		io.WriteString(conn, head(fmt.Sprintf("Content-Length: %d", len(b))))
		for i := range len(b) {
			time.Sleep(2 * time.Millisecond) // so that each byte is a packet
			io.WriteString(conn, b[i:i+1])
		}
		r, err := readReply(br, "POST")
		if err != nil {
			t.Fatal(err)
		}
		r.session(t)
	})
	t.Run("cut off", func(t *testing.T) {
		w.wechat.Reset()
		conn, br := dial(t, w.addr)
		b := body()
		io.WriteString(conn, head(fmt.Sprintf("Content-Length: %d", len(b)+1))+b)
		conn.(*net.TCPConn).CloseWrite()
		if r, err := readReply(br, "POST"); err != nil || r.status != 0 && r.status != 400 {
			t.Errorf("half a call is answered with %s, %v", r, err)
		}
		if n := w.wechat.Count(exchangePath); n != 0 {
			t.Error("half a call reached WeChat")
		}
	})
}

// dial opens a connection that ends with the test.
func dial(tb testing.TB, addr string) (net.Conn, *bufio.Reader) {
	tb.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn, bufio.NewReader(conn)
}
