package redistest_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer(t *testing.T) {
	for name, opts := range map[string][]redistest.Option{
		"plain":    nil,
		"password": {redistest.Password("open-sesame")},
		"tls":      {redistest.WithTLS()},
	} {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t, append(opts, redistest.With("appendonly yes"))...)
			s.Do("SET", "k", "v")
			s.Kill()
			if s.Try("GET", "k").Error() == nil {
				t.Error("a killed server has answered")
			}
			s.Restart()
			s.Await(func(got string) bool { return got == "v" }, "GET", "k") // it may still be loading what it has kept
		})
	}
}

func TestServerPauses(t *testing.T) {
	s := redistest.Start(t)
	s.Pause()
	if ping(t, s.Addr, 200*time.Millisecond) {
		t.Error("a paused server has answered")
	}
	s.Resume()
	if !ping(t, s.Addr, 5*time.Second) {
		t.Error("a resumed server has not answered")
	}
}

func TestWatched(t *testing.T) {
	for name, n := range map[string]int{"one sentinel": 1, "three sentinels": 3} {
		t.Run(name, func(t *testing.T) {
			w := redistest.StartReplicaWithSentinel(t, n)
			w.Failover()
			w.Replica.Do("SET", "k", "v")
		})
	}
}

func TestCluster(t *testing.T) {
	c := redistest.StartCluster(t, 3, 1)
	c.Primaries[0].Kill()
	c.Replicas[0].Await(func(info string) bool { return strings.Contains(info, "role:master") }, "INFO", "replication")
}

func TestProxy(t *testing.T) {
	p := redistest.StartProxy(t, redistest.Start(t).Addr)
	if !ping(t, p.Addr, 5*time.Second) {
		t.Fatal("nothing is forwarded")
	}
	p.Blackhole()
	if ping(t, p.Addr, 200*time.Millisecond) {
		t.Error("a black hole has answered")
	}
	p.Restore()
	if !ping(t, p.Addr, 5*time.Second) {
		t.Error("a restored proxy does not forward")
	}
	p.Cut()
	if ping(t, p.Addr, 5*time.Second) {
		t.Error("a cut proxy has answered")
	}
	p.Restore()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !pingOn(t, conn, 5*time.Second) {
		t.Fatal("a restored proxy does not forward")
	}
	p.Forget()
	if pingOn(t, conn, 200*time.Millisecond) {
		t.Error("a forgotten connection has answered")
	}
	if !ping(t, p.Addr, 5*time.Second) {
		t.Error("a new connection is not forwarded")
	}
}

// ping reports whether a server answers within d.
func ping(t *testing.T, addr string, d time.Duration) bool {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	return pingOn(t, conn, d)
}

func pingOn(t *testing.T, conn net.Conn, d time.Duration) bool {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(d))
	_, _ = conn.Write([]byte("PING\r\n"))
	_, err := io.ReadFull(conn, make([]byte, len("+PONG\r\n")))
	return err == nil
}
