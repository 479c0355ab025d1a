package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// fault is something that happens to a server, or to the way there.
type fault func(*redistest.Server, *redistest.Proxy)

func atServer(f func(*redistest.Server)) fault {
	return func(s *redistest.Server, _ *redistest.Proxy) { f(s) }
}

func onTheWay(f func(*redistest.Proxy)) fault {
	return func(_ *redistest.Server, p *redistest.Proxy) { f(p) }
}

// sends is a fault that consists of commands.
func sends(commands ...string) fault {
	return atServer(func(s *redistest.Server) {
		for _, c := range commands {
			s.Do(strings.Fields(c)...)
		}
	})
}

// The gate notices an outage without a call, and logs its begin and end once.
func TestP4_Outage_IsKnownAndEnds(t *testing.T) {
	t.Parallel()
	kill, restart := atServer((*redistest.Server).Kill), atServer((*redistest.Server).Restart)
	pause, resume := atServer((*redistest.Server).Pause), atServer((*redistest.Server).Resume)
	hole, restore := onTheWay((*redistest.Proxy).Blackhole), onTheWay((*redistest.Proxy).Restore)
	for name, test := range map[string]struct {
		begin, end fault
		says       string
	}{
		"killed":     {kill, restart, ""},
		"paused":     {pause, resume, "no answer"},
		"black hole": {hole, restore, "no answer"},
		"cut":        {onTheWay((*redistest.Proxy).Cut), restore, ""},
		"made a replica": {
			sends("REPLICAOF 127.0.0.1 1"), sends("REPLICAOF NO ONE"), "READONLY",
		},
		"password changed": {
			sends("ACL SETUSER gate resetpass >another", "CLIENT KILL USER gate"),
			sends("ACL SETUSER gate >open-sesame"), "WRONGPASS",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, redistest.With("user gate on >open-sesame ~* &* +@all"))
			p := redistest.StartProxy(t, s.Addr)
			g := openLink(t, Config{
				Addresses: []string{p.Addr}, Username: "gate", Password: "open-sesame", pace: brisk,
			})
			g.awaitUp(t)
			test.begin(s, p)
			err := g.awaitDown(t)
			if said := err.Error(); !strings.Contains(said, test.says) ||
				strings.Contains(said, "open-sesame") {
				t.Errorf("the cause is %q, want %q", said, test.says)
			}
			heard := g.heard()
			time.Sleep(5 * brisk.interval)
			if _, err := g.client(); err == nil || g.health() == nil {
				t.Error("the outage was not known all the time")
			}
			if g.heard() != heard {
				t.Error("Heard has moved on in the outage")
			}
			test.end(s, p)
			g.awaitUp(t)
			await(t, "writes are taken", func() bool { return g.set(t, "k") == nil })
			if g.logged("no contact with redis") != 1 || g.logged("in contact with redis") != 2 {
				t.Errorf("not one line for each transition: %v", g.logs.All())
			}
		})
	}
}

// A server that takes no writes can still be read, and the gate hears of it: only
// logins and revocations fail.
func TestP4_WritesRefused_IsKnown(t *testing.T) {
	t.Parallel()
	for code, change := range map[string][2]fault{
		"OOM": {sends("CONFIG SET maxmemory 1"), sends("CONFIG SET maxmemory 0")},
		"NOREPLICAS": {
			sends("CONFIG SET min-replicas-to-write 1"),
			sends("CONFIG SET min-replicas-to-write 0"),
		},
		"NOPERM": {sends("ACL SETUSER default -set"), sends("ACL SETUSER default +set")},
		"MISCONF": {
			atServer(func(s *redistest.Server) {
				must(t, os.MkdirAll(filepath.Join(s.Dir, "dump.rdb", "in the way"), 0o700))
				s.Do("CONFIG", "SET", "save", "1000000 1")
				s.Do("BGSAVE")
			}),
			sends("CONFIG SET stop-writes-on-bgsave-error no"),
		},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			g := upLink(t, s.Addr)
			change[0](s, nil)
			await(t, "the refusal is known", func() bool { return g.health() != nil })
			if err := g.health(); !strings.Contains(err.Error(), code) {
				t.Errorf("the cause is not told: %v", err)
			}
			now := time.Now()
			await(t, "the server is heard of", func() bool { return g.heard().After(now) })
			c, err := g.client()
			must(t, err)
			must(t, ignoreNil(c.Do(t.Context(), c.B().Get().Key("k").Build()).Error()))
			change[1](s, nil)
			await(t, "writes are taken", func() bool { return g.health() == nil })
			if g.logged("takes no writes") != 1 || g.logged("takes writes again") != 1 ||
				g.logged("no contact") != 0 {
				t.Errorf("not one line for each transition: %v", g.logs.All())
			}
		})
	}
}

// A server that loads its data answers, but not with data.
func TestP4_Loading_IsAnOutage(t *testing.T) {
	t.Parallel()
	notShort(t)
	s := redistest.Start(t, redistest.With("key-load-delay 5000"), // in µs
		redistest.With("loading-process-events-interval-bytes 1024"))
	s.Do("EVAL", "for i = 1, 4000 do redis.call('SET', 'k' .. i, string.rep(i, 50)) end", "0")
	s.Do("SAVE")
	g := upLink(t, s.Addr)
	s.Restart()
	await(t, "the outage is told", func() bool {
		_, err := g.client()
		return err != nil && strings.Contains(err.Error(), "LOADING")
	})
	s.Do("CONFIG", "SET", "key-load-delay", "0")
	g.awaitUp(t)
}

// When an operator or a firewall ends one connection, the gate makes it again before a
// request fails.
func TestP4_OneConnectionLost_IsNoOutage(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	g := upLink(t, s.Addr)
	for range 5 {
		killTrackers(t, s)
		g.awaitUp(t)
		if _, err := g.client(); err != nil {
			t.Error(err)
		}
	}
	if g.logged("no contact with redis") != 0 {
		t.Errorf("logged as an outage: %v", g.logs.All())
	}
}

// A firewall that forgets only the connections of requests causes no long outage: the
// gate makes them again, although the heartbeat has its answers. One line says so.
func TestP4_DataConnectionsSilent_AreMadeAgain(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) (Config, *redistest.Proxy){
		"single": func(t *testing.T) (Config, *redistest.Proxy) {
			p := redistest.StartProxy(t, redistest.Start(t).Addr)
			return Config{Addresses: []string{p.Addr}, pace: brisk}, p
		},
		"cluster": func(t *testing.T) (Config, *redistest.Proxy) {
			s := redistest.StartCluster(t, 1, 0).Primaries[0]
			p := redistest.StartProxy(t, s.Addr)
			_, port, err := net.SplitHostPort(p.Addr)
			must(t, err)
			s.Do("CONFIG", "SET", "cluster-announce-port", port)
			return Config{Addresses: []string{p.Addr}, Cluster: true, pace: brisk}, p
		},
	} {
		for _, busy := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/busy=%v", name, busy), func(t *testing.T) {
				notShort(t)
				t.Parallel()
				cfg, p := start(t)
				g := openLink(t, cfg)
				g.awaitUp(t)
				silenceData(t, g, p, busy)
			})
		}
	}
}

// silenceData makes the connections of requests silent. A busy gate notices by its
// requests, another one by itself.
func silenceData(t *testing.T, g *gate, p *redistest.Proxy, busy bool) {
	await(t, "requests have answers", func() bool { return g.getAll(t) == nil })
	before, lines := g.reports(), 0
	if p.ForgetData() == 0 {
		t.Fatal("there is no connection of requests")
	}
	if busy {
		lines = 1
		if g.get(t) == nil {
			t.Fatal("the connections are not silent: this test shows nothing")
		}
		await(t, "requests have answers", func() bool { return g.getAll(t) == nil })
	} else {
		time.Sleep(2 * brisk.hopeless)
		if err := g.getAll(t); err != nil {
			t.Errorf("a request met the silence: %v", err)
		}
	}
	time.Sleep(5 * brisk.interval)
	if n := g.reports(); n != before {
		t.Errorf("%d changes were reported: the cache is lost", n-before)
	}
	if g.logged("calls to redis fail") != lines || g.logged("no contact with redis") != 0 {
		t.Errorf("want %d lines about calls: %v", lines, g.logs.All())
	}
}

// get reads a key as a request would.
func (g *gate) get(t testing.TB) error {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	c, err := g.client()
	if err == nil {
		err = ignoreNil(c.Do(ctx, c.B().Get().Key("k").Build()).Error())
	}
	if err != nil {
		g.recordFailure(began, err)
	}
	return err
}

// getAll reads so often that all connections have their turn: the library takes one by
// chance.
func (g *gate) getAll(t testing.TB) (err error) {
	for range 50 {
		err = errors.Join(err, g.get(t))
	}
	return err
}

// Calls that fail now and then, while others and the heartbeat have answers, are one
// outage. It ends when none has failed for a while.
func TestP4_SomeCallsFail_IsOneOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		tl := transitions{log: zap.New(core), addresses: []string{"a:1"}}
		l := &link{ctx: t.Context(), log: tl, closeTried: func() {}}
		l.now.Store(unreachable(errors.New("not connected yet")))
		c, well := new(contact), beat{sure: true, replicas: true}
		said := func(want ...string) {
			t.Helper()
			var got []string
			for _, e := range logs.TakeAll() {
				got = append(got, e.Message)
			}
			if !slices.Equal(got, want) {
				t.Errorf("logged %q, want %q", got, want)
			}
		}
		beats := func(p beat, n int, err error) {
			for range n {
				began := time.Now()
				time.Sleep(defaultPace.interval)
				if err != nil {
					l.recordFailure(began, err)
				}
				l.setUp(c, p)
			}
		}
		const fail, again = "calls to redis fail, though it answers", "calls to redis succeed again"
		refusing := beat{sure: true, replicas: true, refusal: errors.New("OOM")}
		beats(well, 1, errSlow) // of before there was contact
		said("in contact with redis")
		beats(well, 5, nil)
		for range 10 {
			beats(well, 3, errSlow)
			beats(well, 3, nil)
		}
		said(fail)
		beats(well, int(callsWell/defaultPace.interval), nil)
		said(again)
		beats(well, 1, errSlow)
		l.setDown(noAnswer(defaultPace.overdue))
		l.recordFailure(time.Now(), errSlow)
		beats(well, 1, nil)
		beats(well, 50, nil)
		said(fail, "no contact with redis", "in contact with redis")
		began := time.Now()
		l.setDown(noAnswer(defaultPace.overdue))
		beats(well, 2, nil)
		l.recordFailure(began, errSlow) // was under way
		beats(well, 1, nil)
		said("no contact with redis", "in contact with redis")
		beats(refusing, 50, errSlow)
		beats(well, 1, errSlow)
		beats(well, 50, nil)
		said("redis takes no writes: logins and revocations fail", "redis takes writes again")
	})
}

// A short pause, as for a fork or a slow disk, makes calls fail at once while it lasts,
// and costs no gate its cache.
func TestP4_ShortPause_CostsNoCache(t *testing.T) {
	t.Parallel()
	notShort(t)
	s := redistest.Start(t)
	p := patient
	p.overdue = defaultPace.overdue
	g := openLink(t, Config{Addresses: []string{s.Addr}, pace: p})
	g.awaitUp(t)
	s.Pause()
	g.awaitDown(t)
	s.Resume()
	g.awaitUp(t)
	if g.reports() != 1 {
		t.Error("everything was reported to have changed")
	}
}

// Close does not wait for a server that gives no answer.
func TestLink_Close_EndsInAnyState(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]fault{
		"up":         sends(),
		"paused":     atServer((*redistest.Server).Pause),
		"black hole": onTheWay((*redistest.Proxy).Blackhole),
		"killed":     atServer((*redistest.Server).Kill),
	} {
		for _, when := range []time.Duration{0, defaultPace.hopeless + defaultPace.interval} {
			t.Run(name+" for "+when.String(), func(t *testing.T) {
				if when > 0 {
					notShort(t)
				}
				t.Parallel()
				s := redistest.Start(t)
				p := redistest.StartProxy(t, s.Addr)
				g := openLink(t, Config{
					Addresses: []string{p.Addr}, DialTimeout: time.Minute, pace: defaultPace,
				})
				g.awaitUp(t)
				begin(s, p)
				time.Sleep(when)
				done := make(chan struct{})
				go func() { g.close(); close(done) }()
				select {
				case <-done:
				case <-time.After(patience):
					t.Error("still not closed")
				}
			})
		}
	}
}
