package session_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

// TestExpiry_LastMillisecond_Counts: cached or not, used or not.
func TestExpiry_LastMillisecond_Counts(t *testing.T) {
	for name, cached := range map[string]bool{"cached": true, "not cached": false} {
		bubble(t, name, func(t *testing.T) {
			g := newGate(t, with(func(c *session.Config) { c.TTL = 5 * time.Minute }))
			time.Sleep(700 * time.Microsecond) // logins do not begin on a full millisecond
			l := g.login("alice")
			if left := time.Until(l.Expires); left != 5*time.Minute {
				t.Errorf("expires in %v", left)
			}
			if cached {
				g.accept(l.Token)
				g.settle()
			}
			time.Sleep(5*time.Minute - 2*time.Millisecond)
			g.accept(l.Token)
			if cached {
				g.settle()
			}
			time.Sleep(2 * time.Millisecond)
			g.refuse(l.Token, session.ErrExpired)
			time.Sleep(time.Hour)
			g.refuse(l.Token, session.ErrExpired)
		})
	}
}

// TestIdle_Limit_IsExact: a session in use lives to its absolute end. One that
// is not used ends exactly when the timeout after its last noted use is over.
func TestIdle_Limit_IsExact(t *testing.T) {
	const (
		ttl  = 20 * time.Hour
		idle = time.Hour
		note = 3 * time.Minute // a twentieth
	)
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, with(func(c *session.Config) { c.TTL, c.Idle = ttl, idle }))
		used, unused := g.login("alice").Token, g.login("bob").Token
		g.accept(used)
		g.accept(unused)
		time.Sleep(idle - time.Millisecond)
		g.accept(used) // noted
		time.Sleep(time.Millisecond)
		g.refuse(unused, session.ErrExpired)
		time.Sleep(idle - 2*time.Millisecond)
		g.accept(used) // noted
		time.Sleep(note - time.Millisecond)
		g.accept(used) // too soon to be noted
		time.Sleep(idle - note)
		g.accept(used) // noted, in the last millisecond
		time.Sleep(idle)
		g.refuse(used, session.ErrExpired)
		g.refuse(unused, session.ErrExpired)
	})
}

// TestIdle_InUse_LivesToTheEnd: at any pace below the timeout less the touch
// interval, with at most one touch an interval.
func TestIdle_InUse_LivesToTheEnd(t *testing.T) {
	for _, tt := range []struct {
		ttl, idle, pace, interval time.Duration
	}{
		{24 * time.Hour, 30 * time.Minute, 10 * time.Second, 90 * time.Second},
		{24 * time.Hour, 30 * time.Minute, 28 * time.Minute, 90 * time.Second},
		// A quarter of a short timeout.
		{3 * time.Hour, 3 * time.Minute, time.Second, 45 * time.Second},
		// Not more often than once a minute.
		{3 * time.Hour, 10 * time.Minute, 7 * time.Second, time.Minute},
		// Without a timeout, a twentieth of the life, but once an hour.
		{10 * time.Hour, 0, 5 * time.Minute, 30 * time.Minute},
		{48 * time.Hour, 0, 5 * time.Minute, time.Hour},
		{60 * time.Hour, 50 * time.Hour, 5 * time.Minute, time.Hour},
		{10 * time.Minute, 0, time.Second, time.Minute},
		// A timeout above the life.
		{time.Hour, 2 * time.Hour, 5 * time.Minute, 6 * time.Minute},
		// Seconds.
		{2 * time.Minute, 4 * time.Second, 900 * time.Millisecond, time.Second},
	} {
		bubble(t, tt.idle.String()+" "+tt.pace.String(), func(t *testing.T) {
			limits := with(func(c *session.Config) { c.TTL, c.Idle = tt.ttl, tt.idle })
			g := newGate(t, limits).steady()
			token := g.login("alice").Token
			for d := tt.pace; d < tt.ttl; d += tt.pace {
				time.Sleep(tt.pace)
				g.accept(token)
			}
			touches := g.store.Count("Touch")
			if most := int(tt.ttl/tt.interval) + 1; touches > most {
				t.Errorf("%d touches in %v, want at most %d", touches, tt.ttl, most)
			}
			if every := max(tt.interval, tt.pace) + tt.pace; touches < int(tt.ttl/every) {
				t.Errorf("%d touches in %v: use was not noted", touches, tt.ttl)
			}
			time.Sleep(tt.pace + time.Millisecond)
			g.refuse(token, session.ErrExpired)
		})
	}
}

// TestIdle_NewGate_KnowsNotedUses: and a forgetful cache does not decide.
func TestIdle_NewGate_KnowsNotedUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, keys := memstore.NewData(), newKeys(t)
		node := func() *gate {
			return newGate(t, func(cc *session.CoreConfig, c *session.Config) {
				cc.Store, c.Keys, c.Idle = memstore.New(data), keys, 4*time.Minute
			})
		}
		a, b := node(), node()
		token := a.cached("alice")
		b.accept(token)
		b.settle()
		for range 2 { // used on one node only, and not for so long that the other's cache forgets
			time.Sleep(3 * time.Minute)
			a.accept(token)
		}
		time.Sleep(2 * time.Minute)
		b.accept(token)
		c := node()
		c.accept(token)
		time.Sleep(4 * time.Minute)
		for _, g := range []*gate{a, b, c} {
			g.refuse(token, session.ErrExpired)
		}
	})
}

// TestIdle_NewTimeout_EndsNoSessionInUse: one that a reload or a restart brings
// or shortens. A session that is not in use lives up to an hour longer, once.
func TestIdle_NewTimeout_EndsNoSessionInUse(t *testing.T) {
	for _, tt := range []struct{ before, after time.Duration }{
		{0, 10 * time.Minute},
		{0, 3 * time.Hour},
		{40 * time.Hour, 10 * time.Minute},
		{40 * time.Hour, time.Minute},
		{20 * time.Minute, time.Second},
		{time.Minute, 40 * time.Hour},
	} {
		for what, again := range map[string]func(*idleNode, time.Duration){
			"reload": (*idleNode).reload, "restart": (*idleNode).restart,
		} {
			bubble(t, fmt.Sprint(tt.before, " to ", tt.after, " by ", what), func(t *testing.T) {
				n := newIdleNode(t, tt.before)
				defer func() { n.core.Close() }()
				used, unused := n.login("alice").Token, n.login("bob").Token
				pace := time.Minute
				if tt.before > 0 {
					pace = min(pace, tt.before/2)
				}
				for range 59 { // at the longest interval, no use is noted
					time.Sleep(pace)
					n.accept(used)
				}
				again(n, tt.after)
				time.Sleep(tt.after - tt.after/4)
				n.accept(used)
				again(n, tt.after)
				time.Sleep(time.Hour + tt.after/4)
				n.refuse(unused, session.ErrExpired)
				time.Sleep(tt.after - tt.after/4)
				n.refuse(used, session.ErrExpired)
			})
		}
	}
}

// TestIdleStaysEnded: a session that was refused for the idle timeout is not
// let in again by a reload or a restart that leaves the timeout as it is, nor
// by a configuration that is refused.
func TestIdleStaysEnded(t *testing.T) {
	for _, idle := range []time.Duration{
		time.Second, 6 * time.Second, 10 * time.Minute, 39 * time.Hour,
	} {
		for what, again := range map[string]func(*idleNode){
			"reload":          func(n *idleNode) { n.reload(idle) },
			"restart":         func(n *idleNode) { n.restart(idle) },
			"refused shorter": func(n *idleNode) { n.service(idle / 2) },
			"refused longer":  func(n *idleNode) { n.service(0) },
			"restart with a longer one is refused": func(n *idleNode) {
				n.restart(0)
				n.restart(idle)
			},
			"reload in an outage": func(n *idleNode) {
				n.store.SetDown(true)
				n.reload(idle)
				n.store.SetDown(false)
			},
		} {
			bubble(t, fmt.Sprint(idle, " ", what), func(t *testing.T) {
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
					if state := n.stateOfAlice(); state == session.StateLive {
						t.Fatal(state)
					}
					time.Sleep(min(idle/3, nodeTTL/10))
				}
			})
		}
	}
}

// TestIdle_GatesWithOtherTimeouts: a gate that notes more seldom than another
// one needs ends no session there.
func TestIdle_GatesWithOtherTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, keys := memstore.NewData(), newKeys(t)
		node := func(idle time.Duration) *gate {
			return newGate(t, func(cc *session.CoreConfig, c *session.Config) {
				cc.Store, c.Keys, c.TTL, c.Idle = memstore.New(data), keys, nodeTTL, idle
			}).steady()
		}
		seldom, often := node(0), node(20*time.Second)
		token := seldom.login("alice").Token
		for range 6 * 60 * 6 {
			seldom.accept(token)
			time.Sleep(10 * time.Second)
			if state := often.stateOfAlice(); state != session.StateLive {
				t.Fatalf("in use elsewhere: %v", state)
			}
		}
		often.accept(token)
		time.Sleep(time.Hour + 20*time.Second)
		often.refuse(token, session.ErrExpired)
		seldom.accept(token)
		often.accept(token)
	})
}

// TestLastSeen_OtherInterval: an operator sees when a session was noted, never
// a time ahead or before the login.
func TestLastSeen_OtherInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newIdleNode(t, 0)
		defer func() { n.core.Close() }()
		token := n.login("alice").Token
		began := milli(time.Now())
		seen := func() time.Duration {
			t.Helper()
			u, err := n.User(t.Context(), user("alice"))
			n.must(err)
			if at := u.Sessions[0].LastSeen; at.After(time.Now()) {
				t.Errorf("last seen %v ahead", time.Until(at))
			}
			return u.Sessions[0].LastSeen.Sub(began)
		}
		time.Sleep(2 * time.Hour)
		if got := seen(); got != 0 {
			t.Errorf("seen %v after the login", got)
		}
		n.accept(token)
		time.Sleep(time.Minute)
		if got := seen(); got != 2*time.Hour {
			t.Errorf("seen %v after the login", got)
		}
		n.reload(10 * time.Minute)
		seen()
		n.reload(30 * time.Hour)
		if got := seen(); got != 2*time.Hour {
			t.Errorf("seen %v after the login", got)
		}
	})
}

func (g *gate) stateOfAlice() string {
	g.t.Helper()
	u, err := g.User(context.Background(), alice)
	g.must(err)
	return u.Sessions[0].State
}

// idleNode is a gate on data that outlives it, and what reloads and restarts it.
type idleNode struct {
	*gate
	t    *testing.T
	data *memstore.Data
	keys *keyring.Ring
}

const nodeTTL = 42 * time.Hour

func newIdleNode(t *testing.T, idle time.Duration) *idleNode {
	n := &idleNode{t: t, data: memstore.NewData(), keys: newKeys(t)}
	n.open(idle)
	return n
}

func (n *idleNode) open(idle time.Duration) {
	n.gate = newGate(n.t, func(cc *session.CoreConfig, c *session.Config) {
		cc.Store, c.Keys, c.TTL, c.Idle = memstore.New(n.data), n.keys, nodeTTL, idle
	}).steady()
}

func (n *idleNode) service(idle time.Duration) *session.Service {
	cfg := n.cfg
	cfg.Idle = idle
	return session.New(cfg)
}

func (n *idleNode) reload(idle time.Duration) { n.Service = n.service(idle) }

func (n *idleNode) restart(idle time.Duration) {
	n.core.Close()
	n.open(idle)
}

// TestReload_Core_KeepsTheCache: a new configuration judges by its own limits.
func TestReload_Core_KeepsTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		token := g.cached("alice")
		cfg := g.cfg
		cfg.TTL, cfg.Idle = time.Hour, 5*time.Minute
		next := session.New(cfg)
		if n := g.asks(func() {
			if _, err := next.Authenticate(t.Context(), token); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("the store was asked %d times after a reload", n)
		}
		time.Sleep(10 * time.Minute) // the login has noted 6, of which the new timeout takes 1
		if _, err := next.Authenticate(t.Context(), token); !errors.Is(err, session.ErrExpired) {
			t.Errorf("idle for the new limit: %v", err)
		}
		g.accept(token)
	})
}

// clockedStore is a store whose server's clock is that of this machine and by.
type clockedStore struct {
	*memstore.Store
	by time.Duration
}

func (c clockedStore) Clock() *store.Clock {
	now := time.Now()
	return &store.Clock{Server: now.Round(0).Add(c.by), Local: now}
}

// TestClock_Jumped_SessionsGoByTheServer: a machine whose clock is years ahead makes
// no session that lasts for years, and ends none.
func TestClock_Jumped_SessionsGoByTheServer(t *testing.T) {
	const years = 10 * 365 * 24 * time.Hour
	for _, by := range []time.Duration{-years, -time.Minute, time.Minute, years} {
		var s *memstore.Store
		g := newGate(t, withCore(func(c *session.CoreConfig) {
			s = c.Store.(*memstore.Store)
			c.Store = clockedStore{s, by}
		}))
		g.store = s
		l := g.login("alice")
		rec, err := s.Lookup(t.Context(), l.Digest)
		g.must(err)
		near := func(what string, got, want time.Time) {
			if got.Sub(want).Abs() > time.Minute/2 {
				t.Errorf("clock at %v: %s at %v, want %v", by, what, got, want)
			}
		}
		end := time.Now().Add(g.cfg.TTL) // as the client hears it
		near("the record ends", rec.Session.Expires, end.Add(by))
		near("the login ends", l.Expires, end)
		near("the session ends", g.accept(l.Token).Expires, end)
		g.settle()
		near("the cached session ends", g.accept(l.Token).Expires, end)
	}
}

// TestClock_SessionFromTheFuture_IsOver: a clock that jumped made it, and it would
// outlast every limit. A few hours are a clock that is wrong.
func TestClock_SessionFromTheFuture_IsOver(t *testing.T) {
	g := newGate(t)
	for ahead, want := range map[time.Duration]error{
		time.Hour: nil, 23 * time.Hour: nil, 25 * time.Hour: session.ErrExpired,
		10 * 365 * 24 * time.Hour: session.ErrExpired,
	} {
		now := time.Now().Add(ahead)
		token := g.keys.Mint(keyring.Holder{
			User: keyring.User(alice), Created: now, Expires: now.Add(48 * time.Hour),
		})
		_, err := g.store.Login(t.Context(), store.Login{
			User: alice, Digest: session.DigestOf(token), Created: now,
			UsedUntil: now.Add(time.Minute), Expires: now.Add(48 * time.Hour),
		})
		g.must(err)
		if _, err := g.authenticate(token); !errors.Is(err, want) {
			t.Errorf("%v ahead: %v, want %v", ahead, err, want)
		}
	}
}

// TestP4_ClockUnset_LogsNobodyOut: a machine that starts in 1970 cannot judge a
// session, so it says that it cannot, until its clock is set.
func TestP4_ClockUnset_LogsNobodyOut(t *testing.T) {
	var s *memstore.Store
	boot := &clockedStore{}
	g := newGate(t, withCore(func(c *session.CoreConfig) {
		s = c.Store.(*memstore.Store)
		boot.Store = s
		c.Store = boot
	}))
	g.store = s
	token := g.login("alice").Token
	boot.by = -time.Since(time.Unix(3, 0))
	for range 2 { // from the store, and cached
		_, err := g.authenticate(token)
		if !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("clock in 1970: %v", err)
		}
	}
	boot.by = 0
	g.accept(token)
}
