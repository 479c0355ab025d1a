package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// TestThreat47_BehindNginx_RefusalArrives: nginx as it comes out of the box makes a
// 502 of each connection that is reset under its upload.
func TestThreat47_BehindNginx_RefusalArrives(t *testing.T) {
	t.Parallel()
	for name, site := range map[string]string{"plain": "", "with access log": "\tlog"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{site: site})
			front := nginx(t, "location / { proxy_pass http://"+w.addr+"; }")
			live := w.login(t, "ada")
			for size, tries := range map[int]int{16 << 10: 20, 300 << 10: 20, 4 << 20: 5} {
				if testing.Short() {
					tries = (tries + 4) / 5
				}
				body := strings.Repeat("x", size)
				for target, token := range map[string]string{
					"/orders": caddytest.MadeUp, "/wx/login": "", "/wx/decrypt": live,
				} {
					for range tries {
						refusedUpload(t, "http://"+front+target, token, body)
					}
				}
			}
		})
	}
}

// refusedUpload wants the gate's refusal of an upload.
func refusedUpload(t *testing.T, url, token, body string) {
	t.Helper()
	r, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	if resp.StatusCode/100 != 4 || resp.Header.Get("X-Wxgate") != "1" {
		t.Errorf("%d bytes to %s: %s %v", len(body), url, resp.Status, resp.Header)
	}
}

// TestThreat47_BodyNeverComes_Answered: the gate waits for no body that it does not
// read, however a request announces it.
func TestThreat47_BodyNeverComes_Answered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{site: "\tlog"})
	token := w.login(t, "ada")
	for _, c := range []struct {
		line, lines string
		status      int
	}{
		{
			"POST /x",
			bearer(caddytest.MadeUp) + "\r\nExpect: 100-continue\r\nContent-Length: 10000", 401,
		},
		{"POST /x", bearer(caddytest.MadeUp) + "\r\nContent-Length: 10000", 401},
		{"PUT /x", "Transfer-Encoding: chunked", 401},
		{"GET /wx/session", bearer(token) + "\r\nContent-Length: 5", 200},
		{"GET /wx/session", "Content-Length: 5", 401},
		{"GET /wx/login", "Content-Length: 5", 405},
		{"POST /wx/none", "Content-Length: 5", 404},
	} {
		t.Run(fmt.Sprint(c.line, " ", c.status), func(t *testing.T) {
			t.Parallel()
			conn, br := dial(t, w.addr)
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", c.line, c.lines)
			r, err := readReply(br, c.line[:strings.IndexByte(c.line, ' ')])
			if err != nil {
				t.Fatal(err)
			}
			r.made(t, c.status)
			if r.continued > 0 {
				t.Error("a refused call is asked for its body")
			}
			conn.(*net.TCPConn).CloseWrite()
			if _, err := io.Copy(io.Discard, br); err != nil {
				t.Errorf("behind the answer: %v", err)
			}
		})
	}
}

// nginx starts an nginx whose one site has the given lines, and returns its address.
func nginx(t *testing.T, lines string) (addr string) {
	t.Helper()
	need(t, "nginx")
	dir, addr := t.TempDir(), freeAddr(t)
	var temp strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "\t%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	conf := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_max_body_size 8m;
%[2]s
	server {
		listen %[3]s;
		%[4]s
	}
}
`, dir, temp.String(), addr, lines)
	if err := os.WriteFile(dir+"/nginx.conf", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	spawn(t, dir, nil, addr, "nginx", "-e", "stderr", "-c", dir+"/nginx.conf")
	return addr
}
