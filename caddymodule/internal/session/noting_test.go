package session_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// idleNode is a gate on data that outlives it, and what reloads and restarts it.
type idleNode struct {
	*gate
	t    *testing.T
	data *memData
	keys *keyring.Ring
}

const nodeTTL = 40 * time.Hour

func newIdleNode(t *testing.T, idle time.Duration) *idleNode {
	n := &idleNode{t: t, data: newMemData(), keys: newKeys(t)}
	n.open(idle)
	t.Cleanup(func() { n.core.Close() })
	return n
}

func (n *idleNode) open(idle time.Duration, edit ...func(*memStore)) {
	n.gate = newGate(n.t, func(cc *session.CoreConfig, c *session.Config) {
		st := newMemStore(n.data)
		for _, e := range edit {
			e(st)
		}
		cc.Store, c.Keys, c.TTL, c.Idle = st, n.keys, nodeTTL, idle
	})
}

func (n *idleNode) service(idle time.Duration) *session.Service {
	return session.New(session.Config{Core: n.core, WeChat: n.wechat, Apps: []weixin.Credentials{{ID: appA}}, Keys: n.keys, TTL: nodeTTL, Idle: idle})
}

// reload has the configuration before end some time after the new one begins.
func (n *idleNode) reload(idle time.Duration) {
	old := n.Service
	n.Service = n.service(idle)
	time.AfterFunc(5*time.Second, old.Close)
}

func (n *idleNode) restart(idle time.Duration, edit ...func(*memStore)) {
	n.Service.Close()
	n.core.Close()
	n.open(idle, edit...)
}

// touchGap keeps a session in use and returns how far apart its notes are.
func (n *idleNode) touchGap(token string, pace time.Duration) time.Duration {
	n.t.Helper()
	var first, last time.Time
	notes := 0
	for range 400 {
		before := n.store.count("Touch")
		n.accept(token)
		if n.store.count("Touch") > before {
			if notes++; notes == 2 {
				first = time.Now()
			}
			last = time.Now()
		}
		time.Sleep(pace)
	}
	if notes < 4 {
		n.t.Fatalf("%d notes in %v", notes, 400*pace)
	}
	return last.Sub(first) / time.Duration(notes-2)
}

// said is what the store says.
func (n *idleNode) said() store.Noting {
	n.data.mu.Lock()
	defer n.data.mu.Unlock()
	return n.data.noted
}

// TestIdleStaysEnded: who was refused for the idle limit is not let in again by a reload or a restart that leaves the limit as it is, at once or later, nor by a configuration that is refused.
func TestIdleStaysEnded(t *testing.T) {
	for _, idle := range []time.Duration{time.Second, 6 * time.Second, 10 * time.Minute, 39 * time.Hour} {
		for what, again := range map[string]func(*idleNode){
			"reload":         func(n *idleNode) { n.reload(idle) },
			"restart":        func(n *idleNode) { n.restart(idle) },
			"refused":        func(n *idleNode) { n.service(idle).Close() },
			"refused longer": func(n *idleNode) { n.service(0).Close() },
			"refused longer, restart": func(n *idleNode) {
				s := n.service(nodeTTL)
				time.Sleep(time.Second)
				s.Close()
				n.restart(idle)
			},
			"start with a longer one is refused": func(n *idleNode) {
				n.restart(0)
				time.Sleep(time.Second)
				n.restart(idle)
			},
			"refused shorter": func(n *idleNode) {
				s := n.service(idle / 2)
				time.Sleep(time.Second)
				s.Close()
			},
			"refused shorter, reload meanwhile": func(n *idleNode) {
				s := n.service(idle / 2)
				n.core.SettleNoting()
				n.reload(idle)
				s.Close()
			},
			"reload in an outage": func(n *idleNode) {
				n.store.setDown(true)
				n.reload(idle)
				time.Sleep(time.Minute)
				n.store.setDown(false)
			},
			"restart in an outage": func(n *idleNode) {
				n.Service.Close()
				n.core.Close()
				st := newMemStore(n.data)
				st.setDown(true)
				core, err := session.NewCore(session.CoreConfig{Store: st, MaxSessions: 1 << 12})
				n.must(err)
				n.core, n.store = core, st
				n.Service = n.service(idle)
				time.Sleep(time.Minute)
				st.setDown(false)
				time.Sleep(2 * time.Second)
			},
		} {
			t.Run(fmt.Sprint(idle, " ", what), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newIdleNode(t, idle)
					defer func() { n.core.Close() }()
					token := n.cached("alice")
					time.Sleep(idle - time.Millisecond)
					n.accept(n.login("bob").Token)
					time.Sleep(time.Millisecond)
					for range 5 {
						n.refuse(token, session.ErrExpired)
						again(n)
						n.refuse(token, session.ErrExpired)
						if u, err := n.User(t.Context(), user("alice")); err != nil || u.Sessions[0].State == session.StateLive {
							t.Fatalf("%+v, %v", u, err)
						}
						time.Sleep(min(idle/3, nodeTTL/10))
					}
				})
			})
		}
	}
}

// TestIdleByRestart: an idle limit that a restart brings or shortens ends no session in use, and one that was not in use has no more than the doubt.
func TestIdleByRestart(t *testing.T) {
	for _, tt := range []struct{ before, after time.Duration }{{0, 10 * time.Minute}, {0, 3 * time.Hour}, {30 * time.Hour, 10 * time.Minute}, {30 * time.Hour, time.Minute}, {20 * time.Minute, time.Second}} {
		t.Run(fmt.Sprint(tt.before, " to ", tt.after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newIdleNode(t, tt.before)
				defer func() { n.core.Close() }()
				token := n.login("alice").Token
				for range 59 {
					n.accept(token)
					time.Sleep(time.Minute)
				}
				time.Sleep(-time.Minute)
				n.restart(tt.after)
				time.Sleep(tt.after - time.Millisecond)
				n.accept(token)
				n.restart(tt.after)
				time.Sleep(tt.after)
				n.refuse(token, session.ErrExpired)
				n.restart(tt.after)
				n.refuse(token, session.ErrExpired)
			})
		})
	}
}

// TestNotedAsSeldomAsSaid: uses are noted at the shorter interval of two configurations while both may be asked, and until the store has said that it gets longer.
func TestNotedAsSeldomAsSaid(t *testing.T) {
	const (
		short, long         = 20 * time.Minute, 30 * time.Hour
		shortNote, longNote = time.Minute, time.Hour
	)
	check := func(n *idleNode, pace, want, said time.Duration) {
		n.t.Helper()
		if got := n.touchGap(n.login("alice").Token, pace); got != want {
			n.t.Errorf("noted every %v, want %v", got, want)
		}
		if got := n.said().Every; got != said {
			n.t.Errorf("the store says %v, want %v", got, said)
		}
	}
	readOnly := func(s *memStore) {
		s.before = func(_ context.Context, op string) error {
			if op == "SetNoted" {
				return fmt.Errorf("%w: full", store.ErrUnavailable)
			}
			return nil
		}
	}
	for name, f := range map[string]func(n *idleNode){
		"both": func(n *idleNode) {
			old := n.Service
			n.Service = n.service(long)
			check(n, 10*time.Second, shortNote, shortNote)
			old.Close()
			time.Sleep(time.Minute)
			check(n, 2*time.Minute, longNote, longNote)
		},
		"settled": func(n *idleNode) {
			n.reload(long)
			time.Sleep(time.Minute)
			check(n, 2*time.Minute, longNote, longNote)
		},
		"restart": func(n *idleNode) {
			n.restart(long)
			time.Sleep(time.Minute)
			check(n, 2*time.Minute, longNote, longNote)
		},
		"restart, store does not take it": func(n *idleNode) {
			n.restart(long, readOnly)
			time.Sleep(time.Minute)
			check(n, 10*time.Second, shortNote, shortNote)
		},
		"restart, store does not tell": func(n *idleNode) {
			n.restart(long, func(s *memStore) {
				s.before = func(_ context.Context, op string) error {
					if op == "Noted" {
						return fmt.Errorf("%w: away", store.ErrUnavailable)
					}
					return nil
				}
			})
			check(n, 50*time.Millisecond, 250*time.Millisecond, shortNote)
		},
		"back again": func(n *idleNode) {
			n.reload(long)
			time.Sleep(time.Minute)
			n.reload(short)
			check(n, 10*time.Second, shortNote, shortNote)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newIdleNode(t, short)
				defer func() { n.core.Close() }()
				f(n)
			})
		})
	}
}

// TestNotingLost: a write whose answer is lost may have taken effect or not, and the store is believed to say the stricter.
func TestNotingLost(t *testing.T) {
	const short, long = 20 * time.Minute, 30 * time.Hour
	for _, takesEffect := range []bool{false, true} {
		t.Run(fmt.Sprint(takesEffect), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newIdleNode(t, long)
				defer func() { n.core.Close() }()
				var fails atomic.Bool
				fails.Store(true)
				lose := func(_ context.Context, op string) error {
					if op == "SetNoted" && fails.Load() {
						return fmt.Errorf("%w: the answer got lost", store.ErrUnavailable)
					}
					return nil
				}
				if takesEffect {
					n.store.after = lose
				} else {
					n.store.before = lose
				}
				s := n.service(short)
				time.Sleep(30 * time.Second)
				s.Close()
				n.service(long)
				if got := n.touchGap(n.login("alice").Token, 10*time.Second); got != time.Minute {
					t.Errorf("noted every %v", got)
				}
				fails.Store(false)
				time.Sleep(time.Minute)
				if n.said().Every != time.Hour {
					t.Errorf("the store says %v", n.said())
				}
				if got := n.touchGap(n.login("alice").Token, 2*time.Minute); got != time.Hour {
					t.Errorf("noted every %v", got)
				}

				fails.Store(true)
				n.service(short)
				time.Sleep(30 * time.Second)
				fails.Store(false)
				time.Sleep(2 * time.Second)
				if n.said().Every != time.Minute {
					t.Errorf("the store says %v", n.said())
				}
			})
		})
	}
}

// TestNotingFleet: while a gate that shares the store notes more seldom than another needs, that one ends no session in use there, also when it starts anew; when all are alike it does as alone.
func TestNotingFleet(t *testing.T) {
	const short, long = 20 * time.Second, 0
	synctest.Test(t, func(t *testing.T) {
		data, keys := newMemData(), newKeys(t)
		node := func(idle time.Duration) *gate {
			s := newShared(data)
			g := newGate(t, func(cc *session.CoreConfig, c *session.Config) {
				cc.Store, c.Keys, c.TTL, c.Idle = s, keys, nodeTTL, idle
			})
			g.store = s.memStore
			g.core.SetMaxStaleness(staleness)
			return g
		}
		state := func(g *gate) string {
			t.Helper()
			u, err := g.User(t.Context(), user("alice"))
			g.must(err)
			return u.Sessions[0].State
		}

		seldom := node(long)
		defer seldom.core.Close()
		token := seldom.login("alice").Token
		often, third := node(short), node(short)
		defer func() { often.core.Close() }()
		defer third.core.Close()
		for i := range 6 * 60 {
			seldom.must(seldom.RenewNoting(t.Context()))
			for second := 0; second < 60; second += 5 {
				seldom.accept(token)
				time.Sleep(5 * time.Second)
				if second == 30 {
					often.must(often.RenewNoting(t.Context()))
					often.core.SettleNoting() // so that this is what the third hears
					third.must(third.RenewNoting(t.Context()))
				}
				for _, g := range []*gate{often, third} {
					if got := state(g); got != session.StateLive {
						t.Fatalf("in use elsewhere, %d minutes after the others began, and %s", i, got)
					}
				}
			}
			if i%50 == 49 {
				often.core.Close()
				often = node(short)
			}
		}

		// The other gate gets the same limit.
		next := session.New(session.Config{Core: seldom.core, WeChat: seldom.wechat, Keys: keys, TTL: nodeTTL, Idle: short})
		seldom.Service.Close()
		seldom.Service = next
		for range 20 {
			seldom.must(seldom.RenewNoting(t.Context()))
			often.must(often.RenewNoting(t.Context()))
			third.must(third.RenewNoting(t.Context()))
			time.Sleep(session.KeysEvery)
		}
		for _, g := range []*gate{seldom, often, third} {
			g.refuse(token, session.ErrExpired)
		}
		often.core.Close()
		often = node(short)
		often.refuse(token, session.ErrExpired)
		if n := often.asks(func() { often.must(often.RenewNoting(t.Context())) }); n != 1 {
			t.Errorf("renewed with %d calls when there was nothing new", n)
		}
	})
}

// TestNotingForgotten: a gate that runs hears it when nothing is known any more, as when sessions were brought in from another store.
func TestNotingForgotten(t *testing.T) {
	const idle = 10 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		gates, _ := newFleet(t, 1, with(func(c *session.Config) { c.TTL, c.Idle = nodeTTL, idle }))
		g := gates[0]
		defer g.core.Close()
		token := g.login("alice").Token
		time.Sleep(idle)
		g.refuse(token, session.ErrExpired)
		g.must(g.store.SetNoted(t.Context(), store.Noting{}))
		g.must(g.RenewNoting(t.Context()))
		g.accept(token)
		g.core.SettleNoting()
		if n, err := g.store.Noted(t.Context()); err != nil || n.Every != time.Minute {
			t.Errorf("%v, %v", n, err)
		}
	})
}
