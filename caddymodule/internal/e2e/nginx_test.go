//go:build unix

package e2e_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// nginxWorld runs a configuration of examples/proxies/nginx behind its nginx, and
// returns the address of nginx. change edits the guide's files before.
func nginxWorld(t *testing.T, config string, change ...string) (w *world, front string) {
	t.Helper()
	need(t, "nginx")
	w, front = prepareWorld(t, setup{}), freeAddr(t)
	w.env = []string{
		"WX_SECRET=" + secretOf(appA), "WX_API=" + w.wechat.URL, "ADMIN=" + w.admin,
	}
	dir := t.TempDir()
	move := strings.NewReplacer("127.0.0.1:8088", front, "127.0.0.1:9000", w.addr,
		":9000", ":"+portOf(w.addr), "127.0.0.1:8080", w.app.addr)
	copyGuide(t, "proxies/nginx", dir, func(text string) string {
		return move.Replace(strings.NewReplacer(change...).Replace(text))
	})
	w.run(t, "--config", filepath.Join(dir, config), "--adapter", "caddyfile")
	startNginx(t, dir, front)
	return w, front
}

// TestGuide_Nginx_InFrontOfTheGate attacks through nginx (P1), and holds what the guide
// says of addresses, WebSockets and large bodies.
func TestGuide_Nginx_InFrontOfTheGate(t *testing.T) {
	slow(t)
	t.Parallel()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w, front := nginxWorld(t, "Caddyfile")
	code := codeBody(w.wechat.Code(appA, "ada"))
	token := raw(t, front, request("any.example.com", "POST", "/wx/login", code)).session(t).Token

	r := raw(t, front, request("any.example.com", "GET", "/orders", "", bearer(token),
		"X-Forwarded-For: 203.0.113.9", "X-WX-OPENID: victim"))
	if !r.fromApp() {
		t.Fatal(r)
	}
	got := r.received(t)
	got.check(t, w.who(appA, "ada"))
	for name, want := range map[string]string{
		"Host": "any.example.com", "X-Forwarded-For": "127.0.0.1",
	} {
		if v := got.Values(name); len(v) != 1 || !strings.HasPrefix(v[0], want) {
			t.Errorf("the app is told %s: %q, want %s", name, v, want)
		}
	}
	raw(t, front, request(front, "GET", "/orders", "")).problem(t, 401, "session_missing")

	// More than nginx takes by default: the answer is the gate's, and no 413.
	upload := strings.Repeat("x", 2<<20)
	raw(t, front, request(front, "POST", "/orders", upload)).problem(t, 401, "session_missing")

	conn, br := dial(t, front)
	io.WriteString(
		conn,
		handshake(front, "Connection: Upgrade", "Upgrade: websocket", bearer(token)),
	)
	if r, err := readReply(br, "GET"); err != nil || r.status != 101 || !r.fromApp() {
		t.Fatalf("the handshake is answered with %s, %v", r, err)
	}
	firstLine(t, br).check(t, w.who(appA, "ada"))
	io.WriteString(conn, "to and fro\n")
	if line, err := br.ReadString('\n'); err != nil || line != "to and fro\n" {
		t.Errorf("the echo is %q, %v", line, err)
	}

	// The same gate with the probe as its app.
	text, err := os.ReadFile(filepath.Join(moduleRoot, "examples/proxies/nginx/Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.NewReplacer(
		"{$ADMIN:localhost:2019}", w.admin, "{$WX_API:https://api.weixin.qq.com}", w.wechat.URL,
		":9000", ":"+portOf(w.addr), "127.0.0.1:8080", echo.Addr().String()).Replace(string(text))
	if status, said := w.reload(t, moved); status != 200 {
		t.Fatal(status, said)
	}
	attackThrough(t, front, token, echo)
}

// TestGuide_Nginx_WrongHost_IsNamed shows how the blank 200 comes, and that the last
// site of hosts.caddyfile prevents it.
func TestGuide_Nginx_WrongHost_IsNamed(t *testing.T) {
	t.Parallel()
	hostless := []string{"\t\t\tproxy_set_header Host $http_host;\n", ""}
	type answer struct {
		name, host string
		status     int
		body       string
	}
	for _, c := range []struct {
		change  []string
		answers []answer
	}{
		{nil, []answer{
			{"right Host", "api.example.com", 401, "session_missing"},
			{"a guest of the other site", "h5.example.com", 200, "/orders"},
			{"wrong Host", "www.example.com", 421, "No site has this Host"},
		}},
		{hostless, []answer{
			{"nginx sends no Host", "api.example.com", 421, "No site has this Host"},
		}},
		{
			append(slices.Clone(hostless), "http://:9000 {", "http://last.example.com:9000 {"),
			[]answer{{"without the last site", "api.example.com", 200, ""}},
		},
	} {
		_, front := nginxWorld(t, "hosts.caddyfile", c.change...)
		for _, want := range c.answers {
			r := raw(t, front, request(want.host, "GET", "/orders", ""))
			if r.status != want.status || !strings.Contains(r.body, want.body) ||
				(want.body == "") != (r.body == "") || r.fromGate() != (want.status == 401) {
				t.Errorf("%s: answered with %s", want.name, r)
			}
		}
	}
}
