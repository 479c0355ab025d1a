package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestThreat28_OddUpstreams holds that an upstream which echoes requests gets
// the access token neither to the app nor into the log.
func TestThreat28_OddUpstreams(t *testing.T) {
	t.Parallel()
	w, api, wechat := standInWorld(t, setup{options: "\tdebug", site: "\tlog"}, "", ok)
	const echo = "/wxa/x?access_token=canary-token-1"
	hijacked := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, answer)
		}
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // in what the app gets
	}{
		{"early hints", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "<"+echo+">")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			w.Header().Del("Link")
			ok(w, r)
		}, `"errcode":0`},
		{"announced trailer", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Echo")
			ok(w, r)
			w.Header().Set("X-Echo", echo)
		}, `"errcode":0`},
		{"trailer of a picture", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "\x89PNG"+strings.Repeat("x", 10000)+"end")
			w.Header().Set(http.TrailerPrefix+"X-Echo", echo)
		}, "end"},
		{"header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Echo", echo)
			ok(w, r)
		}, `"errcode":0`},
		{"status", hijacked("HTTP/1.1 200 " + echo + "\r\nContent-Length: 2\r\n\r\n{}"), "{}"},
		{"JSON", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"url":%q}`, r.RequestURI)
		}, "wechat_unavailable"},
		{"refusal", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"errcode":40001,"errmsg":%q}`, r.RequestURI)
		}, "wechat_unavailable"},
		{"not found", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no "+r.RequestURI, http.StatusNotFound)
		}, "wechat_unavailable"},
		{"error of a server", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, `{"errcode":-1,"errmsg":%q}`, r.RequestURI)
		}, "wechat_unavailable"},
		{
			"malformed trailer",
			hijacked("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"3\r\n\xff\xd8!\r\n0\r\n" + echo + "\r\n\r\n"),
			"\xff\xd8!",
		},
		{"malformed head", hijacked(echo + "\r\n\r\n"), "wechat_unavailable"},
	} {
		wechat.script(tt.answer)
		got := everything(t, api, request(api, "POST", "/wxa/msg_sec_check", "{}"))
		if strings.Contains(got, "canary") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: the app gets %q", tt.name, got)
		}
	}
	w.gate.printed(t, 0, "the answer is not HTTP") // to the last call
	for line := range strings.Lines(w.out.String()) {
		if strings.Contains(line, "canary-token") {
			t.Errorf("the log holds the token: %s", line)
		}
	}
}

// everything sends a request and returns all that comes back, to the end of the
// connection.
func everything(tb testing.TB, addr, request string) string {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, request)
	b, err := io.ReadAll(conn)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}
