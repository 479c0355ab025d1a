package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// probeReport is what `wechat probe --json` prints.
type probeReport struct {
	Seen  string
	HTTP2 bool
	Rows  []probeRow
}

type probeRow struct {
	Threat                       int
	Attack, As, Result, Evidence string
}

// fell returns the rows of THREATS.md that fell.
func (r probeReport) fell() (threats []int) {
	for _, row := range r.Rows {
		if row.Result == "fell" {
			threats = append(threats, row.Threat)
		}
	}
	slices.Sort(threats)
	return slices.Compact(threats)
}

// probe runs the command against a site and returns its exit status and report. The token goes by a file.
func (w *world) probe(tb testing.TB, token string, args ...string) (status int, r probeReport) {
	tb.Helper()
	args = append([]string{"wechat", "probe", "--json"}, args...)
	if token != "" {
		args = append(args, "--header-file", w.write(tb, "header", bearer(token)+"\n"))
	}
	status, printed := w.command(tb, args...)
	if strings.Contains(printed, "wxs_") && strings.Contains(printed, token) && token != "" {
		tb.Error("the probe prints the token")
	}
	// The log of the command, such as the reason of its status, comes before or after.
	if from := strings.Index(printed, "{\n"); from >= 0 {
		if err := json.NewDecoder(strings.NewReader(printed[from:])).Decode(&r); err != nil {
			tb.Fatal(err)
		}
	}
	if len(r.Rows) == 0 {
		tb.Fatalf("status %d without a report: %s", status, printed)
	}
	return status, r
}

// checkHolds demands that all was tried, but what is not to be seen, and held.
func (r probeReport) checkHolds(tb testing.TB, status int, seesAll bool) {
	tb.Helper()
	if status != 0 {
		tb.Errorf("status %d, want 0", status)
	}
	for _, row := range r.Rows {
		if row.Result == "fell" || seesAll && row.Result != "held" {
			tb.Errorf("%d %s as %s: %s: %s", row.Threat, row.Attack, row.As, row.Result, row.Evidence)
		}
	}
	if !r.HTTP2 {
		tb.Error("HTTP/2 was not tried")
	}
	held := 0
	for _, row := range r.Rows {
		if row.Result == "held" {
			held++
		}
	}
	if held < 200 {
		tb.Errorf("only %d of %d rows held", held, len(r.Rows))
	}
}

const bothHTTP = "\tservers {\n\t\tprotocols h1 h2 h2c\n\t}\n"

// TestProbe_TheGateHolds everything that the probe knows, seen both ways, with and without TLS, on a required and on an optional path.
func TestProbe_TheGateHolds(t *testing.T) {
	t.Parallel()
	secure := freeAddr(t)
	_, port, _ := strings.Cut(secure, ":")
	for _, seesAll := range []bool{true, false} {
		s := setup{auth: "\t\tpublic /public/*\n\t\toptional /optional/*", options: bothHTTP + "\tauto_https disable_redirects\n\tskip_install_trust\n\tlocal_certs"}
		w := prepareWorld(t, s)
		var args []string
		if seesAll {
			w.app = &app{addr: freeAddr(t)} // the probe itself
			args = []string{"--echo", w.app.addr}
		}
		w.sites = fmt.Sprintf("https://localhost:%s {\n\tbind 127.0.0.1\n\twechat_auth {\n%s\n\t}\n\treverse_proxy %s\n}\n", port, s.auth, w.app.addr)
		w.start(t)
		token := w.login(t, "ada")
		for _, url := range []string{"http://" + w.addr + "/admin", "http://" + w.addr + "/optional/x?a=b", "https://localhost:" + port + "/admin"} {
			status, r := w.probe(t, token, append(args, "--insecure", "--public", "/public/", url)...)
			r.checkHolds(t, status, seesAll)
			if want := map[bool]string{true: "echo", false: "reflection"}[seesAll]; r.Seen != want {
				t.Errorf("seen by %q, want %q", r.Seen, want)
			}
		}
		// Without a credential a public path is enough for what can be tried so.
		status, r := w.probe(t, "", append(args, "http://"+w.addr+"/public/x")...)
		if status != 0 || len(r.fell()) > 0 {
			t.Errorf("without a credential: status %d, %v fell", status, r.fell())
		}
		status, printed := w.command(t, append([]string{"wechat", "probe", "http://" + w.addr + "/admin"}, args...)...)
		if status != 2 || !strings.Contains(printed, "give one with -H") {
			t.Errorf("without a credential, on a path that needs one: status %d: %s", status, printed)
		}
		w.gate.stop(t)
	}
}

// TestProbe_OtherGatesFall: what Caddy's own means leave open is found.
func TestProbe_OtherGatesFall(t *testing.T) {
	slow(t)
	t.Parallel()
	const good = "wxs_0123456789abcdefghijklmnopqrstuvwxyzABCDE"
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+good {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-WX-OPENID", "oAdaAdaAdaAda")
	}))
	defer auth.Close()
	echo := freeAddr(t)
	for _, tt := range []struct {
		name, site string
		token      string
		want       []int // at least
	}{
		{"forward_auth", fmt.Sprintf("\tforward_auth %s {\n\t\turi /auth\n\t\tcopy_headers X-WX-OPENID\n\t}\n\treverse_proxy %s", auth.Listener.Addr(), echo), good, []int{2, 3, 4, 5}},
		{"forward_auth with an exempted path", fmt.Sprintf("\t@closed not path /public/*\n\tforward_auth @closed %s {\n\t\turi /auth\n\t\tcopy_headers X-WX-OPENID\n\t}\n\treverse_proxy %s", auth.Listener.Addr(), echo), good, []int{1, 2, 3, 4, 5, 10}},
		{"a header set for everybody", fmt.Sprintf("\treverse_proxy %s {\n\t\theader_up X-WX-OPENID somebody\n\t}", echo), "", []int{1, 2, 4, 5}},
	} {
		w := prepareWorld(t, setup{})
		_, port, _ := strings.Cut(w.addr, ":")
		from := w.out.Len()
		w.gate = w.launch(t, "run", "--adapter", "caddyfile", "--config", w.write(t, "Caddyfile", fmt.Sprintf("{\n\tadmin %s\n}\n\nhttp://:%s {\n\tbind 127.0.0.1\n%s\n}\n", w.admin, port, tt.site)))
		w.gate.printed(t, from, "serving initial configuration")
		args := []string{"--echo", echo, "http://" + w.addr + "/admin"}
		if strings.Contains(tt.site, "/public/*") {
			args = append(args, "--public", "/public/")
		}
		status, r := w.probe(t, tt.token, args...)
		for _, threat := range tt.want {
			if status != 1 || !slices.Contains(r.fell(), threat) {
				t.Errorf("%s: status %d, %v fell, want %v at least", tt.name, status, r.fell(), tt.want)
				break
			}
		}
		t.Logf("%s: %v fell", tt.name, r.fell())
		w.gate.stop(t)
	}
}

// TestWeChatCommand: the group shows what it has, and knows nothing else.
func TestWeChatCommand(t *testing.T) {
	t.Parallel()
	w := prepareWorld(t, setup{})
	if status, printed := w.command(t, "wechat"); status != 0 || !strings.Contains(printed, "probe") {
		t.Errorf("wechat: status %d: %s", status, printed)
	}
	for _, args := range [][]string{{"wechat", "prob"}, {"wechat", "probe"}, {"wechat", "probe", "--nonsense", "http://127.0.0.1"}} {
		if status, printed := w.command(t, args...); status == 0 || status != 2 && args[1] == "probe" {
			t.Errorf("%v: status %d: %s", args, status, printed)
		}
	}
}
