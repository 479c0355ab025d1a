package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

const (
	lineDone    = "revocation carried out after all"
	lineGivenUp = "revocation given up"
)

// revocations are the ways to end a session of alice's that need no look at the store before.
var revocations = map[string]func(*gate, string) error{
	"session": func(g *gate, token string) error { return g.Logout(context.Background(), token) },
	"user":    func(g *gate, _ string) error { return g.RevokeUser(context.Background(), alice) },
	"forget":  func(g *gate, _ string) error { return g.Forget(context.Background(), alice) },
	"app":     func(g *gate, _ string) error { return g.RevokeApp(context.Background(), appA) },
	"all":     func(g *gate, _ string) error { return g.RevokeAll(context.Background()) },
	"unionid": func(g *gate, _ string) error {
		_, err := g.RevokeUnionID(context.Background(), "union")
		return err
	},
}

// unavailable expects a call to be reported as failed for want of a store.
func unavailable(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func (g *gate) pending() int {
	st, _ := g.Stats(context.Background())
	return st.Pending
}

// TestP4_RevokeStoreDown: a revocation that could not be made durable is not told as done; what it names is refused here all the same, nothing else is, and it is made durable as soon as the
// store lets it, with one line in the log. Sessions made in the meantime live on, as far as the store can tell them apart.
func TestP4_RevokeStoreDown(t *testing.T) {
	for name, revoke := range revocations {
		for what, fault := range map[string]func(*memstore.Store, bool){"down": (*memstore.Store).SetDown, "full": (*memstore.Store).SetReadOnly} {
			t.Run(name+" "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					core, logs := observer.New(zap.DebugLevel)
					g := newGate(t, withCore(func(c *session.CoreConfig) { c.Logger = zap.New(core) }))
					cold := g.login("alice/union").Token
					token := g.cached("alice/union")
					bystander := g.login("bob", inApp(appB)).Token
					g.accept(bystander)
					g.settle()
					fault(g.store, true)
					err := revoke(g, token)
					if (name == "unionid" || name == "user") && what == "full" && err == nil {
						t.Fatal("this test shows nothing")
					}
					unavailable(t, err)
					if g.pending() != 1 {
						t.Errorf("%d are pending", g.pending())
					}
					for range 10 {
						g.refuse(token, session.ErrRevoked)
						switch {
						case what == "down":
							g.refuse(cold, session.ErrUnavailable)
						case name == "session":
							g.accept(cold)
						default:
							g.refuse(cold, session.ErrRevoked)
						}
						if name != "all" {
							g.accept(bystander)
						}
						time.Sleep(10 * time.Second)
					}
					if n := logs.FilterMessage(lineDone).Len() + logs.FilterMessage(lineGivenUp).Len(); n != 0 {
						t.Errorf("%d lines too early", n)
					}

					fault(g.store, false)
					g.refuse(token, session.ErrRevoked)
					since := g.login("alice").Token // before the gate has tried again
					time.Sleep(2 * time.Second)
					if lines := logs.FilterMessage(lineDone).All(); len(lines) != 1 || g.pending() != 0 || lines[0].ContextMap()["target"] == "" {
						t.Fatalf("%d are pending, logged %v", g.pending(), lines)
					}
					fresh := newGate(t, func(cc *session.CoreConfig, c *session.Config) { cc.Store, c.Keys = memstore.New(g.store.Data), g.keys })
					for _, at := range []*gate{g, fresh} { // which knows nothing but what is durable
						at.refuse(token, session.ErrInvalid)
						if name != "session" {
							at.refuse(cold, session.ErrInvalid)
						}
						if name != "all" {
							at.accept(bystander)
						}
						if name != "all" && name != "app" {
							at.accept(since)
						}
					}
					g.accept(g.login("alice").Token)
				})
			})
		}
	}
}

// TestP3_PendingAtOtherGates: a session that another gate made, and whose clock is a little ahead, is covered as well.
func TestP3_PendingAtOtherGates(t *testing.T) {
	for name, revoke := range revocations {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gates, links := newFleet(t, 2)
				a, b := gates[0], gates[1]
				token := a.login("alice/union").Token
				cacheAt(b, token)
				edit(links[1].Data, func(s *store.Session) { s.Created = s.Created.Add(900 * time.Millisecond) })
				ahead := a.login("alice").Token
				edit(links[1].Data, func(s *store.Session) {
					if s.Created.Before(time.Now().Add(500 * time.Millisecond)) {
						s.Created = s.Created.Add(900 * time.Millisecond)
					}
				})
				links[1].SetDown(true)
				unavailable(t, revoke(b, token))
				links[1].SetDown(false)
				b.refuse(token, session.ErrRevoked)
				if name != "session" {
					b.refuse(ahead, session.ErrRevoked)
				}
				a.accept(token)
				time.Sleep(2 * time.Second)
				a.refuse(token, session.ErrInvalid)
				if name != "session" {
					a.refuse(ahead, session.ErrInvalid)
				}
			})
		})
	}
}

// edit changes every session at rest and how its user's record lists it.
func edit(d *memstore.Data, f func(*store.Session)) {
	d.Lock()
	defer d.Unlock()
	for digest, s := range d.Sessions {
		f(&s)
		d.Sessions[digest] = s
		refs := d.Users[s.User].Sessions
		refs[slices.IndexFunc(refs, func(r store.SessionRef) bool { return r.Digest == digest })].Created = s.Created
	}
}

// TestPendingIsShown: what is shown of a session is what a check would say.
func TestPendingIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		l := g.login("alice")
		g.store.SetReadOnly(true)
		unavailable(t, g.Logout(t.Context(), l.Token))
		time.Sleep(time.Millisecond)
		u, err := g.User(t.Context(), alice)
		if err != nil || !slices.Equal(states(u), []string{session.StateRevoked}) {
			t.Errorf("%v, %v", states(u), err)
		}
	})
}

// TestPendingSuperseded: a revocation that is repeated and done is not carried out a second time, when it would end sessions made since; nor is one that a wider one has included.
func TestPendingSuperseded(t *testing.T) {
	ctx := context.Background()
	for name, tt := range map[string]struct {
		failed, done func(*gate, string) error
		left         int
	}{
		"session":        {revocations["session"], revocations["session"], 0},
		"user":           {revocations["user"], revocations["user"], 0},
		"app":            {revocations["app"], revocations["app"], 0},
		"all":            {revocations["all"], revocations["all"], 0},
		"unionid":        {revocations["unionid"], revocations["unionid"], 0},
		"user by app":    {revocations["user"], revocations["app"], 0},
		"unionid by all": {revocations["unionid"], revocations["all"], 0},
		"app by user":    {revocations["app"], revocations["user"], 1},
		"user by other app": {revocations["user"], func(g *gate, _ string) error {
			return g.RevokeApp(ctx, appB)
		}, 1},
		"user by other user": {revocations["user"], func(g *gate, _ string) error {
			return g.RevokeUser(ctx, user("bob"))
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t)
				token := g.login("alice/union").Token
				g.store.SetDown(true)
				unavailable(t, tt.failed(g, token))
				unavailable(t, tt.failed(g, token)) // twice is once
				g.store.SetDown(false)
				g.must(tt.done(g, token))
				if n := g.pending(); n != tt.left {
					t.Fatalf("%d are pending, want %d", n, tt.left)
				}
				time.Sleep(time.Millisecond)
				since := g.login("alice/union").Token
				g.accept(since)
				time.Sleep(10 * time.Second)
				if tt.left == 0 {
					g.accept(since)
				}
				g.refuse(token, session.ErrInvalid)
			})
		})
	}
}

// TestPendingAgain: a revocation that fails again while it is pending covers what was made since the first time.
func TestPendingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		first := g.login("alice").Token
		g.store.Before = func(_ context.Context, op string) error {
			if op == "RevokeUser" {
				return store.ErrUnavailable
			}
			return nil
		}
		unavailable(t, g.RevokeUser(t.Context(), alice))
		time.Sleep(time.Second)
		second := g.login("alice").Token
		g.refuse(first, session.ErrRevoked)
		g.accept(second)
		unavailable(t, g.RevokeUser(t.Context(), alice))
		g.refuse(second, session.ErrRevoked)
	})
}

// TestPendingEnds: it is given up when all that it covers has expired, and when the gate closes; and it does not keep the gate from closing.
func TestPendingEnds(t *testing.T) {
	const ttl = 3 * time.Hour
	for name, closes := range map[string]bool{"expired": false, "closed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.DebugLevel)
				g := newGate(t, withCore(func(c *session.CoreConfig) { c.Logger = zap.New(core) }), with(func(c *session.Config) { c.TTL = ttl }))
				g.Service = session.New(session.Config{Core: g.core, WeChat: g.wechat, Keys: g.keys, TTL: time.Minute}) // for sessions to come
				g.store.SetDown(true)
				unavailable(t, g.RevokeUser(t.Context(), alice))
				unavailable(t, g.RevokeAll(t.Context()))
				if closes {
					began := time.Now()
					g.must(g.core.Close())
					if time.Since(began) != 0 {
						t.Errorf("closed after %v", time.Since(began))
					}
				} else {
					time.Sleep(ttl - time.Second)
					if g.pending() != 2 {
						t.Errorf("%d are pending before the end", g.pending())
					}
					time.Sleep(3 * time.Second)
				}
				lines := logs.FilterMessage(lineGivenUp).All()
				if len(lines) != 2 || lines[0].Level != zap.ErrorLevel || lines[0].ContextMap()["openid"] != "alice" || lines[0].ContextMap()["expired"] == closes {
					t.Errorf("logged %v", lines)
				}
				if !closes && g.pending() != 0 {
					t.Errorf("%d are pending after the end", g.pending())
				}
			})
		})
	}
}

// TestPendingPatience: the store is asked seldom while it is away, never for two revocations at a time, and one that cannot be carried out does not hold up the others.
func TestPendingPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		for i := range 20 {
			g.login(fmt.Sprint("user", i))
		}
		var fails, failed atomic.Int32 // whether it does, and how often it did
		g.store.Before = func(_ context.Context, op string) error {
			if op != "RevokeUser" || fails.Load() == 0 {
				return nil
			}
			if failed.Add(1) == 1 {
				panic("a bug")
			}
			return store.ErrUnavailable
		}
		g.store.SetDown(true)
		for i := range 20 {
			unavailable(t, g.RevokeUser(t.Context(), user(fmt.Sprint("user", i))))
		}
		if n := g.asks(func() { time.Sleep(time.Minute) }); n > 70 || n < 50 {
			t.Errorf("asked %d times in a minute", n)
		}
		unavailable(t, g.Logout(t.Context(), g.keys.Mint())) // the last in the row
		fails.Store(1)
		g.store.SetDown(false)
		time.Sleep(time.Minute)
		if g.pending() != 20 {
			t.Errorf("%d are pending: what can be done is held up by what cannot", g.pending())
		}
		fails.Store(0)
		time.Sleep(3 * time.Second)
		if g.pending() != 0 {
			t.Errorf("%d are pending", g.pending())
		}
	})
}

// TestPendingMeanwhile: a revocation that fails again just when its predecessor has been carried out is not forgotten with it.
func TestPendingMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		g.login("alice")
		var since string
		var again atomic.Bool
		g.store.After = func(_ context.Context, op string) error {
			if op == "RevokeUser" && again.CompareAndSwap(false, true) {
				time.Sleep(time.Millisecond)
				since = g.cached("alice")
				g.store.SetDown(true)
				unavailable(t, g.RevokeUser(t.Context(), alice))
			}
			return nil
		}
		g.store.SetDown(true)
		unavailable(t, g.RevokeUser(t.Context(), alice))
		g.store.SetDown(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		g.store.SetDown(false)
		g.refuse(since, session.ErrRevoked)
		time.Sleep(3 * time.Second)
		g.refuse(since, session.ErrInvalid)
		if g.pending() != 0 {
			t.Errorf("%d are pending", g.pending())
		}
	})
}

// TestPendingBound: what is kept is bounded; the rest is reported and nothing more.
func TestPendingBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		token := g.cached("alice")
		g.store.SetDown(true)
		for i := range session.MaxPending {
			unavailable(t, g.RevokeUser(t.Context(), user(fmt.Sprint("user", i))))
		}
		unavailable(t, g.RevokeUser(t.Context(), alice))
		g.store.SetDown(false)
		g.accept(token)
		if n := g.pending(); n != session.MaxPending {
			t.Errorf("%d are pending", n)
		}
		g.store.SetDown(true)
		unavailable(t, g.RevokeUser(t.Context(), user("user7"))) // is there already
		g.store.SetDown(false)
		time.Sleep(3 * time.Second)
		if n := g.pending(); n != 0 {
			t.Errorf("%d are pending", n)
		}
		g.accept(token)
	})
}

// TestRevokeRefused: an error that is not for want of a store is not tried again.
func TestRevokeRefused(t *testing.T) {
	g := newGate(t)
	g.store.Before = func(_ context.Context, op string) error {
		if op == "RevokeUser" {
			return store.ErrDamaged
		}
		return nil
	}
	if err := g.RevokeUser(t.Context(), alice); !errors.Is(err, store.ErrDamaged) || g.pending() != 0 {
		t.Errorf("%v, %d are pending", err, g.pending())
	}
}
