package redis

import (
	"context"
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// patience is how long the tests wait for what must happen before long.
const patience = 20 * time.Second

// gate is a link as a store uses it, with all that it has reported and logged.
type gate struct {
	*link
	logs *observer.ObservedLogs

	mu      sync.Mutex
	changes []reported
}

// reported is one report and when it came.
type reported struct {
	store.Change
	at time.Time
}

// open starts a link that the test ends.
func open(t testing.TB, cfg Config) *gate {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	cfg.Logger = zap.New(core)
	cfg, err := cfg.complete()
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{link: newLink(cfg), logs: logs}
	g.watch(func(c store.Change) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.changes = append(g.changes, reported{c, time.Now()})
	})
	t.Cleanup(g.close)
	return g
}

// await fails the test unless ok becomes true before long.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("in vain waited until %s", what)
}

// awaitUp waits until writes are taken and all is heard that was acknowledged
// before the call.
func (g *gate) awaitUp(t testing.TB) {
	t.Helper()
	now := time.Now()
	await(t, "the link is up", func() bool {
		_, err := g.client()
		return err == nil && g.health() == nil && g.heard().After(now)
	})
}

// awaitDown waits until all calls fail at once, and returns why.
func (g *gate) awaitDown(t testing.TB) error {
	t.Helper()
	var err error
	await(t, "the link is down", func() bool {
		_, err = g.client()
		return err != nil && g.health() != nil
	})
	if !errors.Is(err, store.ErrUnavailable) || !errors.Is(g.health(), store.ErrUnavailable) {
		t.Errorf("neither %v nor %v may be anything but unavailable", err, g.health())
	}
	return err
}

// set writes a key as a request would.
func (g *gate) set(ctx context.Context, key string) error {
	c, err := g.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return c.Do(ctx, c.B().Set().Key(key).Value("v").Build()).Error()
}

// logged returns the messages of all log lines with that text in them.
func (g *gate) logged(text string) int { return g.logs.FilterMessageSnippet(text).Len() }

func TestLinkConnects(t *testing.T) {
	t.Parallel()
	socket := func(s *redistest.Server) string { return filepath.Join(s.Dir, "s") }
	for name, test := range map[string]struct {
		opts []redistest.Option
		cfg  func(*redistest.Server) Config
	}{
		"plain":    {nil, func(s *redistest.Server) Config { return Config{Addresses: []string{s.Addr}} }},
		"database": {nil, func(s *redistest.Server) Config { return Config{Addresses: []string{s.Addr}, DB: 3} }},
		"password": {
			[]redistest.Option{redistest.Password("open-sesame")},
			func(s *redistest.Server) Config { return Config{Addresses: []string{s.Addr}, Password: "open-sesame"} },
		},
		"TLS with a certificate of the client": {
			[]redistest.Option{redistest.WithTLS()},
			func(s *redistest.Server) Config { return Config{Addresses: []string{s.Addr}, TLS: s.TLS} },
		},
		"unix socket": {
			[]redistest.Option{func(s *redistest.Server) { redistest.With("unixsocket " + socket(s))(s) }},
			func(s *redistest.Server) Config { return Config{Addresses: []string{socket(s)}} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t, test.opts...)
			g := open(t, test.cfg(s))
			g.awaitUp(t)
			if err := g.set(t.Context(), "k"); err != nil {
				t.Error(err)
			}
			if g.logged("in contact") != 1 {
				t.Errorf("not one line that there is contact: %v", g.logs.All())
			}
			if g.replicas() {
				t.Error("a replica is known where there is none")
			}
			g.close()
			if _, err := g.client(); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("after close: %v", err)
			}
			if err := g.health(); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("after close: %v", err)
			}
		})
	}
}

func TestLinkSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t)
	locked := redistest.Start(t, redistest.Password("open-sesame"))
	secure := redistest.Start(t, redistest.WithTLS())
	old, other := secure.TLS.Clone(), secure.TLS.Clone()
	old.Certificates, other.RootCAs = nil, x509.NewCertPool()
	locked.Do("ACL", "SETUSER", "nobody", "on", ">secret-word", "~*", "-@all")
	node := redistest.StartNode(t)
	sentinel := redistest.StartReplicaWithSentinel(t, 1).Sentinels[0]
	for name, test := range map[string]struct {
		cfg  Config
		says string
	}{
		"no password":         {Config{Addresses: []string{locked.Addr}}, "NOAUTH"},
		"wrong password":      {Config{Addresses: []string{locked.Addr}, Password: "secret-word"}, "WRONGPASS"},
		"user without rights": {Config{Addresses: []string{locked.Addr}, Username: "nobody", Password: "secret-word"}, "client|tracking"},
		"no TLS":              {Config{Addresses: []string{secure.Addr}}, ""},
		"unknown CA":          {Config{Addresses: []string{secure.Addr}, TLS: other}, "certificate signed by unknown authority"},
		"TLS where is none":   {Config{Addresses: []string{plain.Addr}, TLS: secure.TLS}, ""},
		"no certificate":      {Config{Addresses: []string{secure.Addr}, TLS: old}, "certificate"},
		"nobody there":        {Config{Addresses: []string{"127.0.0.1:1"}}, "127.0.0.1:1: connect: connection refused"},
		"a cluster":           {Config{Addresses: []string{node.Addr}}, "node of a cluster"},
		"no cluster":          {Config{Addresses: []string{plain.Addr}, Cluster: true}, "cluster"},
		"a sentinel":          {Config{Addresses: []string{sentinel.Addr}}, ""},
		"no sentinel":         {Config{Addresses: []string{plain.Addr}, Sentinel: &Sentinel{Master: "mymaster"}}, "asking the sentinel"},
		"another name":        {Config{Addresses: []string{sentinel.Addr}, Sentinel: &Sentinel{Master: "other"}}, `no primary is known by the name "other"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := open(t, test.cfg)
			const what = "no contact with redis"
			await(t, "it is logged", func() bool { return g.logged(what) > 0 })
			err := g.awaitDown(t)
			t.Log(err)
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q does not tell %q", err, test.says)
			}
			if strings.Contains(err.Error(), "secret-word") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q must not be told", err)
			}
			time.Sleep(3 * longestPause)
			if n := g.logged(what); n != 1 {
				t.Errorf("logged %d times", n)
			}
			if !g.heard().IsZero() {
				t.Error("something was heard")
			}
		})
	}
}

func TestLinkWarnsOfSettings(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.With("maxmemory-policy allkeys-lru"))
	g := open(t, Config{Addresses: []string{s.Addr}})
	g.awaitUp(t)
	for range 2 {
		if g.logged("throws away sessions") != 1 ||
			g.logged("loses sessions and revocations when it restarts") != 1 {
			t.Errorf("not one line for each setting: %v", g.logs.All())
		}
		s.Do("CLIENT", "KILL", "TYPE", "NORMAL")
		g.awaitUp(t)
	}

	s = redistest.Start(t, redistest.With("appendonly yes"))
	g = open(t, Config{Addresses: []string{s.Addr}})
	g.awaitUp(t)
	if n := g.logs.FilterLevelExact(zap.WarnLevel).Len(); n != 0 {
		t.Errorf("warned of a server that is well: %v", g.logs.All())
	}
}

func TestAtLeast(t *testing.T) {
	for version, want := range map[string]bool{"6.0.16": false, "5.0.0": false, "6.2.0": true, "7.0.15": true, "8.0": true, "10.1.2": true, "": true, "next": true} {
		if got := atLeast(version, 6, 2); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}

// A tracker that connected a second time would have missed what was pushed in between.
func TestTrackerConnectsOnce(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	g := open(t, Config{Addresses: []string{s.Addr}})
	g.awaitUp(t)
	var lost sync.WaitGroup
	lost.Add(1)
	tr, err := g.track(primary{addr: s.Addr}, lost.Done)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	if _, err := tr.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Do("CLIENT", "KILL", "TYPE", "NORMAL")
	lost.Wait()
	for range 3 {
		if _, err := tr.ask(t.Context()); err == nil {
			t.Fatal("the tracker has connected again")
		}
	}
}

func BenchmarkHeard(b *testing.B) {
	g := open(b, Config{Addresses: []string{redistest.Start(b).Addr}})
	g.awaitUp(b)
	b.ReportAllocs()
	for b.Loop() {
		if g.heard().IsZero() {
			b.Fatal("nothing heard")
		}
	}
}
