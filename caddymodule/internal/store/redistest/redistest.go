// Package redistest starts real Redis or Valkey servers for tests, alone, behind sentinels or as a cluster, and makes them fail in the ways that real ones do. It owns processes, ports and
// certificates; it must not know what is stored, nor the engine that is under test.
package redistest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// patience is how long a server may take to do what was asked before the test fails.
const patience = 15 * time.Second

// Server is one process of redis-server. Its methods fail the test when they cannot do what they say.
type Server struct {
	Addr string      // host:port
	TLS  *tls.Config // with TLS: what a client needs, a certificate of its own included; else nil
	Dir  string      // of the data and of the log

	tb       testing.TB
	binary   string
	lines    []string // of the configuration file
	sentinel bool
	password string
	proc     *process
}

// Option changes how a server is started.
type Option func(*Server)

// With adds one line to the configuration file, such as "maxmemory 3mb".
func With(line string) Option { return func(s *Server) { s.lines = append(s.lines, line) } }

// Password makes the default user need one; Do uses it.
func Password(p string) Option {
	return func(s *Server) {
		s.password = p
		s.lines = append(s.lines, "requirepass "+p, "masterauth "+p)
	}
}

// Start runs a server on a free port of the loopback interface until the test ends. It keeps nothing on disk unless With("appendonly yes") is given.
func Start(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	s := newServer(tb)
	for _, o := range opts {
		o(s)
	}
	s.start()
	return s
}

// newServer chooses a free port and a directory.
func newServer(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{tb: tb, Dir: tb.TempDir(), binary: find(tb)}
	s.setPort(freePort(tb))
	s.lines = []string{"bind 127.0.0.1", "protected-mode no", "daemonize no", "dir " + s.Dir, `save ""`, "repl-diskless-sync-delay 0"}
	tb.Cleanup(func() {
		if s.proc != nil {
			s.proc.kill()
		}
		if tb.Failed() {
			log, _ := os.ReadFile(s.logPath())
			tb.Logf("end of the log of %s:\n%s", s.Addr, log[max(0, len(log)-1000):])
		}
	})
	return s
}

// find returns the path of the server's binary. Without one the test is skipped, or fails where nothing may be skipped.
func find(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("WXGATE_REQUIRE_ALL") == "1" {
		tb.Fatal("neither redis-server nor valkey-server is installed, and WXGATE_REQUIRE_ALL=1 forbids to skip")
	}
	tb.Skip("neither redis-server nor valkey-server is installed")
	return ""
}

// freePort returns a port that nobody listened on just now.
func freePort(tb testing.TB) int {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func (s *Server) setPort(port int) { s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Port returns the port of Addr.
func (s *Server) Port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

func (s *Server) logPath() string { return filepath.Join(s.Dir, "log") }

// start runs the process and waits until it answers. Another process may have taken the port in the meantime; then the next one is tried.
func (s *Server) start() {
	s.tb.Helper()
	for range 5 {
		if s.run() {
			return
		}
		s.setPort(freePort(s.tb))
	}
	s.tb.Fatal("starting redis-server: no luck with five ports")
}

// run reports false when the port was taken.
func (s *Server) run() bool {
	s.tb.Helper()
	conf := filepath.Join(s.Dir, "conf")
	if _, err := os.Stat(conf); err != nil || !s.sentinel { // a sentinel keeps what it has learnt in its file
		if err := os.WriteFile(conf, []byte(strings.Join(append(s.lines, s.listen()), "\n")), 0o600); err != nil {
			s.tb.Fatal(err)
		}
	}
	args := []string{conf}
	if s.sentinel {
		args = append(args, "--sentinel")
	}
	proc, err := spawn(s.binary, args, s.logPath())
	if err != nil {
		s.tb.Fatalf("starting redis-server: %v", err)
	}
	s.proc = proc
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if proc.ended() {
			log, _ := os.ReadFile(s.logPath())
			if bytes.Contains(log, []byte("in use")) {
				return false
			}
			s.tb.Fatalf("starting redis-server: it ended at once:\n%s", log)
		}
		if s.answers() {
			return true
		}
	}
	s.tb.Fatalf("starting redis-server: no answer from %s", s.Addr)
	return false
}

// listen is the line of the configuration that says where to listen.
func (s *Server) listen() string {
	if s.TLS != nil {
		return "port 0\ntls-port " + s.Port()
	}
	return "port " + s.Port()
}

// answers reports whether the server says anything to a PING.
func (s *Server) answers() bool {
	conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	if s.TLS != nil {
		conn = tls.Client(conn, s.TLS)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	return err == nil
}

// Try sends one command on a connection of its own, as the default user, and returns the answer.
func (s *Server) Try(args ...string) rueidis.RedisResult {
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, Password: s.password, TLSConfig: s.TLS, AlwaysRESP2: true, ForceSingleClient: true, DisableCache: true, DisableRetry: true, PipelineMultiplex: -1,
		ReadBufferEachConn: 1 << 12, WriteBufferEachConn: 1 << 12, Dialer: net.Dialer{Timeout: 2 * time.Second}, ConnWriteTimeout: patience,
	})
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	defer c.Close()
	return c.Do(s.tb.Context(), c.B().Arbitrary(args...).Build())
}

// Do is Try that fails the test when the answer is an error.
func (s *Server) Do(args ...string) rueidis.RedisMessage {
	s.tb.Helper()
	m, err := s.Try(args...).ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		s.tb.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return m
}

// Await asks again and again until ok is content with the text of the answer.
func (s *Server) Await(ok func(string) bool, args ...string) {
	s.tb.Helper()
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		m, err := s.Try(args...).ToMessage()
		if err != nil {
			last = err.Error()
			continue
		}
		if last, err = m.ToString(); err != nil {
			last = fmt.Sprint(m)
		}
		if ok(last) {
			return
		}
	}
	s.tb.Fatalf("%s: %s never became what was awaited: %s", s.Addr, strings.Join(args, " "), last)
}

// Kill ends the process at once, as kill -9 does.
func (s *Server) Kill() { s.proc.kill() }

// Pause stops the process without ending it: connections stay open, new ones are taken by the kernel, and nothing answers.
func (s *Server) Pause() { s.tb.Helper(); s.signal(stop) }

// Resume lets a paused process go on.
func (s *Server) Resume() { s.tb.Helper(); s.signal(cont) }

func (s *Server) signal(send func(*os.Process) error) {
	s.tb.Helper()
	if err := send(s.proc.cmd.Process); err != nil {
		s.tb.Fatal(err)
	}
}

// Restart starts a killed process again, on the same port and with the data that it kept.
func (s *Server) Restart() {
	s.tb.Helper()
	s.proc.kill()
	_ = os.Remove(s.logPath())
	if !s.run() {
		s.tb.Fatalf("restarting redis-server: somebody has taken %s", s.Addr)
	}
}
