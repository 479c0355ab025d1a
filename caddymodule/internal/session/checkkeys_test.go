package session_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// TestCheckKeys follows an operator through rotations, wise and unwise.
func TestCheckKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, m := newMemData(), newMasters(3)
		a, b, c := m[0], m[1], m[2]
		start := func(ttl time.Duration, masters ...string) *gate {
			g := newGate(t, func(cc *session.CoreConfig, c *session.Config) {
				cc.Store, c.Keys, c.TTL = newMemStore(data), newKeys(t, masters...), ttl
			})
			t.Cleanup(func() { g.core.Close() })
			return g
		}
		name := func(master string) string { return newKeys(t, master).Signer().String() }
		known := func(want map[string]time.Duration) {
			t.Helper()
			got, err := newMemStore(data).Keys(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			until := make(map[string]time.Duration)
			for id, at := range got {
				if until[id.String()] = 0; !at.IsZero() {
					until[id.String()] = time.Until(at).Round(time.Second)
				}
			}
			if !maps.Equal(until, want) {
				t.Fatalf("recorded %v, want %v", until, want)
			}
		}
		accepts := func(g *gate) {
			t.Helper()
			if _, err := g.CheckKeys(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		refuses := func(g *gate, names ...string) {
			t.Helper()
			before := maps.Clone(data.keys)
			_, err := g.CheckKeys(t.Context())
			if !errors.Is(err, session.ErrKeyMissing) || errors.Is(err, session.ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
			for _, master := range m {
				if got := strings.Contains(err.Error(), name(master)); got != slices.Contains(names, name(master)) || strings.Contains(err.Error(), master[:6]) {
					t.Fatalf("names %s: %v: %v", name(master), got, err)
				}
			}
			if !maps.Equal(data.keys, before) {
				t.Fatal("a refused ring was recorded")
			}
		}

		g := start(time.Hour, a)
		accepts(g)
		known(map[string]time.Duration{name(a): 0})
		accepts(g)
		if n := g.store.count("SetKeys"); n != 1 {
			t.Errorf("%d writes for nothing new", n)
		}
		accepts(start(time.Hour, c)) // nothing was made under a
		accepts(start(time.Hour, a))
		known(map[string]time.Duration{name(a): 0})

		long := start(48*time.Hour, a).login("alice").Token
		refuses(start(time.Hour, b), name(a))
		accepts(start(time.Hour, b, a))
		known(map[string]time.Duration{name(b): 0, name(a): 48 * time.Hour}) // as long as one lives, not as long as one made now would
		time.Sleep(time.Hour)
		refuses(start(time.Hour, b), name(a))
		accepts(start(50*time.Hour, a, b)) // back again
		known(map[string]time.Duration{name(a): 0, name(b): 50 * time.Hour})
		accepts(start(time.Hour, c, b, a))
		known(map[string]time.Duration{name(c): 0, name(b): 50 * time.Hour, name(a): 47 * time.Hour})
		refuses(start(time.Hour, c), name(a), name(b))
		refuses(start(time.Hour, a, c), name(b))
		start(time.Hour, c, b, a).accept(long)

		time.Sleep(47*time.Hour - time.Second)
		refuses(start(time.Hour, c, b), name(a))
		time.Sleep(time.Second)
		accepts(start(time.Hour, c, b))
		known(map[string]time.Duration{name(c): 0, name(b): 3 * time.Hour})
		time.Sleep(3 * time.Hour)
		accepts(start(time.Hour, b)) // all that was made under c is over, too
		known(map[string]time.Duration{name(b): 0})

		g = start(time.Hour, b)
		g.login("bob")
		g = start(time.Hour, a, b)
		accepts(g)
		refuses(start(time.Hour, a), name(b))
		g.must(g.RevokeAll(t.Context()))
		accepts(start(time.Hour, a)) // a key that has leaked can go at once
		known(map[string]time.Duration{name(a): 0})

		g = start(time.Hour, b)
		g.store.setDown(true)
		if _, err := g.CheckKeys(t.Context()); !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrKeyMissing) {
			t.Errorf("without a store: %v", err)
		}
	})
}

// TestRevokeAllKeysKept: when everybody was ended and only the keys could not be freed, that is what the caller is told.
func TestRevokeAllKeysKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, m := newMemData(), newMasters(2)
		before := keyGate(t, data, time.Hour, m[1])
		defer before.core.Close()
		before.must(before.start())
		token := before.login("alice").Token
		g := keyGate(t, data, time.Hour, m[0], m[1])
		defer g.core.Close()
		g.must(g.start())
		g.store.before = func(_ context.Context, op string) error {
			if op == "SetKeys" {
				return store.ErrUnavailable
			}
			return nil
		}
		if err := g.RevokeAll(t.Context()); !errors.Is(err, session.ErrKeysKept) || errors.Is(err, session.ErrUnavailable) || g.pending() != 0 {
			t.Errorf("%v, %d pending", err, g.pending())
		}
		g.refuse(token, session.ErrInvalid)
		without := keyGate(t, data, time.Hour, m[0])
		defer without.core.Close()
		if err := without.start(); !errors.Is(err, session.ErrKeyMissing) {
			t.Errorf("without the old key: %v", err)
		}
		g.store.before = nil
		g.must(g.RevokeAll(t.Context()))
		time.Sleep(5 * time.Minute) // gates that share a store hear of it in time
		g.must(without.start())
	})
}

// TestCheckKeysModel: whatever rings and lives follow each other, one that passes the check opens every session that the one before it opened.
func TestCheckKeysModel(t *testing.T) {
	masters := newMasters(4)
	refused := 0
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			data := newMemData()
			type made struct {
				token   string
				expires time.Time
			}
			var all []made
			start := func(ttl time.Duration, ring []string) (*session.Service, func()) {
				keys, err := keyring.Parse(strings.Join(ring, ","))
				if err != nil {
					t.Fatal(err)
				}
				core, err := session.NewCore(session.CoreConfig{Store: newMemStore(data), MaxSessions: 16})
				if err != nil {
					t.Fatal(err)
				}
				return session.New(session.Config{Core: core, WeChat: new(wechat), Apps: []weixin.Credentials{{ID: appA}}, Keys: keys, TTL: ttl}), func() { core.Close() }
			}
			now, stop := start(time.Hour, masters[:1])
			defer func() { stop() }()
			if _, err := now.CheckKeys(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Repeat(map[string]func(*rapid.T){
				"login": func(t *rapid.T) {
					l, err := now.Login(t.Context(), session.LoginRequest{AppID: appA, Code: fmt.Sprint("alice#", codes.Add(1))})
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, made{l.Token, l.Expires})
				},
				"wait": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 180).Draw(t, "minutes")) * time.Minute)
				},
				"restart": func(t *rapid.T) {
					ring := rapid.Permutation(masters).Draw(t, "ring")[:rapid.IntRange(1, 4).Draw(t, "keys")]
					next, stopNext := start(time.Duration(rapid.IntRange(1, 5).Draw(t, "hours"))*time.Hour, ring)
					switch _, err := next.CheckKeys(t.Context()); {
					case errors.Is(err, session.ErrKeyMissing):
						refused++
						stopNext()
					case err != nil:
						t.Fatal(err)
					default:
						stop()
						now, stop = next, stopNext
					}
				},
				"": func(t *rapid.T) {
					for _, s := range all {
						if _, err := now.Authenticate(t.Context(), s.token); err != nil && time.Until(s.expires) > time.Millisecond {
							t.Fatalf("logged out, %v before the end: %v", time.Until(s.expires), err)
						}
					}
				},
			})
		})
	})
	if refused == 0 {
		t.Error("no ring was ever refused")
	}
}

// TestRotationKeepsPreviousKey: the same session_key seen again after a rotation is the same; the one before it is not lost to it.
func TestRotationKeepsPreviousKey(t *testing.T) {
	data, m := newMemData(), newMasters(4)
	sessionKey := "first"
	login := func(masters ...string) store.User {
		t.Helper()
		g := newGate(t, func(cc *session.CoreConfig, c *session.Config) {
			cc.Store, c.Keys = newMemStore(data), newKeys(t, masters...)
			c.WeChat = exchanger(func(context.Context, weixin.Credentials, string) (weixin.Session, error) {
				return weixin.Session{OpenID: "alice", SessionKey: sessionKey}, nil
			})
		})
		g.login("alice")
		u, err := g.store.User(t.Context(), alice)
		g.must(err)
		if got, err := newKeys(t, masters[0]).OpenSessionKey(keyring.User(alice), u.Key.Box); err != nil || got != sessionKey {
			t.Fatalf("sealed %q, %v", got, err)
		}
		return u
	}
	expect := func(u store.User, version uint64, prev string, under ...string) {
		t.Helper()
		if u.KeyVersion != version || (prev == "") != (u.PrevKey.Box == nil) {
			t.Fatalf("version %d, previous %x", u.KeyVersion, u.PrevKey.Box)
		}
		if prev == "" {
			return
		}
		if got, err := newKeys(t, under...).OpenSessionKey(keyring.User(alice), u.PrevKey.Box); err != nil || got != prev {
			t.Fatalf("previous %q, %v; want %q", got, err, prev)
		}
	}
	expect(login(m[0]), 1, "")
	sessionKey = "second"
	expect(login(m[0]), 2, "first", m[0])
	expect(login(m[1], m[0]), 2, "first", m[0])
	expect(login(m[1], m[0]), 2, "first", m[0])
	expect(login(m[2], m[1], m[0]), 2, "first", m[0])
	expect(login(m[2]), 2, "first", m[0])
	expect(login(m[0], m[2]), 2, "first", m[0]) // rolled back
	sessionKey = "third"
	expect(login(m[3], m[0]), 3, "second", m[0])
	expect(login(m[3]), 3, "second", m[0])
}
