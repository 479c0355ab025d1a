package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// everyCall makes each call that a Service offers.
func everyCall(g *gate, token string) map[string]func() error {
	ctx := context.Background()
	login, data, pay := request("alice#late", phone), session.SealedData{}, weixin.Payment{}
	one, all := person("u"), person("union")
	return map[string]func() error{
		"Authenticate":    func() error { _, err := g.Authenticate(ctx, token); return err },
		"Login":           func() error { _, err := g.Login(ctx, login); return err },
		"Logout":          func() error { return g.Logout(ctx, token) },
		"RevokeUser":      func() error { return g.RevokeUser(ctx, alice, endRevoked) },
		"RevokeApp":       func() error { return g.RevokeApp(ctx, appA) },
		"RevokeAll":       func() error { return g.RevokeAll(ctx) },
		"RevokeUnionID":   func() error { _, err := g.RevokeUnionID(ctx, one, 0); return err },
		"Forget":          func() error { return g.Forget(ctx, alice, endForgotten) },
		"ForgetUnionID":   func() error { _, err := g.ForgetUnionID(ctx, one, 0); return err },
		"EndByID":         func() error { return g.EndByID(ctx, alice, "0123456789", endRevoked) },
		"User":            func() error { _, err := g.User(ctx, alice); return err },
		"UsersByUnionID":  func() error { _, err := g.UsersByUnionID(ctx, all); return err },
		"Stats":           func() error { _, err := g.Stats(ctx); return err },
		"OpenData":        func() error { _, err := g.OpenData(ctx, alice, data); return err },
		"Phone":           func() error { _, err := g.Phone(ctx, alice, "123"); return err },
		"CheckSessionKey": func() error { _, err := g.CheckSessionKey(ctx, alice); return err },
		"ResetSessionKey": func() error { return g.ResetSessionKey(ctx, alice) },
		"EncryptKeys":     func() error { _, err := g.EncryptKeys(ctx, alice); return err },
		"PaidUnionID":     func() error { _, err := g.PaidUnionID(ctx, alice, pay); return err },
	}
}

// TestClose_LaterCalls_AreUnavailable: a call that comes too late is an outage,
// never a refusal, and reaches neither the cache nor WeChat.
func TestClose_LaterCalls_AreUnavailable(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p), remembering)
	token := g.cached("alice/union")
	before := p.count("Code2Session")
	g.must(g.core.Close())
	for name, call := range everyCall(g, token) {
		t.Run(name, func(t *testing.T) { unavailable(t, call()) })
	}
	after := p.count("Code2Session") + p.count("PhoneNumber") + p.count("ResetUserSessionKey")
	if after != before {
		t.Errorf("WeChat was called %d times", after-before)
	}
}

// TestClose_CallsUnderWay_EndFirst: Close waits for a call at the store and for
// one at WeChat, and what they do is durable.
func TestClose_CallsUnderWay_EndFirst(t *testing.T) {
	for name, tt := range map[string]struct {
		storeOp, wechatOp string
	}{
		"Authenticate":    {"Lookup", ""},
		"RevokeUser":      {"RevokeUser", ""},
		"Phone":           {"", "PhoneNumber"},
		"ResetSessionKey": {"", "ResetUserSessionKey"},
	} {
		bubble(t, name, func(t *testing.T) {
			p := newPlatform()
			g := newGate(t, on(p), remembering)
			token := g.login("alice").Token
			var wg sync.WaitGroup
			var steps []string
			var mu sync.Mutex
			step := func(s string) {
				mu.Lock()
				defer mu.Unlock()
				steps = append(steps, s)
			}
			held := make(chan struct{})
			hold := func(at string) func(context.Context, string) error {
				return func(_ context.Context, op string) error {
					if op == at {
						<-held
						step("answered")
					}
					return nil
				}
			}
			g.store.Before, p.answered = hold(tt.storeOp), hold(tt.wechatOp)
			wg.Go(func() { g.must(everyCall(g, token)[name]()) })
			synctest.Wait()
			wg.Go(func() {
				g.must(g.core.Close())
				step("closed")
			})
			synctest.Wait()
			if len(steps) != 0 {
				t.Errorf("%q while a call is under way", steps)
			}
			close(held)
			wg.Wait()
			if !slices.Equal(steps, []string{"answered", "closed"}) {
				t.Errorf("%q", steps)
			}
		})
	}
}

// TestClose_CallWithoutEnd_IsNotWaitedForForever: the store closes
// nevertheless, and the call may still use the cache.
func TestClose_CallWithoutEnd_IsNotWaitedForForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		token := g.cached("alice")
		held := make(chan struct{})
		g.store.Before = holding("RevokeUser", held)
		var wg sync.WaitGroup
		wg.Go(func() { g.must(g.RevokeUser(context.Background(), user("bob"), endRevoked)) })
		synctest.Wait()
		began := time.Now()
		g.must(g.core.Close())
		if took := time.Since(began); took != session.ClosePatience {
			t.Errorf("closed after %v", took)
		}
		_, err := g.Authenticate(context.Background(), token)
		unavailable(t, err)
		close(held)
		wg.Wait()
		synctest.Wait()
	})
}

// TestP7_CloseRace: checks that race Close are answered from an open cache or
// refused.
func TestP7_CloseRace(t *testing.T) {
	for range 20 {
		g := newGate(t)
		token := g.cached("alice")
		var wg sync.WaitGroup
		var refused atomic.Int64
		for range 4 {
			wg.Go(func() {
				for refused.Load() < 1000 {
					switch _, err := g.Authenticate(context.Background(), token); {
					case errors.Is(err, session.ErrUnavailable):
						refused.Add(1)
					case err != nil:
						t.Error(err)
						return
					}
				}
			})
		}
		g.must(g.core.Close())
		wg.Wait()
	}
}

// TestMaxSessions_Reload_IsTakenByTheNextFill: configurations share the cache,
// and the one that fills it decides its size. Resize frees what no longer fits.
func TestMaxSessions_Reload_IsTakenByTheNextFill(t *testing.T) {
	g := newGate(t)
	size := func() int64 { return g.core.Entries().MaxCost() }
	token := g.cached("alice")
	g.reload(func(c *session.Config) { c.MaxSessions = 1 << 10 })
	g.accept(token)
	if n := size(); n != 1<<12 {
		t.Errorf("a hit made the size %d", n)
	}
	g.cached("bob")
	if n := size(); n != 1<<10 {
		t.Errorf("a fill left the size at %d", n)
	}
	for i := range 1 << 8 {
		g.cached(fmt.Sprint("u", i))
	}
	g.reload(func(c *session.Config) { c.MaxSessions = 1 << 4 })
	g.Resize()
	for began := time.Now(); g.core.Entries().RemainingCost() < 0; {
		if time.Since(began) > 20*time.Second {
			t.Fatal("a lower bound frees nothing")
		}
		time.Sleep(time.Millisecond)
	}
	g.accept(token)
	g.reload(func(c *session.Config) { c.MaxSessions = 1 << 11 })
	if st, err := g.Stats(t.Context()); err != nil || st.CacheMax != 1<<11 {
		t.Errorf("shown is %+v, %v", st, err)
	}
}
