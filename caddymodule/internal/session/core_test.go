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

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// everyCall makes each call that a Service offers.
func everyCall(g *gate, token string) map[string]func() error {
	ctx := context.Background()
	login, data, pay := request("alice#late", phone), session.SealedData{}, weixin.Payment{}
	one, all := person("u"), person("union")
	return map[string]func() error{
		"Authenticate":   func() error { _, err := g.Authenticate(ctx, token); return err },
		"Login":          func() error { _, err := g.Login(ctx, login); return err },
		"Logout":         func() error { return g.Logout(ctx, token) },
		"RevokeUser":     func() error { return g.RevokeUser(ctx, alice, endRevoked) },
		"RevokeApp":      func() error { return g.RevokeApp(ctx, appA) },
		"RevokeAll":      func() error { return g.RevokeAll(ctx) },
		"RevokeUnionID":  func() error { _, err := g.RevokeUnionID(ctx, one, 0); return err },
		"Forget":         func() error { return g.Forget(ctx, alice, endForgotten) },
		"ForgetUnionID":  func() error { _, err := g.ForgetUnionID(ctx, one, 0); return err },
		"EndByID":        func() error { return g.EndByID(ctx, alice, "0123456789", endRevoked) },
		"User":           func() error { _, err := g.User(ctx, alice); return err },
		"UsersByUnionID": func() error { _, err := g.UsersByUnionID(ctx, all); return err },
		"OwnSessions":    func() error { _, err := g.OwnSessions(ctx, alice); return err },
		"Stats":          func() error { _, err := g.Stats(ctx); return err },
		"Ready":          func() error { _, err := g.Ready(ctx); return err },
		"StoreIdentity":  func() error { _, err := g.StoreIdentity(ctx); return err },
		"Blocks":         func() error { _, err := g.Blocks(ctx); return err },
		"ForgetPhone":    func() error { return g.ForgetPhone(ctx, alice) },
		"MasterKeys":     func() error { return g.CheckMasterKeys(ctx) },
		"Fact":           func() error { _, err := g.core.Fact(ctx, "x"); return err },
		"SetFact": func() error {
			_, err := g.core.SetFact(ctx, "x", nil, []byte{1})
			return err
		},
		"OpenData":        func() error { _, err := g.OpenData(ctx, alice, data); return err },
		"Phone":           func() error { _, err := g.Phone(ctx, alice, "123"); return err },
		"CheckSessionKey": func() error { _, err := g.CheckSessionKey(ctx, alice); return err },
		"ResetSessionKey": func() error { return g.ResetSessionKey(ctx, alice) },
		"EncryptKeys":     func() error { _, err := g.EncryptKeys(ctx, alice); return err },
		"PaidUnionID":     func() error { _, err := g.PaidUnionID(ctx, alice, pay); return err },
	}
}

// TestP4_EachCall_ClosedOrStoreDown_IsUnavailable: never invalid, never unknown, and no
// call reaches WeChat or is answered from the cache of a closed gate.
func TestP4_EachCall_ClosedOrStoreDown_IsUnavailable(t *testing.T) {
	for what, away := range map[string]func(*gate){
		"closed": func(g *gate) { g.must(g.core.Close()) },
		"down":   func(g *gate) { g.store.SetDown(true) },
	} {
		p := newPlatform()
		g := newGate(t, on(p), remembering)
		token := g.cached("alice/union")
		if what == "down" {
			token = g.login("alice").Token // a cached session goes on
		}
		before := p.asked()
		away(g)
		for name, call := range everyCall(g, token) {
			t.Run(name+" "+what, func(t *testing.T) { unavailable(t, call()) })
		}
		if after := p.asked(); after != before {
			t.Errorf("%s: WeChat was called %d times", what, after-before)
		}
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

func TestNewCore_NoRoom_IsRefused(t *testing.T) {
	s := memstore.New(memstore.NewData())
	if _, err := session.NewCore(session.CoreConfig{Store: s}); err == nil {
		t.Error("a cache of no size was made")
	}
}

const (
	lineDown = "session store is unavailable"
	lineBack = "session store is back"
)

// loud has the levels of a store that does not log its outages itself.
var loud = map[string]zapcore.Level{lineDown: zap.ErrorLevel, lineBack: zap.InfoLevel}

// watch makes a logger whose messages can be read back, but for those about
// pending revocations. It checks the levels of those that have one.
func watch(t *testing.T, levels map[string]zapcore.Level) (option, func(want ...string)) {
	logger, logs := observed()
	check := func(want ...string) {
		t.Helper()
		var got []string
		for _, e := range logs.TakeAll() {
			if level, ok := levels[e.Message]; ok && e.Level != level {
				t.Errorf("%s: %q", e.Level, e.Message)
			}
			if e.Message != lineDone {
				got = append(got, e.Message)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
	}
	return logger, check
}

// TestP4_Outage_IsLoggedOnce: however many requests notice it.
func TestP4_Outage_IsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, logged := watch(t, loud)
		g := newGate(t, logger)
		ctx, token := context.Background(), g.login("alice").Token
		everything := func() {
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() { _, _ = g.Authenticate(ctx, token) })
				wg.Go(func() { _, _ = g.Authenticate(ctx, g.keys.Mint(nobody)) })
				req := request(fmt.Sprint("bob#", codes.Add(1)), phone)
				wg.Go(func() { _, _ = g.Login(ctx, req) })
				wg.Go(func() { _ = g.Logout(ctx, g.keys.Mint(nobody)) })
				wg.Go(func() { _ = g.RevokeUser(ctx, user("nobody"), endRevoked) })
			}
			wg.Wait()
			time.Sleep(time.Minute) // for what is pending
		}
		everything()
		logged()
		for range 3 {
			g.store.SetDown(true)
			everything()
			everything()
			logged(lineDown)
			g.store.SetDown(false)
			everything()
			everything()
			logged(lineBack)
		}
	})
}

// TestP4_Outage_FullDisk_IsLoggedOnce: it fails every write and no read. A
// look-up does not end what a login has noticed.
func TestP4_Outage_FullDisk_IsLoggedOnce(t *testing.T) {
	logger, logged := watch(t, loud)
	g := newGate(t, logger)
	tokens := make([]string, 10)
	for i := range tokens {
		tokens[i] = g.login("alice").Token
	}
	full := true
	g.store.Before = func(_ context.Context, op string) error {
		if full && op != "Lookup" {
			return fmt.Errorf("%w: disk full", store.ErrUnavailable)
		}
		return nil
	}
	for _, token := range tokens {
		_, err := g.Login(t.Context(), request("bob", phone))
		unavailable(t, err)
		g.accept(token)
	}
	logged(lineDown)
	full = false
	g.accept(tokens[0])
	g.login("bob")
	g.refuse(g.keys.Mint(nobody), session.ErrUnknown)
	logged(lineBack)
}

// TestP4_Outage_SharedStore_IsForDebugging: a shared store logs its outages
// itself. Looking at an empty bucket is no recovery where nothing can be
// written.
func TestP4_Outage_SharedStore_IsForDebugging(t *testing.T) {
	logger, logs := observed()
	gates, _ := newFleet(t, 1, logger)
	g := gates[0]
	full := true
	g.store.Before = func(_ context.Context, op string) error {
		if full && op == "Health" {
			return fmt.Errorf("%w: out of memory", store.ErrUnavailable)
		}
		return nil
	}
	login := func() error {
		_, err := g.Login(t.Context(), request(fmt.Sprint("bob#", codes.Add(1)), phone))
		return err
	}
	for range 5 {
		if err := login(); !errors.Is(err, session.ErrUnavailable) {
			t.Fatal(err)
		}
		g.core.Spend(t.Context(), "bob", store.Rate{Every: time.Hour, Burst: 1})
	}
	full = false
	for range 5 {
		g.must(login())
	}
	var got []string
	for _, e := range logs.TakeAll() {
		got = append(got, e.Message)
		if e.Level != zap.DebugLevel {
			t.Errorf("%s: %q", e.Level, e.Message)
		}
	}
	if want := []string{lineDown, lineBack}; !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}

func TestOutage_CallerGivesUp_IsNone(t *testing.T) {
	logger, logged := watch(t, loud)
	g := newGate(t, logger)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := g.Login(ctx, session.LoginRequest{AppID: appA, Code: "bob"})
	if !errors.Is(err, session.ErrUnavailable) {
		t.Error(err)
	}
	unavailable(t, g.RevokeAll(ctx))
	unavailable(t, g.RevokeApp(ctx, appA))
	unavailable(t, g.RevokeUser(ctx, alice, endRevoked))
	unavailable(t, g.Logout(ctx, g.keys.Mint(nobody)))
	logged()
}

// TestStoreCall_EachOutcome_IsObserved: look-ups and logins, answered or not; a session
// that is not there is an answer.
func TestStoreCall_EachOutcome_IsObserved(t *testing.T) {
	var (
		mu   sync.Mutex
		seen []string
	)
	g := newGate(t, withCore(func(cc *session.CoreConfig) {
		cc.Observe = func(call session.StoreCall) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, call.Name+" "+call.Result)
		}
	}))
	for _, tt := range []struct {
		before hook
		do     func()
		want   []string
	}{
		{do: func() { g.accept(g.login("alice").Token) }, want: []string{"login ok", "lookup ok"}},
		{
			do:   func() { g.refuse(g.keys.Mint(nobody), session.ErrUnknown) },
			want: []string{"lookup ok"},
		},
		{
			before: failing("Lookup", store.ErrUnavailable),
			do:     func() { g.refuse(g.keys.Mint(nobody), session.ErrUnavailable) },
			want:   []string{"lookup unavailable"},
		},
		{
			before: failing("Login", store.ErrUnavailable),
			do: func() {
				_, err := g.Login(t.Context(), session.LoginRequest{AppID: appA, Code: "bob"})
				if !errors.Is(err, session.ErrUnavailable) {
					t.Error(err)
				}
			},
			want: []string{"login unavailable"},
		},
		{
			before: failing("Lookup", errors.Join(store.ErrUnavailable, context.Canceled)),
			do:     func() { g.refuse(g.keys.Mint(nobody), session.ErrUnavailable) },
			want:   []string{"lookup canceled"},
		},
	} {
		g.store.Before = tt.before
		tt.do()
		mu.Lock()
		if !slices.Equal(seen, tt.want) {
			t.Errorf("got %q, want %q", seen, tt.want)
		}
		seen = nil
		mu.Unlock()
	}
}
