package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// apiCalls returns how many calls of apps are counted with a path and a result.
func (w *world) apiCalls(tb testing.TB, path, result string) string {
	tb.Helper()
	series := fmt.Sprintf(`caddy_wechat_api_calls_total{path=%q,result=%q}`, path, result)
	return fmt.Sprint(w.metrics(tb)[series])
}

// brokenLine waits for what the log says of the call with a number.
func (w *world) brokenLine(tb testing.TB, id string) (line string) {
	tb.Helper()
	eventually(tb, "the log names the call", func() bool {
		for l := range strings.Lines(w.out.String()) {
			if strings.Contains(l, "answer broke off") && strings.Contains(l, id) {
				line = l
			}
		}
		return line != ""
	})
	return line
}

// TestOpenAPI_BreaksOff counts an answer that breaks off as no success, and
// logs which call it was and why.
func TestOpenAPI_BreaksOff(t *testing.T) {
	t.Parallel()
	w, api, wechat := standInWorld(t, setup{options: "\tmetrics"}, "\t\ttimeout 500ms", ok)
	begin := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "1000000")
		io.WriteString(w, "\xff\xd8"+strings.Repeat("x", 5000))
		w.(http.Flusher).Flush()
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		begin(w)
		<-r.Context().Done()
	}
	for _, tt := range []struct {
		name, method, path, pattern, why string
		answer                           http.HandlerFunc
	}{
		{
			"truncated", "POST", "/wxa/getwxacode", "/wxa/getwxacode", "unexpected EOF",
			func(w http.ResponseWriter, _ *http.Request) { begin(w) },
		},
		{
			"out of time", "POST", "/cgi-bin/message/x/y", "/cgi-bin/message/*",
			"no answer in time", hang,
		},
		{
			"out of time, no body", "GET", "/cgi-bin/media/get", "/cgi-bin/media/get",
			"no answer in time", hang,
		},
		{
			"a refusal, truncated", "POST", "/wxa/getwxacodeunlimit", "/wxa/getwxacodeunlimit",
			"unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				io.WriteString(w, `{"errcode":40001`)
			},
		},
	} {
		wechat.script(tt.answer)
		body := map[string]string{"POST": "{}"}[tt.method]
		got := everything(t, api, request(api, tt.method, tt.path, body))
		head, _, _ := strings.Cut(got, "\r\n\r\n")
		_, id, ok := strings.Cut(head, "\r\nX-Openapi-Seqid: ")
		if !ok {
			t.Fatalf("%s: not numbered: %s", tt.name, head)
		}
		id, _, _ = strings.Cut(id, "\r\n")
		line := w.brokenLine(t, id)
		for _, want := range []string{
			`"level":"warn"`, `"path":"` + tt.pattern + `"`, `"appid":"` + appA + `"`, tt.why,
		} {
			if !strings.Contains(line, want) {
				t.Errorf("%s: no %s in %s", tt.name, want, line)
			}
		}
		for _, result := range []string{"broken_off", "ok", "client_gone"} {
			n := w.apiCalls(t, tt.pattern, result)
			if (n == "1") != (result == "broken_off") {
				t.Errorf("%s: counted as %s %s times", tt.name, result, n)
			}
		}
	}
	wechat.script(ok)
	ask(t, api, "POST", "/wxa/msg_sec_check", "{}")
	userCall(t, api, "revoke", map[string]any{"openid": "nobody"}).made(t, 204)
	for _, path := range []string{"/wxa/msg_sec_check", "/wx/user/revoke"} {
		if n := w.apiCalls(t, path, "ok"); n != "1" {
			t.Errorf("%s: counted as ok %s times, want 1", path, n)
		}
	}
}

// TestOpenAPI_ClientGone counts an answer that the app itself broke off apart,
// without a warning.
func TestOpenAPI_ClientGone(t *testing.T) {
	t.Parallel()
	w, api, wechat := standInWorld(t, setup{options: "\tmetrics"}, "", ok)
	asked := make(chan bool, 1)
	for _, tt := range []struct {
		path   string
		begins bool
	}{{"/wxa/getwxacode", true}, {"/wxa/getwxacodeunlimit", false}} {
		wechat.script(func(w http.ResponseWriter, r *http.Request) {
			asked <- true
			if tt.begins {
				io.WriteString(w, "\xff\xd8")
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		})
		conn, err := net.Dial("tcp", api)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, request(api, "POST", tt.path, "{}"))
		<-asked
		var id string
		if tt.begins {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			id = resp.Header.Get("X-Openapi-Seqid")
		}
		conn.Close()
		eventually(t, "the call is counted",
			func() bool { return w.apiCalls(t, tt.path, "client_gone") == "1" })
		if tt.begins {
			if line := w.brokenLine(t, id); !strings.Contains(line, `"level":"info"`) {
				t.Errorf("the log says %s", line)
			}
		}
		for _, result := range []string{"ok", "broken_off"} {
			if n := w.apiCalls(t, tt.path, result); n != "0" {
				t.Errorf("%s: counted as %s %s times", tt.path, result, n)
			}
		}
	}
}
