//go:build unix

package e2e_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

// proxies start what stands in front of the gate in a guide of examples/proxies, in a
// folder with the guide's files.
var proxies = map[string]func(t *testing.T, dir, front string){
	"nginx-auth-request": startNginx,
	"haproxy": func(t *testing.T, dir, front string) {
		need(t, "haproxy")
		spawn(t, dir, nil, front, "haproxy", "-db", "-f", "haproxy.cfg")
	},
	"caddy-forward-auth": func(t *testing.T, dir, front string) {
		w := prepareWorld(t, setup{})
		text, err := os.ReadFile(filepath.Join(dir, "Caddyfile"))
		if err != nil {
			t.Fatal(err)
		}
		own := strings.Replace(string(text), "admin off", "admin "+w.admin, 1)
		own = strings.Replace(own, "{$SITE:api.example.com}", "http://"+front, 1)
		w.run(t, "--config", w.write(t, "front", own), "--adapter", "caddyfile")
	},
}

// startNginx runs a guide's nginx.conf in its folder.
func startNginx(t *testing.T, dir, front string) {
	t.Helper()
	need(t, "nginx")
	own := "daemon off; pid " + dir + "/pid; error_log stderr; master_process off;"
	conf := filepath.Join(dir, "nginx.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	var temp string
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp += kind + "_temp_path " + dir + "/" + kind + "; "
	}
	moved := own + strings.Replace(string(text), "http {", "http { access_log off; "+temp, 1)
	if err := os.WriteFile(conf, []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	spawn(t, dir, nil, front, "nginx", "-e", "stderr", "-c", conf)
}

// copyGuide copies the files of a guide into a folder, moved to other addresses.
func copyGuide(t *testing.T, guide, dir string, move func(string) string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(moduleRoot, "examples", guide, "*"))
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(name)),
				[]byte(move(string(text))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// attackThrough sends the table of the probe through a proxy at front, whose app is echo. The
// rows of some threats may fall.
func attackThrough(t *testing.T, front, token string, echo net.Listener, except ...int) {
	t.Helper()
	report, err := probe.Run(t.Context(), probe.Config{
		URL: "http://" + front + "/orders", Credential: []string{bearer(token)},
		Identity: append(probe.DefaultIdentity, "X-WX-PHONE", "X-WX-ASSERTION", "X-WX-ANY"),
		Echo:     echo, Timeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	held := 0
	for _, row := range report.Rows {
		switch {
		case row.Result == probe.Held:
			held++
		case row.Result == probe.Fell && !slices.Contains(except, row.Threat):
			t.Errorf("%d %s as %s: %s", row.Threat, row.Attack, row.As, row.Evidence)
		}
	}
	if held < 100 {
		t.Errorf("%d rows held", held)
	}
}

// TestGuide_Proxies_LetNothingThrough attacks the gate by way of each proxy that can run
// here (docs/threats.md#t48): no forged identity reaches the app, a refusal is the
// gate's own, and an outage is no refusal.
func TestGuide_Proxies_LetNothingThrough(t *testing.T) {
	slow(t)
	for guide, start := range proxies {
		t.Run(guide, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{auth: "\t\tverify"})
			token := w.login(t, "ada")
			echo, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			front, dir := freeAddr(t), t.TempDir()
			move := strings.NewReplacer(
				"127.0.0.1:8088", front, "127.0.0.1:9000", w.addr,
				"127.0.0.1:8080", echo.Addr().String())
			copyGuide(t, "proxies/"+guide, dir, move.Replace)
			start(t, dir, front)

			// Which paths are whose is the proxy's decision here. Caddy has no way to
			// remove trailers: its guide says so.
			except := []int{12}
			if guide == "caddy-forward-auth" {
				except = append(except, 4)
			}
			attackThrough(t, front, token, echo, except...)

			for header, code := range map[string]string{
				"": "session_missing", bearer(token[:len(token)-4] + "AAAA"): "session_invalid",
			} {
				r, err := exchange(front, request(front, "GET", "/orders", "", header))
				if err != nil || r.status != 401 || !strings.Contains(r.body, `"`+code+`"`) ||
					r.header.Get("X-Wxgate") == "" || r.header.Get("Www-Authenticate") == "" {
					t.Errorf("%s: %v %v", code, r, err)
				}
			}
			w.gate.stop(t)
			r, err := exchange(front, request(front, "GET", "/orders", "", bearer(token)))
			if err != nil || r.status != http.StatusServiceUnavailable ||
				r.header.Get("Retry-After") == "" {
				t.Errorf("without the gate: %v %v", r, err)
			}
		})
	}
}
