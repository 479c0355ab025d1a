package e2e_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestThreat24_MalformedLogin: each malformed call has its stable code, and WeChat is not called.
func TestThreat24_MalformedLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	good := codeBody(w.wechat.Code(appA, "ada"))
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	io.WriteString(zip, good)
	zip.Close()

	const jsonType = "Content-Type: application/json"
	bodies := []struct {
		name, body string
		status     int
		headers    []string
	}{
		{name: "nothing", body: "", status: 400},
		{name: "blanks", body: " \r\n\t ", status: 400},
		{name: "no code", body: `{}`, status: 400},
		{name: "empty code", body: `{"code":""}`, status: 400},
		{name: "other case", body: `{"Code":"abc"}`, status: 400},
		{name: "code of 257", body: codeBody(strings.Repeat("a", 257)), status: 400},
		{name: "code of 3000", body: codeBody(strings.Repeat("a", 3000)), status: 400},
		{name: "1 MB code", body: codeBody(strings.Repeat("a", 1<<20)), status: 413},
		{name: "1 MB of blanks behind a good call", body: good + strings.Repeat(" ", 1<<20), status: 413},
		{name: "one byte too long", body: good + strings.Repeat(" ", 4097-len(good)), status: 413},
		{name: "NUL in the code", body: `{"code":"a\u0000b"}`, status: 400},
		{name: "raw NUL", body: "{\"code\":\"a\x00b\"}", status: 400},
		{name: "raw NUL behind", body: good + "\x00", status: 400},
		{name: "line break", body: `{"code":"a\r\nb"}`, status: 400},
		{name: "blank", body: `{"code":"a b"}`, status: 400},
		{name: "tab", body: `{"code":"a\tb"}`, status: 400},
		{name: "DEL", body: `{"code":"a\u007f"}`, status: 400},
		{name: "not ASCII", body: `{"code":"码"}`, status: 400},
		{name: "invalid UTF-8", body: "{\"code\":\"a\xff\"}", status: 400},
		{name: "overlong UTF-8", body: "{\"code\":\"a\xc0\xaf\"}", status: 400},
		{name: "half a surrogate", body: `{"code":"a\ud800"}`, status: 400},
		{name: "number", body: `{"code":1234}`, status: 400},
		{name: "huge number", body: `{"code":1e999999}`, status: 400},
		{name: "true", body: `{"code":true}`, status: 400},
		{name: "null", body: `{"code":null}`, status: 400},
		{name: "code in an array", body: `{"code":["abc"]}`, status: 400},
		{name: "code in an object", body: `{"code":{"$ne":""}}`, status: 400},
		{name: "nested elsewhere", body: `{"code":"abc","x":{"y":1}}`, status: 400},
		{name: "deep nesting", body: `{"code":"abc","x":` + strings.Repeat("[", 1500) + strings.Repeat("]", 1500) + `}`, status: 400},
		{name: "deep nesting, open", body: strings.Repeat(`{"a":`, 800), status: 400},
		{name: "code twice", body: `{"code":"abc","code":"def"}`, status: 400},
		{name: "code twice, escaped", body: `{"code":"abc","c\u006fde":"def"}`, status: 400},
		{name: "unknown name twice", body: `{"code":"abc","x":1,"x":2}`, status: 400},
		{name: "appid twice", body: `{"code":"abc","appid":"` + appA + `","appid":"` + appA + `"}`, status: 400},
		{name: "appid no string", body: `{"code":"abc","appid":["` + appA + `"]}`, status: 400},
		{name: "object behind", body: good + good, status: 400},
		{name: "word behind", body: good + "x", status: 400},
		{name: "brace behind", body: good + "}", status: 400},
		{name: "cut off", body: good[:len(good)-1], status: 400},
		{name: "array", body: `[` + good + `]`, status: 400},
		{name: "string", body: quote(good), status: 400},
		{name: "null body", body: `null`, status: 400},
		{name: "number body", body: `7`, status: 400},
		{name: "comment", body: `{"code":"abc"/**/}`, status: 400},
		{name: "single quotes", body: `{'code':'abc'}`, status: 400},
		{name: "comma behind", body: `{"code":"abc",}`, status: 400},
		{name: "byte order mark", body: "\ufeff" + good, status: 400},
		{name: "UTF-16", body: "\xff\xfe{\x00}\x00", status: 400},
		{name: "form", body: "code=abc", status: 400},
		{name: "mock code", body: codeBody("the code is a mock one"), status: 400},
		{name: "bare gzip", body: zipped.String(), status: 400},
		{name: "gzip", body: zipped.String(), status: 415, headers: []string{jsonType, "Content-Encoding: gzip"}},
		{name: "two encodings", body: zipped.String(), status: 415, headers: []string{jsonType, "Content-Encoding: identity", "Content-Encoding: br"}},
		{name: "form type", body: good, status: 415, headers: []string{"Content-Type: application/x-www-form-urlencoded"}},
		{name: "text type", body: good, status: 415, headers: []string{"Content-Type: text/plain; charset=utf-8"}},
		{name: "multipart type", body: good, status: 415, headers: []string{"Content-Type: multipart/form-data; boundary=x"}},
		{name: "almost the type", body: good, status: 415, headers: []string{"Content-Type: application/jsonp"}},
		{name: "two types", body: good, status: 415, headers: []string{"Content-Type: text/plain, application/json"}},
		{name: "foreign appid", body: `{"code":"abc","appid":"wx1111111111111111"}`, status: 403},
	}
	for _, tt := range bodies {
		t.Run(tt.name, func(t *testing.T) {
			if tt.headers == nil {
				tt.headers = []string{jsonType}
			}
			code := "invalid_request"
			if tt.status == http.StatusForbidden {
				code = "app_not_allowed"
			}
			w.call(t, "POST", "/wx/login", tt.body, tt.headers...).problem(t, tt.status, code)
		})
	}
	for _, method := range []string{"GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "post", "QUERY"} {
		t.Run(method, func(t *testing.T) {
			r := w.call(t, method, "/wx/login", good, jsonType)
			if r.made(t, http.StatusMethodNotAllowed); method != "HEAD" {
				r.problem(t, http.StatusMethodNotAllowed, "invalid_request")
			}
			if r.header.Get("Allow") != "POST" {
				t.Errorf("Allow is %q, want POST", r.header.Get("Allow"))
			}
		})
	}
	if n := w.wechat.Count(exchangePath); n != 0 {
		t.Errorf("WeChat was called %d times", n)
	}
	if seen := w.app.take(); len(seen) != 0 {
		t.Errorf("the app was called: %v", seen)
	}
	w.post(t, "/wx/login", good).session(t)
}

// TestThreat24_CodeIsEscaped: a code that is visible ASCII may be one, for all that is documented. It reaches WeChat as the value of js_code and as nothing else.
func TestThreat24_CodeIsEscaped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{apps: []string{appA, appB}})
	for _, code := range []string{"x&appid=" + appB, "x&secret=evil", "x%26appid=evil", "x#y", "x+y", "x;appid=evil", "../../x?y=z", "x\\y\"'<>", "{env.WX_SECRET_0}", "%", strings.Repeat("~", 256)} {
		t.Run(code[:min(20, len(code))], func(t *testing.T) {
			w.wechat.Reset()
			w.post(t, "/wx/login", fmt.Sprintf(`{"code":%s,"appid":%q}`, quote(code), appA)).problem(t, http.StatusUnauthorized, "code_invalid")
			calls := w.wechat.Calls()
			if len(calls) != 1 || calls[0].AppID != appA || calls[0].Path != exchangePath {
				t.Fatalf("WeChat received %+v, want one exchange for %s", calls, appA)
			}
			digest := sha256.Sum256([]byte(code))
			if got := calls[0].Code; got == "" || !strings.HasPrefix(hex.EncodeToString(digest[:]), got) {
				t.Errorf("WeChat received another code than %q: digest %s", code, got)
			}
		})
	}
}

// TestThreat24_Framing: how the body is cut into pieces changes nothing.
func TestThreat24_Framing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	head := func(lines ...string) string {
		return "POST /wx/login HTTP/1.1\r\nHost: " + w.addr + "\r\n" + strings.Join(append(lines, "Connection: close"), "\r\n") + "\r\n\r\n"
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
	raw(t, w.addr, head("Transfer-Encoding: chunked", "Trailer: X-Checksum")+strings.TrimSuffix(chunked(body(), 9), "\r\n")+"X-Checksum: 7\r\n\r\n").session(t)
	raw(t, w.addr, head("Transfer-Encoding: chunked", "Trailer: X-Wx-Openid")+strings.TrimSuffix(chunked(body(), 9), "\r\n")+"X-Wx-Openid: x\r\n\r\n").problem(t, http.StatusBadRequest, "invalid_request")
	raw(t, w.addr, head("Transfer-Encoding: chunked")+chunked(strings.Repeat(" ", 1<<20), 1<<14)).problem(t, http.StatusRequestEntityTooLarge, "invalid_request")
	raw(t, w.addr, head("Transfer-Encoding: chunked")+"zz\r\n").problem(t, http.StatusBadRequest, "invalid_request")

	b := body()
	r := raw(t, w.addr, head("Expect: 100-continue", fmt.Sprintf("Content-Length: %d", len(b)))+b)
	r.session(t)
	if r.continued != 1 {
		t.Errorf("%d answers 100, want one", r.continued)
	}
	r = raw(t, w.addr, head("Expect: 100-continue", "Content-Type: text/plain", "Content-Length: 99"))
	r.problem(t, http.StatusUnsupportedMediaType, "invalid_request")
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
		if r, err := readReply(br, "POST"); err != nil || r.status != 0 && r.status != http.StatusBadRequest {
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
