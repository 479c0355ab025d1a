// Package e2e_test drives the whole product as its users do: a real gate in a
// process of its own between a raw client, an app that reports every byte it is
// sent, and the simulator of WeChat.
//
// It owns the view from outside: the wire (docs/design.md#wire), the attacks of
// docs/threats.md over raw sockets, kills, reloads, and all output of the
// process. It must not know the insides: of this module it imports the Caddy
// modules, the public simulator, the probe's table and wires, and the check of
// a file that a kill has left.
package e2e_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/wxgate/wxgate/caddymodule"
	"github.com/wxgate/wxgate/caddymodule/logformat"
)

// childEnv makes this test binary the product: the same modules, the same commands.
const childEnv = "WXGATE_E2E_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		// The tests wait for processes most of the time. -parallel overrides this.
		flag.Set("test.parallel", "6")
		debug.SetGCPercent(400)
		os.Exit(m.Run())
	}
	go func() {
		// The parent holds the other end of the pipe; this process ends with
		// it.
		io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	if len(os.Args) > 1 && os.Args[1] == "run" { // as in cmd/wxgate
		if err := logformat.BePatient(); err != nil {
			panic(err)
		}
	}
	caddycmd.Main()
}

// slow leaves a test out of a short run.
func slow(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("it waits or repeats for long")
	}
}

// patience bounds every wait for something that must come. No test asserts how
// long anything takes.
const patience = 30 * time.Second

// process is one run of the product.
type process struct {
	cmd    *exec.Cmd
	out    *output
	stdin  io.Closer
	exited chan struct{}
	err    error // once exited is closed
}

// launch starts the product with the arguments given, printing into out.
func launch(tb testing.TB, out *output, dir string, env []string, args ...string) *process {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	p := &process{cmd: exec.Command(self, args...), out: out, exited: make(chan struct{})}
	// Nothing of the tester's own environment: no proxy, no Caddy data, no secret.
	p.cmd.Env = append([]string{
		childEnv + "=1", "HOME=" + dir, "XDG_DATA_HOME=" + filepath.Join(dir, "data"),
		"XDG_CONFIG_HOME=" + filepath.Join(dir, "config"),
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "GOCOVERDIR=" + dir, "NO_COLOR=1",
		// Half of what a start costs is collecting what the start keeps.
		"GOGC=off", "GOMEMLIMIT=128MiB",
	}, env...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	if out.direct != nil {
		p.cmd.Stderr = out.direct
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	tb.Cleanup(func() {
		p.kill()
		if panicked := out.panicked(); panicked != "" {
			tb.Errorf("the process printed: %s", panicked[:min(len(panicked), 4000)])
		}
		for _, race := range ourRaces(out.String()) {
			tb.Errorf("the process printed: %s", race)
		}
		if tb.Failed() {
			tb.Logf("the process printed:\n%s", tail(out.String(), 6000))
		}
	})
	return p
}

// ourRaces returns the reports of the race detector that name a line of this
// module. Caddy has races of its own, between forward_auth and reverse_proxy
// for one.
func ourRaces(printed string) (reports []string) {
	for report := range strings.SplitSeq(printed, "==================") {
		if strings.Contains(report, "DATA RACE") &&
			strings.Contains(report, "github.com/wxgate/wxgate/") {
			reports = append(reports, report)
		}
	}
	return reports
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
	p.stdin.Close()
}

// wait returns the exit status.
func (p *process) wait(tb testing.TB) int {
	tb.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		tb.Fatal("the process does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop asks the process to end and returns its exit status.
func (p *process) stop(tb testing.TB) int {
	tb.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	return p.wait(tb)
}

// printed waits until the process has printed the text after what it had
// printed by then.
func (p *process) printed(tb testing.TB, from int, text string) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.out.String()[from:],
		text); time.Sleep(2 * time.Millisecond) {
		select {
		case <-p.exited:
			if !strings.Contains(p.out.String()[from:], text) {
				tb.Fatalf("the process ended (%v) without printing %q", p.err, text)
			}
			return
		default:
		}
		if time.Now().After(deadline) {
			tb.Fatalf("the process does not print %q", text)
		}
	}
}

// logs demands how often each text is printed after what was printed by then. A
// line may come after the answer that it is about, so logs waits for as many.
func (p *process) logs(tb testing.TB, from int, want map[string]int) {
	tb.Helper()
	for text, n := range want {
		count := func() int { return strings.Count(p.out.String()[from:], text) }
		eventually(tb, fmt.Sprintf("%q is logged %d times", text, n),
			func() bool { return count() >= n })
		if got := count(); got != n {
			tb.Errorf("%q is logged %d times, want %d", text, got, n)
		}
	}
}

// output keeps every byte that was printed.
type output struct {
	mu       sync.Mutex
	buf      bytes.Buffer
	expected string // in the lines that may tell of a panic

	direct *os.File // gets standard error instead, if not nil
}

// expect names the subject whose caught and logged panics the test wants.
func (o *output) expect(subject string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expected = subject
}

// panicked returns what was printed from the first unexpected panic on, or nothing.
func (o *output) panicked() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range strings.Lines(o.buf.String()) {
		if (strings.Contains(line, "panic: ") || strings.Contains(line, "panic serving")) &&
			(o.expected == "" || !strings.Contains(line, o.expected)) {
			_, after, _ := strings.Cut(o.buf.String(), line)
			return line + after
		}
	}
	return ""
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Len()
}

func tail(s string, n int) string { return s[max(len(s)-n, 0):] }

// nextPort hands out ports below those that the system gives to outgoing
// connections, so that a port stays free while its gate is down.
var nextPort = struct {
	sync.Mutex
	n int
}{n: 12000 + rand.IntN(18000)}

// freeAddr returns a loopback address that is in nobody's use.
func freeAddr(tb testing.TB) string { return freeAddrs(tb, 1) }

// freeAddrs returns the first of n addresses with ports in a row.
func freeAddrs(tb testing.TB, n int) string {
	tb.Helper()
	nextPort.Lock()
	defer nextPort.Unlock()
	for range 1000 {
		first := nextPort.n + 1
		nextPort.n += n
		free := true
		for port := first; port < first+n && free; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return fmt.Sprintf("127.0.0.1:%d", first)
		}
	}
	tb.Fatal("no free port")
	return ""
}

// eventually polls until ok holds.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			tb.Fatalf("it never comes about: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
