package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

// runProbe runs the command with a standard input.
func runProbe(t *testing.T, stdin string, args ...string) (status int, out, said string) {
	t.Helper()
	return caddytest.RunCommandWith(t, probeCommand(), strings.NewReader(stdin), args...)
}

// reflectingSite is a site that shows what reached it, behind a gate that knows
// one user by a token; a lying one lets identity headers through.
func reflectingSite(t *testing.T, lying bool) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known := len(r.Header["Authorization"]) == 1 &&
			r.Header.Get("Authorization") == "Bearer "+caddytest.Canary
		if !known && r.Header["Authorization"] != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "X-Probe-Id: %s\n", r.Header.Get("X-Probe-Id"))
		if known {
			io.WriteString(w, "X-Wx-Openid: oAdaAdaAda\n")
		}
		if lying {
			fmt.Fprintf(w, "X-Wx-Unionid: %s\n", r.Header.Get("X-Wx-Unionid"))
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestProbeExitStatus(t *testing.T) {
	honest, lying := reflectingSite(t, false), reflectingSite(t, true)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "headers")
	header := "Authorization: Bearer " + caddytest.Canary
	if err := os.WriteFile(file, []byte("\n"+header+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PROBE_TOKEN", caddytest.Canary)
	const held = " held, 0 FELL, "
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		want   string
		stdin  string
	}{
		{"honest", []string{honest}, 0, held, ""},
		{"honest, as a user", []string{"-H", header, honest}, 0, held, ""},
		{
			"from the environment",
			[]string{"-H", "Authorization: Bearer {env.PROBE_TOKEN}", honest},
			0, held, "",
		},
		{"from a file", []string{"--header-file", file, honest}, 0, held, ""},
		{"from standard input", []string{"--header-file", "-", honest}, 0, held, header + "\r\n"},
		{"lying", []string{lying}, probeFell, "the app saw X-Wx-Unionid: forged-", ""},
		{"lying, as a user", []string{"-H", header, lying}, probeFell, " rows fell", ""},

		{"no URL", nil, probeBlind, "give one URL", ""},
		{"two URLs", []string{honest, lying}, probeBlind, "give one URL", ""},
		{"no such flag", []string{"--ecco", "x", honest}, probeBlind, "unknown flag: --ecco", ""},
		{"a bad duration", []string{"--timeout", "soon", honest}, probeBlind, "--timeout", ""},
		{"no time", []string{"--timeout", "0s", honest}, probeBlind, "too short", ""},
		{"not a URL", []string{"localhost:80"}, probeBlind, "not of the form", ""},
		{
			"an address in use",
			[]string{"--echo", taken.Addr().String(), honest},
			probeBlind, "starting the echo app", "",
		},
		{
			"no such file",
			[]string{"--header-file", file + "x", honest},
			probeBlind, "reading headers", "",
		},
		{
			"not a header",
			[]string{"-H", caddytest.Canary, honest},
			probeBlind, "not of the form", "",
		},
		{
			"empty placeholder",
			[]string{"-H", "Authorization: Bearer {env.PROBE_NOTHING}", honest},
			probeBlind, "{env.PROBE_NOTHING}", "",
		},
		{
			"braces that are no placeholder",
			[]string{"-H", `Cookie: {"a":"` + caddytest.Canary + `"}`, honest},
			probeBlind, "told no X-WX-OPENID", "",
		},
		{"no server", []string{"http://127.0.0.1:1/"}, probeBlind, "cannot see through", ""},
		{"bad credential", []string{"-H", header + "x", honest}, probeBlind, "not good here", ""},
	} {
		status, out, said := runProbe(t, tt.stdin, tt.args...)
		if status != tt.status || !strings.Contains(out+said, tt.want) {
			t.Errorf("%s: status %d, want %d with %q:\n%s\n%s",
				tt.name, status, tt.status, tt.want, said, out)
		}
		if strings.Contains(out+said, caddytest.Canary) {
			t.Errorf("%s: the credential is printed", tt.name)
		}
		if (status == probeBlind) != (out == "") {
			t.Errorf("%s: with status %d it prints %q", tt.name, status, out)
		}
	}
}

func TestProbeJSON(t *testing.T) {
	status, out, said := runProbe(t, "", "--json", reflectingSite(t, true))
	var report probe.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if status != probeFell || report.Seen != probe.SeenInAnswer || report.Count(probe.Fell) == 0 ||
		report.Count(probe.Held) == 0 || report.Count(probe.NotTried) == 0 {
		t.Errorf("status %d, %s: %+v", status, said, report)
	}
}
