package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/cmd/internal/webtest"
)

// pageApp is an app that answers with what a page must not take for markup, that takes
// WebSockets, and else does as the sample app.
func pageApp(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/nasty":
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("X-Nasty", "<b>header</b>")
		fmt.Fprint(w, `<script>window.pwned = 1</script>`,
			`<img src=x onerror="window.pwned=1">`, "\u202e")
	case "/socket":
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"+
			"Upgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, buf) // an echo
	default:
		sampleApp(w, r)
	}
}

// startPage runs wxgate dev before pageApp, and returns the page's URL.
func startPage(t *testing.T, args ...string) (p *product, page string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	app := &http.Server{Handler: http.HandlerFunc(pageApp)}
	go app.Serve(l)
	t.Cleanup(func() { app.Close() })
	p = startDev(t, append([]string{l.Addr().String()}, args...)...)
	return p, p.find(`to try it with: (http://127\.0\.0\.1:\d+)`)
}

// TestPlayground_Chromium_Works drives the page in a real browser: by keyboard at a phone's
// width, on a desk, in both languages, in the light and in the dark.
func TestPlayground_Chromium_Works(t *testing.T) {
	t.Parallel()
	node, chromium := needBrowser(t)
	_, page := startPage(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "testdata/playground.mjs", page,
		"../internal/playground/page")
	home, err := os.MkdirTemp("", "") // a short path, for Chromium's socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	cmd.Env = append(os.Environ(), "CHROMIUM="+chromium, "HOME="+home, "TMPDIR="+home,
		"no_proxy=*")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// needBrowser returns node and Chromium, and skips without them.
func needBrowser(t *testing.T) (node, chromium string) {
	t.Helper()
	lacks := func(what string) {
		if os.Getenv("WXGATE_REQUIRE_ALL") != "" {
			t.Fatalf("the page needs %s", what)
		}
		t.Skipf("the page needs %s, which is not here", what)
	}
	npm := os.Getenv("WXGATE_NPM")
	_, err := os.Stat(filepath.Join(npm, "node_modules/playwright-core"))
	if npm == "" || err != nil {
		lacks("playwright-core in the folder that WXGATE_NPM names")
	}
	if node, err = exec.LookPath("node"); err != nil {
		lacks("node")
	}
	if chromium, err = exec.LookPath("chromium"); err != nil {
		lacks("chromium")
	}
	return node, chromium
}

// TestDev_Playground_OwnApp: the page shows what an app of the developer's own received,
// and WebSockets pass the gate as without the page.
func TestDev_Playground_OwnApp(t *testing.T) {
	t.Parallel()
	p, page := startPage(t, "--user", "alice")
	checkLoopbackOnly(t, page)
	gate, token := p.find(`curl (\S+)/ -H`), p.find(`-H '(.*)'`)
	name, value, _ := strings.Cut(token, ": ")
	call := func(path string, headers ...[2]string) (x struct {
		By      string
		Explain []struct{ Name, Text string }
		App     struct {
			Lines []struct{ Name, Value, By string }
		}
		Answer struct{ Status int }
	},
	) {
		t.Helper()
		in, err := json.Marshal(map[string]any{
			"method": "GET", "path": path, "headers": append(headers, [2]string{name, value}),
		})
		if err != nil {
			t.Fatal(err)
		}
		_, _, answer := webtest.Ask(t, "POST", page+"/api/exchange", string(in),
			"Origin: "+page, "Content-Type: application/json")
		if err := json.Unmarshal([]byte(answer), &x); err != nil {
			t.Fatal(err)
		}
		return x
	}
	x := call("/orders", [2]string{"X_Wx_Openid", "forged"})
	by := map[string]string{}
	for _, l := range x.App.Lines {
		by[l.Name] = l.By + " " + l.Value
	}
	openID := p.find(`alice of \S+ has the openid (\S+)`)
	if x.By != "app" || by["X-Wx-Openid"] != "gate "+openID || by["Via"] != "proxy 1.1 Caddy" ||
		by["X_wx_openid"] != "" || by["Authorization"] != "" {
		t.Errorf("by %s, %q", x.By, by)
	}
	if explained := fmt.Sprint(x.Explain); !strings.Contains(explained, "no rule opens it") ||
		!strings.Contains(explained, "X_wx_openid: only the gate sets this header") {
		t.Errorf("explained: %s", explained)
	}
	upgrade := [][2]string{
		{"Connection", "Upgrade"},
		{"Upgrade", "websocket"},
		{"Sec-WebSocket-Version", "13"},
		{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
	}
	if x := call("/socket", upgrade...); x.Answer.Status != 101 || x.By != "app" {
		t.Errorf("a WebSocket of the page: %+v", x)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(gate, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: x\r\n%s\r\n", token)
	for _, h := range upgrade {
		fmt.Fprintf(conn, "%s: %s\r\n", h[0], h[1])
	}
	fmt.Fprint(conn, "\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("a WebSocket of another client: %v, %v", resp, err)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := r.ReadString('\n'); line != "hello\n" {
		t.Errorf("the echo is %q, %v", line, err)
	}
}

// TestRun_Playground_Unknown: wxgate run has neither the page nor the handler by which it
// looks, whatever the configuration asks for.
func TestRun_Playground_Unknown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "c.json")
	err := os.WriteFile(file, []byte(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {
		"s": {"listen": ["127.0.0.1:0"], "routes": [{"handle": [{"handler": "wxgate_tap"}]}]}}}}}`),
		0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "run", "--config", file)
	cmd.Env = []string{childEnv + "=1", "HOME=" + dir}
	b, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); !exited ||
		!strings.Contains(string(b), "unknown module: http.handlers.wxgate_tap") {
		t.Errorf("%v\n%s", err, b)
	}
}
