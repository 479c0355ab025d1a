package e2e_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

func handshake(addr string, headers ...string) string {
	return "GET /socket HTTP/1.1\r\nHost: " + addr +
		"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
		strings.Join(headers,
			"\r\n") + "\r\n\r\n"
}

// TestWebSocket checks the handshake like any request, gives the app the
// identity with it, and leaves the rest to the two.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mixed)
	token := w.login(t, "ada")
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket"}
	for name, headers := range map[string][]string{
		"plain": append(upgrade, bearer(token)),
		"forged": append(upgrade, bearer(token), "X-WX-OPENID: victim",
			"X_WX_UNIONID: victim", "X-Wx!Appid: victim"),
		"removes the identity": {
			"Connection: Upgrade, X-Wx-Openid, X-WX-APPID", "Upgrade: websocket", bearer(token),
		},
		"removes it on two": {
			"Connection: X-Wx-Openid", "connection: keep-alive, UPGRADE", "upgrade: WebSocket",
			bearer(token),
		},
		"with settings of h2c": {
			"Connection: Upgrade, HTTP2-Settings", "Upgrade: websocket",
			"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", bearer(token),
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, br := dial(t, w.addr)
			io.WriteString(conn, handshake(w.addr, headers...))
			if r, err := readReply(br, "GET"); err != nil ||
				r.status != http.StatusSwitchingProtocols || !r.fromApp() {
				t.Fatalf("the handshake is answered with %s, %v", r, err)
			}
			got := firstLine(t, br)
			got.check(t, w.who(appA, "ada"))
			got.checkClean(t)
			io.WriteString(conn, "\x81\x05hello to and fro\n")
			if line, err := br.ReadString('\n'); err != nil ||
				line != "\x81\x05hello to and fro\n" {
				t.Errorf("the echo is %q, %v", line, err)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		w.app.take()
		shake := func(headers ...string) string {
			return handshake(w.addr, append(upgrade, headers...)...)
		}
		raw(t, w.addr, shake()).problem(t, 401, "session_missing")
		raw(t, w.addr, shake(bearer("wxs_bad"))).problem(t, 401, "session_invalid")
		raw(t, w.addr, shake("X-WX-OPENID: victim")).problem(t, 401, "session_missing")
		own := strings.Replace(shake(bearer(token)), "/socket", "/wx/socket", 1)
		raw(t, w.addr, own).problem(t, 404, "not_found")
		if seen := w.app.take(); len(seen) > 0 {
			t.Errorf("the app was asked: %+v", seen)
		}
	})
	t.Run("not opened again after logout", func(t *testing.T) {
		token := w.login(t, "bob")
		conn, br := dial(t, w.addr)
		io.WriteString(conn, handshake(w.addr, append(upgrade, bearer(token))...))
		if r, err := readReply(br, "GET"); err != nil || r.status != http.StatusSwitchingProtocols {
			t.Fatalf("the handshake is answered with %s, %v", r, err)
		}
		firstLine(t, br)
		w.post(t, "/wx/logout", "", bearer(token)).made(t, 204)
		raw(t, w.addr,
			handshake(w.addr, append(upgrade, bearer(token))...)).problem(t, 401, "session_invalid")
	})
}

// firstLine is what the app says that it received of a handshake.
func firstLine(tb testing.TB, br *bufio.Reader) (got received) {
	tb.Helper()
	line, err := br.ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), &got)
	}
	if err != nil {
		tb.Fatalf("the app says %q: %v", line, err)
	}
	return got
}
