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

	"github.com/redis/rueidis"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// An outage is noticed without anybody asking, is logged once, and its end too.
func TestP4_OutageIsKnownAndEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		begin, end func(*redistest.Server, *redistest.Proxy)
		says       string
	}{
		"killed":     {func(s *redistest.Server, _ *redistest.Proxy) { s.Kill() }, func(s *redistest.Server, _ *redistest.Proxy) { s.Restart() }, ""},
		"paused":     {func(s *redistest.Server, _ *redistest.Proxy) { s.Pause() }, func(s *redistest.Server, _ *redistest.Proxy) { s.Resume() }, "no answer"},
		"black hole": {func(_ *redistest.Server, p *redistest.Proxy) { p.Blackhole() }, func(_ *redistest.Server, p *redistest.Proxy) { p.Restore() }, "no answer"},
		"cut":        {func(_ *redistest.Server, p *redistest.Proxy) { p.Cut() }, func(_ *redistest.Server, p *redistest.Proxy) { p.Restore() }, ""},
		"made a replica": {
			func(s *redistest.Server, _ *redistest.Proxy) { s.Do("REPLICAOF", "127.0.0.1", "1") },
			func(s *redistest.Server, _ *redistest.Proxy) { s.Do("REPLICAOF", "NO", "ONE") }, "READONLY",
		},
		"password changed": {
			func(s *redistest.Server, _ *redistest.Proxy) {
				s.Do("ACL", "SETUSER", "gate", "resetpass", ">another")
				s.Do("CLIENT", "KILL", "USER", "gate")
			},
			func(s *redistest.Server, _ *redistest.Proxy) { s.Do("ACL", "SETUSER", "gate", ">open-sesame") }, "WRONGPASS",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, redistest.With("user gate on >open-sesame ~* &* +@all"))
			p := redistest.StartProxy(t, s.Addr)
			g := open(
				t,
				Config{Addresses: []string{p.Addr}, Username: "gate", Password: "open-sesame"},
			)
			g.awaitUp(t)
			test.begin(s, p)
			err := g.awaitDown(t)
			if !strings.Contains(err.Error(), test.says) ||
				strings.Contains(err.Error(), "open-sesame") {
				t.Errorf("the cause is not told well: %v", err)
			}
			heard := g.heard()
			time.Sleep(2 * defaultPace.interval)
			if _, err := g.client(); err == nil || g.health() == nil {
				t.Error("the outage was not known all the time")
			}
			if g.heard() != heard {
				t.Error("Heard has moved on in the outage")
			}
			test.end(s, p)
			g.awaitUp(t)
			await(t, "writes are taken", func() bool { return g.set(t.Context(), "k") == nil })
			if g.logged("no contact with redis") != 1 || g.logged("in contact with redis") != 2 {
				t.Errorf("not one line for each transition: %v", g.logs.All())
			}
		})
	}
}

// A server that takes no writes can still be read, and is heard of: only logins
// and revocations are refused.
func TestP4_RefusedWritesAreKnown(t *testing.T) {
	t.Parallel()
	config := func(name, bad, good string) [2]func(*redistest.Server) {
		return [2]func(*redistest.Server){
			func(s *redistest.Server) { s.Do("CONFIG", "SET", name, bad) },
			func(s *redistest.Server) { s.Do("CONFIG", "SET", name, good) },
		}
	}
	for code, change := range map[string][2]func(*redistest.Server){
		"OOM":        config("maxmemory", "1", "0"),
		"NOREPLICAS": config("min-replicas-to-write", "1", "0"),
		"NOPERM": {
			func(s *redistest.Server) { s.Do("ACL", "SETUSER", "default", "-set") },
			func(s *redistest.Server) { s.Do("ACL", "SETUSER", "default", "+set") },
		},
		"MISCONF": {
			func(s *redistest.Server) {
				if err := os.MkdirAll(filepath.Join(s.Dir, "dump.rdb", "in the way"), 0o700); err != nil {
					panic(err)
				}
				s.Do("CONFIG", "SET", "save", "1000000 1")
				s.Do("BGSAVE")
			},
			func(s *redistest.Server) { s.Do("CONFIG", "SET", "stop-writes-on-bgsave-error", "no") },
		},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			g := open(t, Config{Addresses: []string{s.Addr}})
			g.awaitUp(t)
			change[0](s)
			await(t, "the refusal is known", func() bool { return g.health() != nil })
			if err := g.health(); !strings.Contains(err.Error(), code) {
				t.Errorf("the cause is not told: %v", err)
			}
			now := time.Now()
			await(t, "the server is heard of", func() bool { return g.heard().After(now) })
			c, err := g.client()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Do(t.Context(), c.B().Get().Key("k").Build()).Error(); err != nil &&
				!rueidis.IsRedisNil(err) {
				t.Error(err)
			}
			change[1](s)
			await(t, "writes are taken", func() bool { return g.health() == nil })
			if g.logged("takes no writes") != 1 || g.logged("takes writes again") != 1 ||
				g.logged("no contact") != 0 {
				t.Errorf("not one line for each transition: %v", g.logs.All())
			}
		})
	}
}

// A server that reads its data is not there yet, though it answers.
func TestP4_LoadingIsAnOutage(t *testing.T) {
	t.Parallel()
	s := redistest.Start(
		t,
		redistest.With("key-load-delay 2000"),
		redistest.With("loading-process-events-interval-bytes 1024"),
	)
	s.Do("EVAL", "for i = 1, 1000 do redis.call('SET', 'k' .. i, string.rep(i, 50)) end", "0")
	s.Do("SAVE")
	g := open(t, Config{Addresses: []string{s.Addr}})
	g.awaitUp(t)
	s.Restart()
	said := make(map[string]bool)
	await(t, "the link is up", func() bool {
		_, err := g.client()
		if err != nil {
			said[err.Error()] = true
		}
		return err == nil && len(said) > 0
	})
	for text := range said {
		if strings.Contains(text, "LOADING") {
			return
		}
	}
	t.Errorf("none says that the server is loading: %v", said)
}

// One connection that is ended, by an operator or by a firewall, is made again
// before a request fails.
func TestP4_OneLostConnectionIsNoOutage(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	g := open(t, Config{Addresses: []string{s.Addr}})
	g.awaitUp(t)
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

// A firewall that forgets the connections of requests and no other is no outage
// for long: they are made again, though the heartbeat is answered all the time.
// It is told once.
func TestP4_SilentDataConnections(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) (Config, *redistest.Proxy){
		"single": func(t *testing.T) (Config, *redistest.Proxy) {
			p := redistest.StartProxy(t, redistest.Start(t).Addr)
			return Config{Addresses: []string{p.Addr}}, p
		},
		"cluster": func(t *testing.T) (Config, *redistest.Proxy) {
			s := redistest.StartCluster(t, 1, 0).Primaries[0]
			p := redistest.StartProxy(t, s.Addr)
			_, port, err := net.SplitHostPort(p.Addr)
			if err != nil {
				t.Fatal(err)
			}
			s.Do("CONFIG", "SET", "cluster-announce-port", port)
			return Config{Addresses: []string{p.Addr}, Cluster: true}, p
		},
	} {
		for _, busy := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/busy=%v", name, busy), func(t *testing.T) {
				NotShort(t)
				t.Parallel()
				cfg, p := start(t)
				g := open(t, cfg)
				g.awaitUp(t)
				get := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
					defer cancel()
					began := time.Now()
					c, err := g.client()
					if err == nil {
						err = c.Do(ctx, c.B().Get().Key("k").Build()).Error()
					}
					if err != nil && !rueidis.IsRedisNil(err) {
						g.recordFailure(began, err)
						return err
					}
					return nil
				}
				all := func() (err error) {
					for range 50 { // the library takes one of the connections by chance
						err = errors.Join(err, get())
					}
					return err
				}
				await(t, "requests are answered", func() bool { return all() == nil })
				from := len(g.changes)
				if p.ForgetData() == 0 {
					t.Fatal("there is no connection of requests")
				}
				if busy {
					if get() == nil {
						t.Fatal("the connections are not silent: this test shows nothing")
					}
					for began := time.Now(); all() != nil; {
						if time.Since(began) > patience {
							t.Fatal("requests still fail")
						}
					}
				} else {
					time.Sleep(defaultPace.hopeless + defaultPace.interval)
					if err := all(); err != nil {
						t.Errorf("the silence was not noticed before a request: %v", err)
					}
				}
				time.Sleep(2 * defaultPace.interval)
				if n := len(g.changes); n != from {
					t.Errorf("%d changes were reported: the cache is lost", n-from)
				}
				want := 0
				if busy {
					want = 1
				}
				if n := g.logged("calls to redis fail"); n != want ||
					g.logged("no contact with redis") != 0 {
					t.Errorf("logged %d times: %v", n, g.logs.All())
				}
			})
		}
	}
}

// Calls that fail now and then while others do not, and the heartbeat is
// answered, are one outage. It ends when none has failed for a while.
func TestP4_FailingCallsAreToldOnce(t *testing.T) {
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

// A pause that is over soon, as for a fork or a slow disk, makes calls fail at
// once while it lasts, and no gate throws its cache away for it. A machine that
// is too busy may make a longer one of it, so there are some tries.
func TestP4_ShortPauseCostsNoCache(t *testing.T) {
	t.Parallel()
	for range 5 {
		s := redistest.Start(t)
		g := open(t, Config{Addresses: []string{s.Addr}})
		g.awaitUp(t)
		s.Pause()
		g.awaitDown(t)
		s.Resume()
		g.awaitUp(t)
		g.mu.Lock()
		n := len(g.changes)
		g.mu.Unlock()
		if n == 1 {
			return
		}
	}
	t.Error("everything was reported to have changed")
}

// Close does not wait for a server that says nothing.
func TestLinkClosesInAnyState(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*redistest.Server, *redistest.Proxy){
		"up":         func(*redistest.Server, *redistest.Proxy) {},
		"paused":     func(s *redistest.Server, _ *redistest.Proxy) { s.Pause() },
		"black hole": func(_ *redistest.Server, p *redistest.Proxy) { p.Blackhole() },
		"killed":     func(s *redistest.Server, _ *redistest.Proxy) { s.Kill() },
	} {
		for _, when := range []time.Duration{0, defaultPace.hopeless + defaultPace.interval} {
			t.Run(name+" for "+when.String(), func(t *testing.T) {
				if when > 0 {
					NotShort(t)
				}
				t.Parallel()
				s := redistest.Start(t)
				p := redistest.StartProxy(t, s.Addr)
				g := open(t, Config{Addresses: []string{p.Addr}, DialTimeout: time.Minute})
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
