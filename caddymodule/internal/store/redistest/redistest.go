// Package redistest starts real Redis or Valkey servers for tests, alone, behind
// sentinels or as a cluster, and makes them fail in the ways that real ones do. It
// must not know the records, nor the engine under test.
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
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// patience is the time that a server has to do something before the test fails.
const patience = 15 * time.Second

// Server is one process of redis-server. Its methods fail the test on an error.
type Server struct {
	Addr string      // host:port
	TLS  *tls.Config // of a client, with its certificate; nil without TLS
	Dir  string      // of data and log

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

// Password sets the password of the default user, which Do uses.
func Password(p string) Option {
	return func(s *Server) {
		s.password = p
		s.lines = append(s.lines, "requirepass "+p, "masterauth "+p)
	}
}

// Password makes Do use another password, after the test has changed it.
func (s *Server) Password(p string) { s.password = p }

// Start runs a server on a free port of the loopback interface until the test ends.
// Only With("appendonly yes") makes it write to the disk.
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
	s := makeServer(tb, tb.TempDir())
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

func makeServer(tb testing.TB, dir string) *Server {
	tb.Helper()
	s := &Server{tb: tb, Dir: dir, binary: find(tb)}
	s.setPort(freePort(tb))
	s.lines = []string{
		"bind 127.0.0.1", "protected-mode no", "daemonize no", "dir " + s.Dir, `save ""`,
		"repl-diskless-sync-delay 0",
	}
	return s
}

var shared struct {
	sync.Mutex
	s *Server
}

// Shared returns the one server that tests of this process share. Each of them has
// keys of its own there, and leaves settings and other connections alone.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.s == nil {
		find(tb) // skips before there is a directory
		dir, err := os.MkdirTemp("", "redistest")
		if err != nil {
			tb.Fatal(err)
		}
		s := makeServer(tb, dir)
		s.start()
		shared.s = s
	}
	s := *shared.s
	s.tb = tb
	return &s
}

// EndShared ends the server of Shared, for TestMain.
func EndShared() {
	shared.Lock()
	defer shared.Unlock()
	if s := shared.s; s != nil {
		s.Kill()
		os.RemoveAll(s.Dir)
		shared.s = nil
	}
}

// find returns the path of the server's binary. Without one it skips the test, or
// fails it when WXGATE_REQUIRE_ALL forbids to skip.
func find(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("WXGATE_REQUIRE_ALL") == "1" {
		tb.Fatal("redis-server is not installed, and WXGATE_REQUIRE_ALL=1 forbids to skip")
	}
	tb.Skip("neither redis-server nor valkey-server is installed")
	return ""
}

// freePort returns a port that was free just now.
func freePort(tb testing.TB) int {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func (s *Server) setPort(port int) {
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// Port returns the port of Addr.
func (s *Server) Port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

func (s *Server) logPath() string { return filepath.Join(s.Dir, "log") }

// start runs the process and waits for its first answer. It tries another port when
// another process has taken the first.
func (s *Server) start() {
	s.tb.Helper()
	for range 5 {
		if s.run() {
			return
		}
		s.setPort(freePort(s.tb))
	}
	s.tb.Fatal("starting redis-server: five ports were taken")
}

// run reports false when the port is taken. A sentinel keeps its knowledge in the
// configuration file, so run does not write that again.
func (s *Server) run() bool {
	s.tb.Helper()
	conf := filepath.Join(s.Dir, "conf")
	if _, err := os.Stat(conf); err != nil || !s.sentinel {
		text := strings.Join(append(s.lines, s.listen()), "\n")
		s.must(os.WriteFile(conf, []byte(text), 0o600))
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
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
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
		time.Sleep(5 * time.Millisecond)
	}
	s.tb.Fatalf("starting redis-server: no answer from %s", s.Addr)
	return false
}

func (s *Server) listen() string {
	if s.TLS != nil {
		return "port 0\ntls-port " + s.Port()
	}
	return "port " + s.Port()
}

// answers reports whether the server answers a PING with anything.
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

// Try sends one command as the default user, on a connection of its own.
func (s *Server) Try(args ...string) rueidis.RedisResult {
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, Password: s.password, TLSConfig: s.TLS,
		AlwaysRESP2: true, ForceSingleClient: true, DisableCache: true, DisableRetry: true,
		PipelineMultiplex: -1, RingScaleEachConn: 1,
		ReadBufferEachConn: 1 << 12, WriteBufferEachConn: 1 << 12,
		Dialer: net.Dialer{Timeout: 2 * time.Second}, ConnWriteTimeout: patience,
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

// Await repeats a command until ok accepts the text of the answer.
func (s *Server) Await(ok func(string) bool, args ...string) {
	s.tb.Helper()
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		m, err := s.Try(args...).ToMessage()
		if err != nil {
			last = err.Error()
		} else if last, err = m.ToString(); err != nil {
			last = fmt.Sprint(m)
		}
		if err == nil && ok(last) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.tb.Fatalf("%s: %s: waited in vain; last answer: %s", s.Addr, strings.Join(args, " "), last)
}

// Kill ends the process at once, as kill -9 does.
func (s *Server) Kill() { s.proc.kill() }

// Pause stops the process without ending it: connections stay open, the kernel
// takes new ones, and nothing answers.
func (s *Server) Pause() { s.tb.Helper(); s.must(s.proc.signal("STOP")) }

// Resume lets a paused process go on.
func (s *Server) Resume() { s.tb.Helper(); s.must(s.proc.signal("CONT")) }

// Restart starts a killed process again, on the same port and with the data that it
// kept.
func (s *Server) Restart() {
	s.tb.Helper()
	s.proc.kill()
	_ = os.Remove(s.logPath())
	if !s.run() {
		s.tb.Fatalf("restarting redis-server: another process has taken %s", s.Addr)
	}
}

func (s *Server) must(err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatal(err)
	}
}
