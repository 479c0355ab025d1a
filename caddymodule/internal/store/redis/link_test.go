package redis

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// gate is a link as a store uses it, with all that it has reported and logged.
type gate struct {
	*link
	logs *observer.ObservedLogs

	mu      sync.Mutex
	changes []reported
}

// reported is one report and its time.
type reported struct {
	store.Change
	at time.Time
}

// openLink starts a link that the test ends. Without a pace it is patient.
func openLink(t testing.TB, cfg Config) *gate {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	cfg.Logger = zap.New(core)
	setDefault(&cfg.pace, patient)
	cfg.queue = 8
	cfg, err := cfg.complete()
	must(t, err)
	g := &gate{link: newLink(cfg), logs: logs}
	g.watch(func(c store.Change) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.changes = append(g.changes, reported{c, time.Now()})
	})
	t.Cleanup(g.close)
	return g
}

// upLink is openLink to one server, and waits for the contact.
func upLink(t testing.TB, addr string) *gate {
	t.Helper()
	g := openLink(t, Config{Addresses: []string{addr}})
	g.awaitUp(t)
	return g
}

// awaitUp waits until the engine takes writes and the gate has heard of all that was
// acknowledged before the call.
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
	if !isUnavailable(err) || !isUnavailable(g.health()) {
		t.Errorf("%v and %v, want unavailable", err, g.health())
	}
	return err
}

// set writes a key as a request would.
func (g *gate) set(t testing.TB, key string) error {
	c, err := g.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return c.Do(ctx, c.B().Set().Key(key).Value("v").Build()).Error()
}

// logged returns the number of log lines with that text.
func (g *gate) logged(text string) int { return g.logs.FilterMessageSnippet(text).Len() }

// reports returns the number of reports, of that kind or of all.
func (g *gate) reports(kinds ...store.ChangeKind) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.changes {
		if kinds == nil || slices.Contains(kinds, c.What) {
			n++
		}
	}
	return n
}

func TestLink_EachWay_Connects(t *testing.T) {
	t.Parallel()
	socket := func(s *redistest.Server) string { return filepath.Join(s.Dir, "s") }
	at := func(s *redistest.Server) []string { return []string{s.Addr} }
	const password = "open-sesame"
	for name, test := range map[string]struct {
		opt redistest.Option
		cfg func(*redistest.Server) Config
	}{
		"plain": {nil, func(s *redistest.Server) Config { return Config{Addresses: at(s)} }},
		"database": {nil, func(s *redistest.Server) Config {
			return Config{Addresses: at(s), DB: 3}
		}},
		"password": {redistest.Password(password), func(s *redistest.Server) Config {
			return Config{Addresses: at(s), Password: password}
		}},
		"TLS with a certificate": {redistest.WithTLS(), func(s *redistest.Server) Config {
			return Config{Addresses: at(s), TLS: s.TLS}
		}},
		"unix socket": {
			func(s *redistest.Server) { redistest.With("unixsocket " + socket(s))(s) },
			func(s *redistest.Server) Config { return Config{Addresses: []string{socket(s)}} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := openLink(t, test.cfg(serverWith(t, test.opt)))
			g.awaitUp(t)
			must(t, g.set(t, "k"))
			if g.logged("in contact") != 1 {
				t.Errorf("not one line about the contact: %v", g.logs.All())
			}
			if g.replicas() {
				t.Error("a replica is known where there is none")
			}
			g.close()
			if _, err := g.client(); !isUnavailable(err) || !isUnavailable(g.health()) {
				t.Errorf("after close: %v, %v", err, g.health())
			}
		})
	}
}

// TestLink_WrongConfiguration_SaysWhatIsWrong has the mistakes beside those of
// TestOutage_EachCause_IsNamedWithItsCure.
func TestLink_WrongConfiguration_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	plain := redistest.Shared(t)
	locked := redistest.Start(t, redistest.Password("open-sesame"))
	secure := redistest.Start(t, redistest.WithTLS())
	noCert := secure.TLS.Clone()
	noCert.Certificates = nil
	const secret = "secret-word"
	locked.Do("ACL", "SETUSER", "guest", "on", ">"+secret, "~*", "-@all")
	node := redistest.StartNode(t)
	sentinel := redistest.StartReplicaWithSentinel(t, 1).Sentinels[0]
	guest := Config{Username: "guest", Password: secret}
	other := Config{Sentinel: &Sentinel{Master: "other"}}
	for name, test := range map[string]struct {
		at   string
		cfg  Config
		says string
	}{
		"user without rights": {locked.Addr, guest, "client|tracking"},
		"no certificate":      {secure.Addr, Config{TLS: noCert}, "certificate"},
		"a cluster":           {node.Addr, Config{}, "node of a cluster"},
		"no cluster":          {plain.Addr, Config{Cluster: true}, "cluster"},
		"a sentinel":          {sentinel.Addr, Config{}, ""},
		"no sentinel":         {plain.Addr, other, "asking the sentinel"},
		"another name":        {sentinel.Addr, other, `no primary is known by the name "other"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.cfg.Addresses = []string{test.at}
			test.cfg.DialTimeout = 10 * time.Second
			g := openLink(t, test.cfg)
			const line = "no contact with redis"
			await(t, "it is logged", func() bool { return g.logged(line) > 0 })
			err := g.awaitDown(t)
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q does not tell %q", err, test.says)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q must not be told", err)
			}
			for range 2 {
				last := g.lastFailed.Load()
				await(t, "it is tried again", func() bool { return g.lastFailed.Load() != last })
			}
			if n := g.logged(line); n != 1 || !g.heard().IsZero() {
				t.Errorf("logged %d times, heard at %v", n, g.heard())
			}
		})
	}
}

func TestLink_LossySettings_WarnsOnce(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.With("maxmemory-policy allkeys-lru"))
	g := upLink(t, s.Addr)
	for range 2 {
		if g.logged("throws away sessions") != 1 ||
			g.logged("loses sessions and revocations when it restarts") != 1 {
			t.Errorf("not one line for each setting: %v", g.logs.All())
		}
		s.Do("CLIENT", "KILL", "TYPE", "NORMAL")
		g.awaitUp(t)
	}
	g = upLink(t, redistest.Start(t, redistest.With("appendonly yes")).Addr)
	if n := g.logs.FilterLevelExact(zap.WarnLevel).Len(); n != 0 {
		t.Errorf("warned of a healthy server: %v", g.logs.All())
	}
}

func TestAtLeast_Version_IsCompared(t *testing.T) {
	for version, want := range map[string]bool{
		"6.0.16": false, "5.0.0": false, "6.2.0": true, "7.0.15": true,
		"8.0": true, "10.1.2": true, "": true, "next": true,
	} {
		if got := atLeast(version, 6, 2); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}

// TestTracker_ConnectionLost_ConnectsOnce (P3): a second connection would have missed
// the pushes between the two.
func TestTracker_ConnectionLost_ConnectsOnce(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	g := upLink(t, s.Addr)
	var lost sync.WaitGroup
	lost.Add(1)
	tr, err := g.track(primary{addr: s.Addr}, lost.Done)
	must(t, err)
	defer tr.close()
	_, err = tr.ask(t.Context())
	must(t, err)
	s.Do("CLIENT", "KILL", "TYPE", "NORMAL")
	lost.Wait()
	for range 3 {
		if _, err := tr.ask(t.Context()); err == nil {
			t.Fatal("the tracker has connected again")
		}
	}
}

func BenchmarkHeard(b *testing.B) {
	g := upLink(b, redistest.Start(b).Addr)
	b.ReportAllocs()
	for b.Loop() {
		if g.heard().IsZero() {
			b.Fatal("nothing heard")
		}
	}
}
