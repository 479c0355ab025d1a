package e2e_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

const phonePath = "/wxa/business/getuserphonenumber"

// TestThreat24_UserDataFraming reads a body in chunks, and spends no code on a
// body that breaks off.
func TestThreat24_UserDataFraming(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	token := w.login(t, "ada")
	for target, body := range map[string]string{
		"/wx/decrypt": w.openData(t, appA, "ada", `{}`),
		"/wx/phone":   codeBody(w.wechat.PhoneCode(appA, "13580006666")),
	} {
		head := func(lines ...string) string {
			return "POST " + target + " HTTP/1.1\r\nHost: " + w.addr + "\r\n" + bearer(token) +
				"\r\n" + strings.Join(append(lines,
				"Connection: close"),
				"\r\n") + "\r\n\r\n"
		}
		conn, br := dial(t, w.addr)
		io.WriteString(conn, head(fmt.Sprintf("Content-Length: %d", len(body)+1))+body)
		conn.(*net.TCPConn).CloseWrite()
		if r, err := readReply(br, "POST"); err != nil || r.status != 0 && r.status != 400 {
			t.Errorf("%s: half a call is answered with %s, %v", target, r, err)
		}
		var chunked strings.Builder
		for i := range len(body) {
			fmt.Fprintf(&chunked, "1\r\n%s\r\n", body[i:i+1])
		}
		raw(t, w.addr, head("Transfer-Encoding: chunked")+chunked.String()+"0\r\n\r\n").made(t, 200)
	}
	if n := w.wechat.Count(phonePath); n != 1 {
		t.Errorf("WeChat was asked for %d numbers, want 1", n)
	}
}

// TestThreat29_OverTheWire answers all guesses alike, stops them after ten
// without reading a body, keeps the session, and serves others.
func TestThreat29_OverTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	ada, bob := w.login(t, "ada"), w.login(t, "bob")
	good := w.openData(t, appA, "ada", `{"nickName":"Ada"}`)
	bad := fmt.Sprintf(`{"encryptedData":%q,"iv":"AAAAAAAAAAAAAAAAAAAAAA=="}`,
		strings.Repeat("A", 64))
	for range 10 {
		w.post(t, "/wx/decrypt", bad, bearer(ada)).dataInvalid(t, true)
	}
	for _, token := range []string{ada, w.login(t, "ada")} {
		w.post(t, "/wx/decrypt", good, bearer(token)).problem(t, 429, "rate_limited")
		conn, br := dial(t, w.addr)
		fmt.Fprintf(conn,
			"POST /wx/decrypt HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Length: 60000\r\n\r\n", w.addr,
			bearer(token)) // and nothing more
		r, err := readReply(br, "POST")
		if err != nil {
			t.Fatal(err)
		}
		r.problem(t, 429, "rate_limited")
		w.checkAlive(t, token, w.who(appA, "ada"))
	}
	w.mustReload(t, w.setup)
	w.post(t, "/wx/decrypt", good, bearer(ada)).problem(t, 429, "rate_limited")
	w.post(t, "/wx/decrypt", w.openData(t, appA, "bob", `{}`), bearer(bob)).made(t, 200)
}
