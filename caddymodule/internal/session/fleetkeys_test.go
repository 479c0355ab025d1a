package session_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// keyGate is a gate of a fleet that is only asked about its keys.
func keyGate(t testing.TB, data *memData, ttl time.Duration, masters ...string) *gate {
	s := newShared(data)
	g := newGate(t, func(cc *session.CoreConfig, c *session.Config) {
		cc.Store, c.Keys, c.TTL = s, newKeys(t, masters...), ttl
	})
	g.store = s.memStore
	return g
}

func (g *gate) start() error {
	_, err := g.CheckKeys(context.Background())
	return err
}

// TestSharedKeys follows an operator who rotates the key of two gates, wisely and unwisely.
func TestSharedKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, m := newMemData(), newMasters(3)
		a, b, c := m[0], m[1], m[2]
		start := func(masters ...string) *gate {
			g := keyGate(t, data, 48*time.Hour, masters...)
			t.Cleanup(func() { g.core.Close() })
			return g
		}
		missing := func(err error) {
			t.Helper()
			if !errors.Is(err, session.ErrKeyMissing) || errors.Is(err, session.ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
		}
		run := func(d time.Duration, gates ...*gate) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(session.KeysEvery) {
				for _, g := range gates {
					g.must(g.RenewKeys(t.Context()))
				}
			}
		}
		one, two := start(a), start(a)
		one.must(one.start())
		two.must(two.start())
		writes := func() int { return one.store.count("SetKeys") + two.store.count("SetKeys") }
		if writes() != 1 {
			t.Errorf("%d writes for one piece of news", writes())
		}
		run(24*time.Hour, one, two)
		if n := writes(); n > 50 {
			t.Errorf("%d writes in a day", n)
		}

		one, two = start(a, b), start(a)
		one.must(one.start())
		two.must(two.start())
		two = start(a, b)
		two.must(two.start())
		one = start(b, a) // the first gate signs with the new key, the other one does not yet
		one.must(one.start())
		run(72*time.Hour, one, two) // and takes longer for it than a session lives
		missing(start(b).start())
		missing(start(a).start())
		missing(start(c).start())
		late := two.login("alice").Token
		two = start(b, a)
		two.must(two.start())
		run(47*time.Hour, one, two)
		missing(start(b).start())
		two.accept(late)
		run(3*time.Hour, one, two)
		one = start(b)
		one.must(one.start())

		// A key that has leaked is got rid of at once, or nearly so; but not while a gate signs with it.
		one, two = start(c, b), start(b, c)
		one.must(one.start())
		two.must(two.start())
		one.must(one.RevokeAll(t.Context()))
		missing(start(c).start())
		run(10*time.Minute, one, two)
		missing(start(c).start())
		two = start(c, b)
		two.must(two.start())
		one.must(one.RevokeAll(t.Context()))
		time.Sleep(2 * session.KeysEvery)
		one = start(c)
		one.must(one.start())
		run(time.Hour, one)
	})
}

// TestSharedKeysMissing: a gate that lacks a key is refused a start, which changes nothing; one that runs says what it signs with all the same.
func TestSharedKeysMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, m := newMemData(), newMasters(2)
		one, two := keyGate(t, data, time.Hour, m[0]), keyGate(t, data, time.Hour, m[1], m[0])
		defer one.core.Close()
		defer two.core.Close()
		one.must(one.start())
		two.must(two.start())
		before := maps.Clone(data.keys)
		time.Sleep(45 * time.Minute)
		if err := one.start(); !errors.Is(err, session.ErrKeyMissing) || !maps.Equal(data.keys, before) {
			t.Errorf("%v, recorded %v", err, data.keys)
		}
		if err := one.RenewKeys(t.Context()); !errors.Is(err, session.ErrKeyMissing) || maps.Equal(data.keys, before) {
			t.Errorf("%v, recorded %v", err, data.keys)
		}
	})
}

// TestSharedKeysUndo: a configuration that comes to nothing leaves no trace, unless another gate has taken up its key meanwhile.
func TestSharedKeysUndo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, data, m := t.Context(), newMemData(), newMasters(2)
		one, next, two := keyGate(t, data, time.Hour, m[0]), keyGate(t, data, time.Hour, m[1], m[0]), keyGate(t, data, 2*time.Hour, m[1], m[0])
		for _, g := range []*gate{one, next, two} {
			defer g.core.Close()
		}
		one.must(one.start())
		before := maps.Clone(data.keys)
		undo, err := next.CheckKeys(ctx)
		one.must(err)
		one.must(undo(ctx))
		if !maps.Equal(data.keys, before) {
			t.Errorf("recorded %v, want %v", data.keys, before)
		}
		undo, err = next.CheckKeys(ctx)
		one.must(err)
		two.must(two.start())
		with := maps.Clone(data.keys)
		one.must(undo(ctx))
		if !maps.Equal(data.keys, with) {
			t.Errorf("another gate's key is forgotten: %v, want %v", data.keys, with)
		}
		// What was recorded before comes back as it was.
		time.Sleep(3 * time.Hour / 2)
		with = maps.Clone(data.keys)
		undo, err = two.CheckKeys(ctx)
		one.must(err)
		if maps.Equal(data.keys, with) {
			t.Fatal("this test shows nothing")
		}
		one.must(undo(ctx))
		id := store.KeyID(two.keys.Signer())
		if !data.keys[id].Equal(with[id]) {
			t.Errorf("recorded %v, want %v", data.keys[id], with[id])
		}
	})
}

// TestSharedKeysMigrated: a key that a store recorded which was not shared, as in use and without a time, is needed until what was copied from there has ended.
func TestSharedKeysMigrated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, m := newMemData(), newMasters(2)
		old := newGate(t, func(cc *session.CoreConfig, c *session.Config) {
			cc.Store, c.Keys, c.TTL = newMemStore(data), newKeys(t, m[0]), 24*time.Hour
		})
		defer old.core.Close()
		old.must(old.start())
		old.login("alice")
		g := keyGate(t, data, time.Hour, m[1])
		defer g.core.Close()
		if err := g.start(); !errors.Is(err, session.ErrKeyMissing) {
			t.Fatalf("got %v", err)
		}
		g = keyGate(t, data, time.Hour, m[1], m[0])
		defer g.core.Close()
		g.must(g.start())
		for id, until := range data.keys {
			if want := map[bool]time.Duration{true: 2 * time.Hour, false: 24 * time.Hour}[id == store.KeyID(g.keys.Signer())]; time.Until(until) != want {
				t.Errorf("%v is needed for %v, want %v", id, time.Until(until), want)
			}
		}
	})
}

// TestSharedKeysTogether: gates that start at the same time do not overwrite what the others record, though each has to replace the whole of it.
func TestSharedKeysTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, m := newMemData(), newMasters(8)
		var wg sync.WaitGroup
		for i := range m {
			ring := append([]string{m[i]}, append(append([]string(nil), m[:i]...), m[i+1:]...)...)
			g := keyGate(t, data, time.Hour, ring...)
			defer g.core.Close()
			g.store.before = func(_ context.Context, op string) error {
				if op == "SetKeys" {
					time.Sleep(10 * time.Millisecond) // so that the others have read
				}
				return nil
			}
			wg.Go(func() {
				if err := g.start(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(data.keys) != len(m) {
			t.Errorf("%d of %d keys are recorded", len(data.keys), len(m))
		}
	})
}

// TestSharedKeysLockLeft: a gate that ended while it recorded its keys holds the others up for seconds, and not for good.
func TestSharedKeysLockLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, m := newMemData(), newMasters(1)
		gone, g := keyGate(t, data, time.Hour, m...), keyGate(t, data, time.Hour, m...)
		defer gone.core.Close()
		defer g.core.Close()
		gone.store.before = func(_ context.Context, op string) error {
			if op == "SetKeys" || op == "Unclaim" {
				return store.ErrUnavailable
			}
			return nil
		}
		for _, g := range []*gate{gone, g} {
			if err := g.start(); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		}
		time.Sleep(5 * time.Second)
		g.must(g.start())
	})
}

// TestSharedKeysClaimLost: a gate that was not told that its turn had come gives it up, and holds nobody up.
func TestSharedKeysClaimLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, m := newMemData(), newMasters(1)
		g := keyGate(t, data, time.Hour, m...)
		defer g.core.Close()
		lost := true
		g.store.after = func(_ context.Context, op string) error {
			if op == "Claim" && lost {
				lost = false
				return store.ErrUnavailable
			}
			return nil
		}
		if err := g.start(); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		g.must(g.start())
	})
}

// TestSharedKeysTwoConfigurations: one of a gate's configurations does not give up the turn of another, which would let a third gate overwrite what it records.
func TestSharedKeysTwoConfigurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, m := newMemData(), newMasters(3)
		a, b := keyGate(t, data, time.Hour, m[0], m[1], m[2]), keyGate(t, data, time.Hour, m[2], m[1], m[0])
		defer a.core.Close()
		defer b.core.Close()
		second := session.New(session.Config{Core: a.core, WeChat: a.wechat, Keys: newKeys(t, m[1], m[0], m[2]), TTL: time.Hour})
		var first, lose atomic.Bool
		a.store.before = func(_ context.Context, op string) error {
			if op == "SetKeys" && first.CompareAndSwap(false, true) {
				time.Sleep(2 * time.Second)
			}
			return nil
		}
		a.store.after = func(_ context.Context, op string) error {
			if op == "Claim" && lose.CompareAndSwap(true, false) {
				return store.ErrUnavailable
			}
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() { g := a; g.must(g.RenewKeys(context.Background())) })
		time.Sleep(time.Second)
		lose.Store(true)
		wg.Go(func() { _ = second.RenewKeys(context.Background()) })
		synctest.Wait()
		b.must(b.RenewKeys(context.Background()))
		wg.Wait()
		for _, ring := range []string{m[0], m[2]} {
			if id := newKeys(t, ring).Signer(); data.keys[store.KeyID(id)].IsZero() {
				t.Errorf("key %s is not recorded", id)
			}
		}
	})
}

// TestSharedKeysModel: whatever rings follow each other on two gates, as long as each sees to its record, a gate that passes the check opens every session that lives, wherever it was made,
// and goes on to, unless the other one was given a key that it lacks.
func TestSharedKeysModel(t *testing.T) {
	masters := newMasters(3)
	refused := 0
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			data := newMemData()
			type made struct {
				token   string
				expires time.Time
			}
			type node struct {
				*session.Service
				stop func() error
			}
			var all []made
			var nodes [2]*node
			start := func(ttl time.Duration, ring []string) *node {
				keys, err := keyring.Parse(strings.Join(ring, ","))
				if err != nil {
					t.Fatal(err)
				}
				core, err := session.NewCore(session.CoreConfig{Store: newShared(data), MaxSessions: 16})
				if err != nil {
					t.Fatal(err)
				}
				return &node{session.New(session.Config{Core: core, WeChat: new(wechat), Apps: []weixin.Credentials{{ID: appA}}, Keys: keys, TTL: ttl}), core.Close}
			}
			opens := func(n *node) {
				for _, s := range all {
					if _, err := n.Authenticate(t.Context(), s.token); err != nil && time.Until(s.expires) > time.Millisecond {
						t.Fatalf("logged out by the ring that has just passed, %v before the end: %v", time.Until(s.expires), err)
					}
				}
			}
			for i := range nodes {
				nodes[i] = start(time.Hour, masters[:1])
				defer func() { nodes[i].stop() }()
				if _, err := nodes[i].CheckKeys(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			t.Repeat(map[string]func(*rapid.T){
				"login": func(t *rapid.T) {
					n := nodes[rapid.IntRange(0, 1).Draw(t, "gate")]
					l, err := n.Login(t.Context(), session.LoginRequest{AppID: appA, Code: fmt.Sprint("alice#", codes.Add(1))})
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, made{l.Token, l.Expires})
				},
				"wait": func(t *rapid.T) {
					for range rapid.IntRange(1, 100).Draw(t, "minutes") {
						time.Sleep(session.KeysEvery)
						for _, n := range nodes {
							if err := n.RenewKeys(t.Context()); err != nil && !errors.Is(err, session.ErrKeyMissing) {
								t.Fatal(err)
							}
						}
					}
				},
				"revoke all": func(t *rapid.T) {
					if err := nodes[rapid.IntRange(0, 1).Draw(t, "gate")].RevokeAll(t.Context()); err != nil {
						t.Fatal(err)
					}
					all = nil
				},
				"reload": func(t *rapid.T) {
					i := rapid.IntRange(0, 1).Draw(t, "gate")
					ring := rapid.Permutation(masters).Draw(t, "ring")[:rapid.IntRange(1, 3).Draw(t, "keys")]
					next := start(time.Duration(rapid.IntRange(1, 3).Draw(t, "hours"))*time.Hour, ring)
					switch _, err := next.CheckKeys(t.Context()); {
					case errors.Is(err, session.ErrKeyMissing):
						refused++
						next.stop()
					case err != nil:
						next.stop()
						t.Fatal(err)
					default:
						if err := nodes[i].RenewKeys(t.Context()); err != nil && !errors.Is(err, session.ErrKeyMissing) {
							t.Fatal(err)
						}
						nodes[i].stop()
						nodes[i] = next
						opens(next)
					}
				},
			})
		})
	})
	if refused == 0 {
		t.Error("no ring was ever refused")
	}
}
