package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

const phonePath = "/wxa/business/getuserphonenumber"

// TestThreat24_MalformedUserData: over the wire, too, what is no call has its stable code, and neither WeChat nor the app hears of it.
func TestThreat24_MalformedUserData(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	token := w.login(t, "ada")
	w.wechat.Reset()
	good := map[string]string{"/wx/decrypt": w.openData(t, appA, "ada", `{}`), "/wx/phone": codeBody(w.wechat.PhoneCode(appA, "13580006666"))}
	limits := map[string]int{"/wx/decrypt": 64 << 10, "/wx/phone": 4 << 10}
	for target, body := range good {
		for _, tt := range []struct {
			name, body string
			status     int
			headers    []string
		}{
			{name: "nothing", body: "", status: 400},
			{name: "cut off", body: body[:len(body)-1], status: 400},
			{name: "junk behind", body: body + "x", status: 400},
			{name: "twice", body: body + body, status: 400},
			{name: "NUL behind", body: body + "\x00", status: 400},
			{name: "a name twice", body: body[:len(body)-1] + "," + body[1:], status: 400},
			{name: "nested", body: body[:len(body)-1] + `,"x":{"y":1}}`, status: 400},
			{name: "deep", body: strings.Repeat(`{"a":`, 800), status: 400},
			{name: "array", body: "[" + body + "]", status: 400},
			{name: "form", body: "code=abc&encryptedData=AA&iv=AA", status: 400},
			{name: "one byte too long", body: body + strings.Repeat(" ", limits[target]+1-len(body)), status: 413},
			{name: "1 MB", body: `{"code":"` + strings.Repeat("a", 1<<20), status: 413},
			{name: "form type", body: body, status: 415, headers: []string{"Content-Type: application/x-www-form-urlencoded"}},
			{name: "text type", body: body, status: 415, headers: []string{"Content-Type: text/plain"}},
			{name: "gzip", body: body, status: 415, headers: []string{"Content-Encoding: gzip"}},
		} {
			t.Run(target[4:]+"/"+tt.name, func(t *testing.T) {
				w.call(t, "POST", target, tt.body, append(tt.headers, bearer(token))...).problem(t, tt.status, "invalid_request")
			})
		}
		for _, method := range []string{"GET", "PUT", "HEAD", "OPTIONS"} {
			r := w.call(t, method, target, body, bearer(token))
			if r.made(t, http.StatusMethodNotAllowed); r.header.Get("Allow") != "POST" {
				t.Errorf("%s %s: Allow is %q", method, target, r.header.Get("Allow"))
			}
		}
		w.post(t, target, body).problem(t, http.StatusUnauthorized, "session_missing")
		w.post(t, target, body, bearer("wxs_short")).problem(t, http.StatusUnauthorized, "session_invalid")
		w.post(t, target, body, bearer(token), "X-3rd-Session: wxs_other").problem(t, http.StatusBadRequest, "ambiguous_credentials")
	}
	if n := w.wechat.Count(phonePath); n != 0 {
		t.Errorf("WeChat was asked for %d numbers", n)
	}
	if seen := w.app.take(); len(seen) != 0 {
		t.Errorf("the app was called: %v", seen)
	}
	for target, body := range good {
		for _, ct := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON;x", ""} {
			if target == "/wx/phone" && ct != "" {
				continue // a code is good once
			}
			w.call(t, "POST", target, body, "Content-Type: "+ct, bearer(token)).made(t, http.StatusOK)
		}
	}
}

// TestThreat24_UserDataFraming: a body in chunks is a body, one that breaks off is none, and its code is not spent.
func TestThreat24_UserDataFraming(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	token := w.login(t, "ada")
	for target, body := range map[string]string{"/wx/decrypt": w.openData(t, appA, "ada", `{}`), "/wx/phone": codeBody(w.wechat.PhoneCode(appA, "13580006666"))} {
		head := func(lines ...string) string {
			return "POST " + target + " HTTP/1.1\r\nHost: " + w.addr + "\r\n" + bearer(token) + "\r\n" + strings.Join(append(lines, "Connection: close"), "\r\n") + "\r\n\r\n"
		}
		conn, br := dial(t, w.addr)
		io.WriteString(conn, head(fmt.Sprintf("Content-Length: %d", len(body)+1))+body)
		conn.(*net.TCPConn).CloseWrite()
		if r, err := readReply(br, "POST"); err != nil || r.status != 0 && r.status != http.StatusBadRequest {
			t.Errorf("%s: half a call is answered with %s, %v", target, r, err)
		}
		var chunked strings.Builder
		for i := range len(body) {
			fmt.Fprintf(&chunked, "1\r\n%s\r\n", body[i:i+1])
		}
		raw(t, w.addr, head("Transfer-Encoding: chunked")+chunked.String()+"0\r\n\r\n").made(t, http.StatusOK)
	}
	if n := w.wechat.Count(phonePath); n != 1 {
		t.Errorf("WeChat was asked for %d numbers, want 1", n)
	}
}

// TestThreat29_OverTheWire: who guesses is told the same each time, learns nothing, is stopped after ten tries without sending a body, and keeps the session; who does not goes on.
func TestThreat29_OverTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	ada, bob := w.login(t, "ada"), w.login(t, "bob")
	good := w.openData(t, appA, "ada", `{"nickName":"Ada"}`)
	bad := fmt.Sprintf(`{"encryptedData":%q,"iv":"AAAAAAAAAAAAAAAAAAAAAA=="}`, strings.Repeat("A", 64))
	for range 10 {
		w.post(t, "/wx/decrypt", bad, bearer(ada)).dataInvalid(t, true)
	}
	for _, token := range []string{ada, w.login(t, "ada")} {
		w.post(t, "/wx/decrypt", good, bearer(token)).problem(t, http.StatusTooManyRequests, "rate_limited")
		conn, br := dial(t, w.addr)
		fmt.Fprintf(conn, "POST /wx/decrypt HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Length: 60000\r\n\r\n", w.addr, bearer(token)) // and nothing more
		r, err := readReply(br, "POST")
		if err != nil {
			t.Fatal(err)
		}
		r.problem(t, http.StatusTooManyRequests, "rate_limited")
		w.checkAlive(t, token, w.who(appA, "ada"))
	}
	w.mustReload(t, w.setup)
	w.post(t, "/wx/decrypt", good, bearer(ada)).problem(t, http.StatusTooManyRequests, "rate_limited")
	w.post(t, "/wx/decrypt", w.openData(t, appA, "bob", `{}`), bearer(bob)).made(t, http.StatusOK)
}
