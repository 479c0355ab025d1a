package redistest_test

import (
	"flag"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// TestMain runs all tests at a time, since they wait.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "10")
	goleak.VerifyTestMain(m)
}

func TestShared_TwoTests_OneServer(t *testing.T) {
	t.Parallel()
	defer redistest.EndShared()
	redistest.Shared(t).Do("SET", "k", "v")
	redistest.Shared(t).Await(redistest.Has("v"), "GET", "k")
}

func TestServer_KilledAndRestarted_KeepsData(t *testing.T) {
	for name, opts := range map[string][]redistest.Option{
		"plain":    nil,
		"password": {redistest.Password("open-sesame")},
		"tls":      {redistest.WithTLS()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, append(opts, redistest.With("appendonly yes"))...)
			s.Do("SET", "k", "v")
			s.Kill()
			if s.Try("GET", "k").Error() == nil {
				t.Error("a killed server has answered")
			}
			s.Restart()
			s.Await(redistest.Has("v"), "GET", "k") // it may still be loading its file
		})
	}
}

func TestServer_Paused_DoesNotAnswer(t *testing.T) {
	t.Parallel()
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

func TestWatched_Failover_PromotesReplica(t *testing.T) {
	for name, n := range map[string]int{"one sentinel": 1, "three sentinels": 3} {
		t.Run(name, func(t *testing.T) {
			if n > 1 && testing.Short() {
				t.Skip("a vote takes seconds; run without -short")
			}
			t.Parallel()
			w := redistest.StartReplicaWithSentinel(t, n)
			w.Failover()
			w.Replica.Do("SET", "k", "v")
		})
	}
}

func TestCluster_PrimaryKilled_PromotesReplica(t *testing.T) {
	if testing.Short() {
		t.Skip("a vote takes seconds; run without -short")
	}
	t.Parallel()
	c := redistest.StartCluster(t, 3, 1)
	c.Primaries[0].Kill()
	c.Replicas[0].Await(redistest.Has("role:master"), "INFO", "replication")
}

func TestProxy_EachFault_IsSeen(t *testing.T) {
	t.Parallel()
	p := redistest.StartProxy(t, redistest.Start(t).Addr)
	answers := func(what string, want bool, wait time.Duration) {
		t.Helper()
		if ping(t, p.Addr, wait) != want {
			t.Errorf("%s: answers: %v, want %v", what, !want, want)
		}
	}
	answers("at first", true, 5*time.Second)
	p.Blackhole()
	answers("black hole", false, 200*time.Millisecond)
	p.Restore()
	answers("restored", true, 5*time.Second)
	p.Cut()
	answers("cut", false, 5*time.Second)
	p.Restore()
	for _, loss := range []redistest.Loss{{}, {Answer: true}} {
		p.LoseWhen(func([]byte) *redistest.Loss { return &loss })
		answers("loss", false, 5*time.Second)
	}
	p.LoseWhen(nil)
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !pingOn(conn, 5*time.Second) {
		t.Fatal("a restored proxy does not forward")
	}
	p.Forget()
	if pingOn(conn, 200*time.Millisecond) {
		t.Error("a forgotten connection has answered")
	}
	answers("a new connection", true, 5*time.Second)
}

// ping reports whether a server answers within d.
func ping(t *testing.T, addr string, d time.Duration) bool {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	return pingOn(conn, d)
}

func pingOn(conn net.Conn, d time.Duration) bool {
	_ = conn.SetDeadline(time.Now().Add(d))
	_, _ = conn.Write([]byte("PING\r\n"))
	_, err := io.ReadFull(conn, make([]byte, len("+PONG\r\n")))
	return err == nil
}
