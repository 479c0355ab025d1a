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

// fell returns the rows of docs/threats.md that fell.
func (r probeReport) fell() (threats []int) {
	for _, row := range r.Rows {
		if row.Result == "fell" {
			threats = append(threats, row.Threat)
		}
	}
	slices.Sort(threats)
	return slices.Compact(threats)
}

// probe runs the command against a site and returns its exit status and report.
// The token goes by a file.
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
			tb.Errorf("%d %s as %s: %s: %s", row.Threat, row.Attack, row.As, row.Result,
				row.Evidence)
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

// TestProbe_TheGateHolds runs the command against the gate, with the echo app
// and without.
func TestProbe_TheGateHolds(t *testing.T) {
	t.Parallel()
	for seesAll, path := range map[bool]string{true: "/admin", false: "/optional/x?a=b"} {
		if !seesAll && testing.Short() {
			continue // it sees less of the same
		}
		s := setup{
			auth: mixed.auth, options: "\tservers {\n\t\tprotocols h1 h2 h2c\n\t}\n" +
				"\tauto_https disable_redirects\n\tskip_install_trust\n\tlocal_certs",
		}
		w := prepareWorld(t, s)
		url, args := "http://"+w.addr+path, []string{"--insecure", "--public", "/public/"}
		if seesAll {
			w.app = &app{addr: freeAddr(t)} // the probe itself
			args = append(args, "--echo", w.app.addr)
			secure := freeAddr(t)
			url = "https://localhost:" + portOf(secure) + path
			w.sites = fmt.Sprintf("https://localhost:%s {\n\tbind 127.0.0.1\n"+
				"\twechat_auth {\n%s\n\t}\n\treverse_proxy %s\n}\n",
				portOf(secure), s.auth, w.app.addr)
		}
		w.start(t)
		if addr, ok := strings.CutPrefix(url, "https://"); ok {
			w.certified(t, strings.TrimSuffix(addr, path))
		}
		status, r := w.probe(t, w.login(t, "ada"), append(args, url)...)
		r.checkHolds(t, status, seesAll)
	}
}

// TestProbe_OtherGatesFall holds that the probe finds what Caddy's own means
// leave open.
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
	ask := fmt.Sprintf(" %s {\n\t\turi /auth\n\t\tcopy_headers X-WX-OPENID\n\t}\n"+
		"\treverse_proxy %s", auth.Listener.Addr(), echo)
	for _, tt := range []struct {
		name, site string
		token      string
		want       []int // at least
	}{
		{"forward_auth", "\tforward_auth" + ask, good, []int{2, 3, 4, 5}},
		{
			"forward_auth with an exempted path",
			"\t@closed not path /public/*\n\tforward_auth @closed" + ask, good,
			[]int{1, 2, 3, 4, 5, 10},
		},
		{
			"a header set for everybody",
			"\treverse_proxy " + echo + " {\n\t\theader_up X-WX-OPENID somebody\n\t}", "",
			[]int{1, 2, 4, 5},
		},
	} {
		w := prepareWorld(t, setup{})
		text := "{\n\tadmin " + w.admin + "\n}\n\n" + siteAt(w.addr, tt.site)
		w.run(t, "--adapter", "caddyfile", "--config", w.write(t, "Caddyfile", text))
		args := []string{"--echo", echo, "http://" + w.addr + "/admin"}
		if strings.Contains(tt.site, "/public/*") {
			args = append(args, "--public", "/public/")
		}
		status, r := w.probe(t, tt.token, args...)
		for _, threat := range tt.want {
			if status != 1 || !slices.Contains(r.fell(), threat) {
				t.Errorf("%s: status %d, %v fell, want %v at least", tt.name, status, r.fell(),
					tt.want)
				break
			}
		}
		t.Logf("%s: %v fell", tt.name, r.fell())
		w.gate.stop(t)
	}
}
