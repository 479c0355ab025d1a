package session_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func TestLogout_Token_EndsItsSessionOnly(t *testing.T) {
	g := newGate(t)
	token, sibling := g.cached("alice"), g.cached("alice")
	for range 2 { // already gone is no error
		g.must(g.Logout(t.Context(), token))
		g.refuse(token, session.ErrUnknown)
	}
	g.must(g.Logout(t.Context(), g.keys.Mint(nobody)))
	g.accept(sibling)
	for token, want := range map[string]error{
		"":                      session.ErrMalformed,
		"junk":                  session.ErrMalformed,
		sibling + "A":           session.ErrMalformed,
		newKeys(t).Mint(nobody): session.ErrForged,
	} {
		var err error
		n := g.asks(func() { err = g.Logout(t.Context(), token) })
		if n != 0 || !errors.Is(err, want) || !errors.Is(err, session.ErrInvalid) {
			t.Errorf("%q: %v, with %d calls of the store", token, err, n)
		}
	}
}

// TestP3_Revocation_Scope: each revocation ends what it names, at once and for
// good, and nothing else.
func TestP3_Revocation_Scope(t *testing.T) {
	type owner struct{ app, who string }
	unknown := func(g *gate, _ session.Login) error {
		ctx, carol := context.Background(), user("carol")
		return errors.Join(
			g.RevokeUser(ctx, carol, endRevoked), g.Forget(ctx, carol, endForgotten),
			g.RevokeApp(ctx, "wxcccccccccccccccc"))
	}
	inA := func(o owner) bool { return o.app == appA }
	isAlice := func(o owner) bool { return o == owner{appA, "alice"} }
	for name, tt := range map[string]struct {
		revoke func(*gate, session.Login) error
		ends   func(owner) bool
		reason error
	}{
		"user":    {endings["user"], isAlice, session.ErrRevoked},
		"forget":  {endings["forget"], isAlice, session.ErrInvalid}, // the reason is forgotten, too
		"app":     {endings["app"], inA, session.ErrRevoked},
		"all":     {endings["all"], func(owner) bool { return true }, session.ErrRevoked},
		"unknown": {unknown, func(owner) bool { return false }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t)
			tokens := make(map[string]owner)
			for _, o := range []owner{
				{appA, "alice"}, {appA, "alice"}, {appA, "bob"}, {appB, "alice"},
			} {
				token := g.login(o.who, inApp(o.app)).Token
				cacheAt(g, token)
				tokens[token] = o
			}
			g.must(tt.revoke(g, session.Login{}))
			for range 3 {
				for token, o := range tokens {
					if tt.ends(o) {
						g.refuse(token, tt.reason)
					} else {
						g.accept(token)
					}
				}
				g.settle()
			}
			g.accept(g.login("alice").Token) // a revoked user may log in again
		})
	}
}

// TestP3_Revocation_CacheFilledMeanwhile_IsStale: a check that fills the cache
// while a revocation is on its way to the disk does not outlive it.
func TestP3_Revocation_CacheFilledMeanwhile_IsStale(t *testing.T) {
	for name, end := range endings {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, with(func(c *session.Config) { c.MaxPerUser = 2 }))
			l := g.login("alice/union")
			cacheAt(g, l.Token)
			writes := 0
			g.store.Before = func(_ context.Context, op string) error {
				switch op {
				case "End", "RevokeUser", "Forget", "RevokeApp", "RevokeAll", "Login":
					if writes++; name != "max per user" || writes == 1 {
						g.accept(l.Token)
						g.settle()
					}
				}
				return nil
			}
			g.must(end(g, l))
			if g.refuse(l.Token, session.ErrInvalid); writes == 0 {
				t.Error("this test shows nothing")
			}
		})
	}
}

// TestP3_Revocation_LookupMeanwhile_IsStale: a check that begins after a
// revocation joins a look-up that read before it, and is not answered from
// that.
func TestP3_Revocation_LookupMeanwhile_IsStale(t *testing.T) {
	for name, end := range endings {
		if name == "log out all" || name == "max per user" {
			continue // they look the session up, or end it by a second login
		}
		bubble(t, name, func(t *testing.T) {
			g := newGate(t)
			l := g.login("alice/union")
			held, first := make(chan struct{}), true
			g.store.After = at("Lookup", func(context.Context) error {
				if first {
					first = false
					<-held // the answer is read and on its way
				}
				return nil
			})
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = g.Authenticate(t.Context(), l.Token) })
			synctest.Wait()
			g.must(end(g, l))
			check := func(when string) {
				_, err := g.Authenticate(t.Context(), l.Token)
				if !errors.Is(err, session.ErrInvalid) {
					t.Errorf("%s: %v", when, err)
				}
			}
			wg.Go(func() { check("joined") })
			synctest.Wait()
			close(held)
			wg.Wait()
			g.settle()
			check("afterwards")
		})
	}
}

// TestP3_Revocation_AnswerLost_EndsHere: a revocation that the store carried
// out without being able to say so is an error, and ends the session here.
func TestP3_Revocation_AnswerLost_EndsHere(t *testing.T) {
	for name, end := range endings {
		if name == "unionid" || name == "max per user" {
			continue // without a store, the gate does not know whom they end
		}
		t.Run(name, func(t *testing.T) {
			g := newGate(t)
			l := g.login("alice")
			cacheAt(g, l.Token)
			g.store.After = func(_ context.Context, op string) error {
				if op == "Lookup" || op == "Health" || op == "User" {
					return nil
				}
				return store.ErrUnavailable
			}
			unavailable(t, end(g, l))
			g.refuse(l.Token, session.ErrInvalid)
		})
	}
}

// TestP3_RevokeRace: checks race a revocation over a real cache, round after
// round with a new session. No check that begins after it has returned is
// accepted, and none before it began is refused
// (docs/stores.md#cache-protocol).
func TestP3_RevokeRace(t *testing.T) {
	rounds, validators := 800, 3
	if testing.Short() {
		rounds = 100
	}
	for _, name := range []string{"session", "user", "log out all", "forget", "app", "all"} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t)
			var after, before int64
			for i := range rounds {
				l := g.login("alice")
				if i%2 == 0 {
					g.accept(l.Token) // or the cache is empty when the race begins
				}
				a, b := race(g, l, validators, i, endings[name])
				after, before = after+a, before+b
				g.refuse(l.Token, session.ErrInvalid)
			}
			if after != 0 || before != 0 {
				t.Errorf("%d accepted after the revocation, %d refused before", after, before)
			}
		})
	}
}

// race runs validators against one revocation and counts the answers that must
// not be.
func race(
	g *gate, l session.Login, validators, round int, revoke func(*gate, session.Login) error,
) (after, before int64) {
	var began, returned atomic.Bool
	var wrongAfter, wrongBefore atomic.Int64
	var wg sync.WaitGroup
	for range validators {
		wg.Go(func() {
			for checks := 0; checks < 4; {
				late := returned.Load()
				_, err := g.Authenticate(context.Background(), l.Token)
				early := !began.Load()
				switch {
				case late && err == nil:
					wrongAfter.Add(1)
				case early && errors.Is(err, session.ErrInvalid):
					wrongBefore.Add(1)
				}
				if late {
					checks++
				}
				runtime.Gosched() // or the revoker waits for its turn most of the time
			}
		})
	}
	for range round % 50 { // moves the instant of the revocation through the checks
		_, _ = g.Authenticate(context.Background(), l.Token)
	}
	began.Store(true)
	if err := revoke(g, l); err != nil {
		g.t.Error(err)
	}
	returned.Store(true)
	wg.Wait()
	return wrongAfter.Load(), wrongBefore.Load()
}

// TestEnds_EachReason_IsLoggedOnceAndOnRecord: "why was I logged out?" has an answer,
// which a token that is presented again and again does not repeat.
func TestEnds_EachReason_IsLoggedOnceAndOnRecord(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		why string
		end func(*gate, session.Login)
	}{
		{"logout", func(g *gate, l session.Login) { g.must(g.Logout(ctx, l.Token)) }},
		{"revoked", func(g *gate, l session.Login) {
			g.must(g.EndByID(ctx, alice, idOf(l), endRevoked))
		}},
		{"revoked_by_app", func(g *gate, l session.Login) {
			g.must(g.RevokeUser(ctx, alice, session.EndByApp))
		}},
		{"revoked", func(g *gate, _ session.Login) {
			g.must(g.RevokeApp(ctx, appA))
		}},
		{"revoked", func(g *gate, l session.Login) { g.must(g.RevokeAll(ctx)) }},
		{"blocked", func(g *gate, l session.Login) {
			who := session.Blocked{AppID: appA, OpenID: "alice"}
			_, err := g.Block(ctx, session.Block{Blocked: who, Until: time.Now().Add(time.Second)})
			g.must(err)
		}},
		{"evicted", func(g *gate, l session.Login) {
			for range 3 {
				time.Sleep(2 * time.Minute)
				g.login("alice")
			}
		}},
		{"replaced", func(g *gate, l session.Login) {
			g.login("alice", func(r *session.LoginRequest) { r.Presented = l.Token })
			time.Sleep(2 * time.Minute)
		}},
		{"idle", func(*gate, session.Login) { time.Sleep(61 * time.Minute) }},
		{"expired", func(g *gate, l session.Login) {
			for range 9 {
				g.accept(l.Token)
				time.Sleep(20*time.Minute + time.Second)
			}
		}},
	} {
		for _, cached := range []bool{false, true} {
			bubble(t, tt.why, func(t *testing.T) {
				core, logs := observer.New(zap.DebugLevel)
				g := newGate(t, with(func(c *session.Config) {
					c.TTL, c.Idle, c.MaxPerUser = 3*time.Hour, time.Hour, 3
				}), withCore(func(c *session.CoreConfig) { c.Audit = zap.New(core) }))
				l := g.login("alice")
				if cached {
					cacheAt(g, l.Token)
				}
				tt.end(g, l)
				for range 3 {
					g.refuse(l.Token, session.ErrInvalid)
					synctest.Wait()
				}
				lines := logs.Filter(func(e observer.LoggedEntry) bool {
					return e.ContextMap()["session"] == idOf(l)
				})
				if lines.Len() != 1 {
					t.Fatalf("the lines are %v", logs.All())
				}
				line := lines.All()[0]
				if f := line.ContextMap(); line.Message != "session ended" || f["appid"] != appA ||
					f["openid"] != "alice" || f["reason"] != tt.why {
					t.Errorf("the line is %v", line)
				}
				u, err := g.User(ctx, alice)
				g.must(err)
				i := slices.IndexFunc(u.Ends, func(e session.EndInfo) bool {
					return e.ID == idOf(l) && e.Reason == tt.why && !e.Ended.After(time.Now())
				})
				if i < 0 {
					t.Errorf("the ends on record are %+v", u.Ends)
				}
			})
		}
	}
}

// An end that the store does not take is noted when the token comes again.
func TestEnds_StoreFull_IsNotedLater(t *testing.T) {
	bubble(t, "idle", func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		g := newGate(t, with(func(c *session.Config) { c.Idle = time.Hour }),
			withCore(func(c *session.CoreConfig) { c.Audit = zap.New(core) }))
		l := g.login("alice")
		time.Sleep(61 * time.Minute)
		for _, full := range []bool{true, false, false} {
			g.store.SetReadOnly(full)
			g.refuse(l.Token, session.ErrExpired)
			synctest.Wait()
			if n := logs.Len(); n == 1 == full {
				t.Errorf("store full: %v, %d lines", full, n)
			}
		}
	})
}
