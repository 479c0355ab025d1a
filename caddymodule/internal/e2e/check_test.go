package e2e_test

import (
	"net"
	"regexp"
	"testing"
)

// silence accepts connections and never answers.
func silence(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close() // until the test is over
		}
	}()
	return l.Addr().String()
}

// TestCheck_NothingAnswers_NamesEachHop: nothing that the gate needs answers. The
// command ends by itself, and the line of each hop says whether that was reached.
func TestCheck_NothingAnswers_NamesEachHop(t *testing.T) {
	t.Parallel()
	slow(t)
	hole, gone := silence(t), freeAddr(t)
	w := prepareWorld(t, setup{
		base:   "https://" + hole,
		wechat: "\t\tstore redis " + hole + "\n\t\tseal_key {env.WX_SEAL}",
		sites:  siteAt(freeAddr(t), "\twechat_auth\n\treverse_proxy "+gone),
	})
	w.env = []string{"WX_SEAL=" + fleetSealKey}
	file := w.write(t, "Caddyfile", w.caddyfile(w.setup))
	status, said := w.command(t, "wechat", "check", "--adapter", "caddyfile", "--config", file,
		"--address", hole)
	if status != 1 {
		t.Errorf("it ends with %d", status)
	}
	for _, want := range []string{
		`ok +configuration `,
		`ok +secrets +all are set`,
		`ok +dns +127\.0\.0\.1: 127\.0\.0\.1`,
		`ok +connect +` + hole + `: connected`,
		`FAILED +tls +` + hole + `: `,
		`FAILED +store +redis:.*` + hole + `.*: .+`,
		`ok +upstream +` + w.app.addr + `: connected`,
		`FAILED +upstream +` + gone + `: .*refused`,
		`FAILED +gate +` + hole + `: .+`,
		`\w+ wechat check: 4 checks failed`,
	} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(said) {
			t.Errorf("no line is like %q", want)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
}
