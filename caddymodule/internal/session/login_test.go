package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func request(code string, client netip.Addr) session.LoginRequest {
	return session.LoginRequest{AppID: appA, Code: code, Client: client}
}

// answering makes WeChat answer each code with alice, after f.
func answering(f func(context.Context) error) option {
	alice := weixin.Session{OpenID: "alice", SessionKey: "k"}
	return with(func(c *session.Config) {
		c.WeChat = exchanger(func(
			ctx context.Context, _ weixin.Credentials, _ string,
		) (weixin.Session, error) {
			return alice, f(ctx)
		})
	})
}

func TestLogin_Code_MakesASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, with(func(c *session.Config) { c.TTL = time.Hour }))
		l := g.login("alice/union")
		want := session.Login{
			Token: l.Token, Expires: time.Now().Add(time.Hour), User: alice,
			Digest: session.DigestOf(l.Token), UnionIDBound: true,
		}
		if l != want {
			t.Errorf("got %+v, want %+v", l, want)
		}
		u, err := g.store.User(t.Context(), alice)
		g.must(err)
		key, err := g.keys.OpenSessionKey(keyring.User(alice), u.Key.Box)
		if err != nil || key != "key of alice" {
			t.Errorf("stored session_key: %q, %v", key, err)
		}
		again := g.login("alice")
		if again.Token == l.Token || again.Digest == l.Digest || !again.UnionIDBound {
			t.Errorf("second login: %+v", again)
		}
		g.accept(l.Token) // a login never ends the user's other sessions
	})
}

func TestLogin_UnknownApp_AsksNothing(t *testing.T) {
	g := newGate(t)
	for _, app := range []string{"", "wxcccccccccccccccc", appA + " "} {
		var err error
		req := session.LoginRequest{AppID: app, Code: "c"}
		n := g.asks(func() { _, err = g.Login(t.Context(), req) })
		if n != 0 || !errors.Is(err, session.ErrUnknownApp) {
			t.Errorf("%q: %v, with %d calls of the store", app, err, n)
		}
	}
	if n := g.wechat.calls.Load(); n != 0 {
		t.Errorf("WeChat was called %d times", n)
	}
	b, err := g.Login(t.Context(), session.LoginRequest{AppID: appB, Code: "alice"})
	g.must(err)
	if id := g.accept(b.Token); id.AppID != appB {
		t.Errorf("got %+v", id)
	}
}

// TestThreat25_ParallelPosts_AreOneExchange: and all of them get the same
// session.
func TestThreat25_ParallelPosts_AreOneExchange(t *testing.T) {
	refused := &weixin.Error{Op: "exchanging code", Class: weixin.ClassCodeInvalid, ErrCode: 40029}
	for name, boom := range map[string]error{"success": nil, "failure": refused} {
		bubble(t, name, func(t *testing.T) {
			held, calls := make(chan struct{}), 0
			g := newGate(t, answering(func(context.Context) error {
				calls++
				<-held
				return boom
			}))
			var mu sync.Mutex
			tokens, first := make(map[string]int), 0
			var wg sync.WaitGroup
			for range 40 {
				wg.Go(func() {
					l, err := g.Login(t.Context(), request("code", phone))
					if !errors.Is(err, boom) {
						t.Errorf("got %v, want %v", err, boom)
					}
					mu.Lock()
					defer mu.Unlock()
					tokens[l.Token]++
					if !l.Replayed {
						first++
					}
				})
			}
			synctest.Wait()
			_, err := g.Login(t.Context(), request("code", other))
			wantClass(t, err, weixin.ClassCodeUsed) // by another client
			close(held)
			wg.Wait()
			if len(tokens) != 1 || calls != 1 {
				t.Errorf("%d tokens of %d exchanges", len(tokens), calls)
			}
			if boom == nil && first != 1 {
				t.Errorf("%d answers claim to be the first", first)
			}
		})
	}
}

// TestThreat25_Replay_SameClientOnly: for the time configured.
func TestThreat25_Replay_SameClientOnly(t *testing.T) {
	const (
		ten  = 10 * time.Second
		long = time.Hour
		ok   = weixin.ClassOK
		used = weixin.ClassCodeUsed
	)
	var none netip.Addr
	one, two := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for name, tt := range map[string]struct {
		replay, after time.Duration
		first, then   netip.Addr
		class         weixin.Class // ClassOK: replayed
		exchanged     int64
	}{
		"same client":                   {ten, 9999 * time.Millisecond, phone, phone, ok, 1},
		"at once":                       {ten, 0, phone, phone, ok, 1},
		"too late":                      {ten, ten, phone, phone, used, 2},
		"switched off":                  {0, 0, phone, phone, used, 2},
		"another client":                {ten, time.Second, phone, other, used, 1},
		"client unknown":                {long, 0, none, none, used, 1},
		"client unknown at first":       {long, 0, none, phone, used, 1},
		"client unknown then":           {long, 0, phone, none, used, 1},
		"same network, another address": {long, 0, one, two, used, 1},
	} {
		bubble(t, name, func(t *testing.T) {
			w := new(onceOnly)
			g := newGate(t, with(func(c *session.Config) { c.Replay, c.WeChat = tt.replay, w }))
			l, err := g.Login(t.Context(), request("alice", tt.first))
			g.must(err)
			time.Sleep(tt.after)
			synctest.Wait()
			again, err := g.Login(t.Context(), request("alice", tt.then))
			if tt.class == ok {
				g.must(err)
				want := l
				want.Replayed = true
				if again != want {
					t.Errorf("got %+v, want %+v", again, want)
				}
			} else {
				wantClass(t, err, tt.class)
				if again.Token != "" {
					t.Error("an error comes with a token")
				}
			}
			if n := w.calls.Load(); n != tt.exchanged {
				t.Errorf("%d exchanges, want %d", n, tt.exchanged)
			}
			g.accept(l.Token)
		})
	}
}

func TestReplay_OtherAppOrCode_IsAnother(t *testing.T) {
	g := newGate(t)
	tokens := make(map[string]bool)
	for _, req := range []session.LoginRequest{
		{AppID: appA, Code: "alice"},
		{AppID: appB, Code: "alice"},
		{AppID: appA, Code: "alice "},
		{AppID: appA, Code: "\x00alice"},
	} {
		req.Client = phone
		l, err := g.Login(t.Context(), req)
		g.must(err)
		tokens[l.Token] = true
	}
	if len(tokens) != 4 {
		t.Errorf("%d sessions of 4 codes", len(tokens))
	}
}

// TestLogin_Failure_IsNotReplayed: the next attempt with the same code is a new
// one, from any client.
func TestLogin_Failure_IsNotReplayed(t *testing.T) {
	boom := &weixin.Error{Op: "exchanging code", Class: weixin.ClassUnavailable}
	fail := true
	g := newGate(t, answering(func(context.Context) error {
		if fail {
			return boom
		}
		return nil
	}))
	for _, client := range []netip.Addr{phone, phone, other} {
		l, err := g.Login(t.Context(), request("code", client))
		if !errors.Is(err, boom) || l != (session.Login{}) {
			t.Fatalf("got %+v, %v", l, err)
		}
	}
	if n := g.store.Count("Login"); n != 0 {
		t.Errorf("%d failed exchanges reached the store", n)
	}
	fail = false
	if l, err := g.Login(t.Context(), request("code", other)); err != nil || l.Replayed {
		t.Errorf("got %+v, %v", l, err)
	}
}

// TestP4_Login_StoreFailsLate_LeavesNothing: and the next login works.
func TestP4_Login_StoreFailsLate_LeavesNothing(t *testing.T) {
	synctest.Test(t, testStoreFailsLate)
}

func testStoreFailsLate(t *testing.T) {
	g := newGate(t)
	presented := g.cached("alice/union")
	g.store.Before = func(_ context.Context, op string) error {
		if op == "Login" {
			return fmt.Errorf("%w: disk full", store.ErrUnavailable)
		}
		return nil
	}
	req := request("bob", phone)
	req.Presented = presented
	l, err := g.Login(t.Context(), req)
	if !errors.Is(err, session.ErrUnavailable) || l != (session.Login{}) {
		t.Fatalf("got %+v, %v", l, err)
	}
	if _, err := g.store.User(t.Context(), user("bob")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("half a user: %v", err)
	}
	g.accept(presented)
	g.store.Before = nil
	again, err := g.Login(t.Context(), req)
	if err != nil || again.Replayed {
		t.Fatalf("next login: %+v, %v", again, err)
	}
	g.accept(again.Token)
	g.accept(presented)
	time.Sleep(store.Grace)
	g.refuse(presented, session.ErrInvalid)
}

// TestLogin_StoreHangs_TenSeconds: however patient the client is.
func TestLogin_StoreHangs_TenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		g.store.Before = hanging("Login")
		start := time.Now()
		_, err := g.Login(t.Context(), request("alice", phone))
		if unavailable(t, err); time.Since(start) != 10*time.Second {
			t.Errorf("answered after %v", time.Since(start))
		}
	})
}

// TestLogin_ClientGone_IsFinished: its session is durable, and the client gets
// the answer that it missed.
func TestLogin_ClientGone_IsFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		type key struct{}
		g := newGate(t, answering(func(ctx context.Context) error {
			select {
			case <-held:
			case <-ctx.Done():
				t.Error("the exchange was given up with its client")
			}
			if ctx.Value(key{}) != "trace" {
				t.Error("the exchange lost the values of its context")
			}
			return nil
		}))
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "trace"))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := g.Login(ctx, request("code", phone))
			if !errors.Is(err, context.Canceled) || !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		if n := g.store.Count("Login"); n != 0 {
			t.Fatalf("%d logins stored before the exchange", n)
		}
		wg.Go(func() {
			l, err := g.Login(t.Context(), request("code", phone))
			if err != nil || !l.Replayed {
				t.Errorf("the client that came back: %+v, %v", l, err)
				return
			}
			g.accept(l.Token)
		})
		synctest.Wait()
		close(held)
		wg.Wait()
		if n := g.store.Count("Login"); n != 1 {
			t.Errorf("%d logins stored", n)
		}
	})
}

// TestThreat20_PresentedToken_IsNotAdopted: it ends if it is live, and is
// ignored otherwise.
func TestThreat20_PresentedToken_IsNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		with := func(presented string) session.Login {
			t.Helper()
			l := g.login("alice", func(r *session.LoginRequest) { r.Presented = presented })
			if l.Token == presented {
				t.Fatal("the presented token was adopted")
			}
			g.accept(l.Token)
			g.settle()
			return l
		}
		keep := g.cached("alice")
		own := g.cached("alice")
		with(own)
		foreign := g.cached("bob") // somebody else used this phone before
		with(foreign)
		g.accept(own)
		g.accept(foreign)
		time.Sleep(store.Grace)
		g.refuse(own, session.ErrInvalid)
		g.refuse(foreign, session.ErrInvalid)
		with(own) // already ended
		g.refuse(own, session.ErrInvalid)

		made := g.keys.Mint(nobody) // offered by an attacker who hopes that it becomes the victim's
		for _, junk := range []string{
			made, newKeys(t).Mint(nobody), "", "junk", "wxs_", keep + "x", keep[:44],
			string(make([]byte, 1<<20)),
		} {
			with(junk)
		}
		g.refuse(made, session.ErrUnknown)
		time.Sleep(store.Grace)
		g.accept(keep)
	})
}

func TestMaxPerUser_OneMore_EndsTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, with(func(c *session.Config) { c.MaxPerUser = 2 }))
		bystander := g.cached("bob")
		var tokens []string
		for range 5 {
			tokens = append(tokens, g.cached("alice"))
			for i, token := range tokens {
				if i < len(tokens)-2 {
					g.refuse(token, session.ErrUnknown)
				} else {
					g.accept(token)
				}
			}
			g.settle()
			time.Sleep(store.Grace)
		}
		g.accept(bystander)
	})
}

// TestP11_ParallelFirstLogins_Settle: calls that find no token log in all at once.
// None ends another's session, or they would log in for ever.
func TestP11_ParallelFirstLogins_Settle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 10
		g := newGate(t, with(func(c *session.Config) { c.MaxPerUser = limit }))
		var tokens []string
		for range 2 * limit {
			tokens = append(tokens, g.cached("alice"))
		}
		for _, token := range tokens {
			g.accept(token)
		}
		time.Sleep(store.Grace)
		tokens = append(tokens, g.cached("alice"))
		for i, token := range tokens {
			if i <= limit {
				g.refuse(token, session.ErrUnknown)
			} else {
				g.accept(token)
			}
		}
	})
}

// TestLogin_Panic_IsAnswered: a bug ends neither the process nor later logins,
// and all who wait for the code hear of it.
func TestLogin_Panic_IsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, logs := observed()
		held, bad := make(chan struct{}), true
		g := newGate(t, logger, answering(func(context.Context) error {
			if bad {
				<-held
				panic("a bug")
			}
			return nil
		}))
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				l, err := g.Login(t.Context(), request("code", phone))
				if unavailable(t, err); l.Token != "" {
					t.Errorf("got %+v", l)
				}
			})
		}
		synctest.Wait()
		close(held)
		wg.Wait()
		lines := logs.FilterMessage("panicked").All()
		if len(lines) != 1 || lines[0].Level != zap.ErrorLevel {
			t.Fatalf("logged %+v", logs.All())
		}
		if fields := lines[0].ContextMap(); fields["stack"] == "" || fields["panic"] != "string" {
			t.Errorf("logged %+v", fields)
		}
		bad = false
		l, err := g.Login(t.Context(), request("code", phone))
		g.must(err)
		g.accept(l.Token)
	})
}

func TestClose_LoginWithoutClient_EndsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		g := newGate(t, answering(func(context.Context) error {
			<-held
			return nil
		}))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = g.Login(ctx, request("code", phone)) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		var wg sync.WaitGroup
		closed := false
		wg.Go(func() {
			g.must(g.core.Close())
			closed = true
		})
		synctest.Wait()
		if closed {
			t.Fatal("closed while the exchange was under way")
		}
		close(held)
		wg.Wait()
		if n := g.store.Count("Login"); n != 1 {
			t.Errorf("%d logins stored", n)
		}
		unavailable(t, g.store.Health(t.Context()))
	})
}

// TestThreat43_LostAnswer_GoesToTheNextHolder: a telephone changes from Wi-Fi to
// mobile. An answer that a client has goes to no other address.
func TestThreat43_LostAnswer_GoesToTheNextHolder(t *testing.T) {
	wifi, mobile := phone, netip.MustParseAddr("198.51.100.9")
	for name, lose := range map[string]bool{"delivered": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, answering(func(context.Context) error { return nil }))
			first, err := g.Login(t.Context(), request("alice", wifi))
			g.must(err)
			if lose {
				g.Undelivered(request("alice", wifi))
			}
			second, err := g.Login(t.Context(), request("alice", mobile))
			if got := err == nil && second.Token == first.Token; got != lose {
				t.Errorf("the next holder of the code: %v", err)
			}
			third, err := g.Login(t.Context(), request("alice", wifi))
			if got := err == nil && third.Token == first.Token; got == lose {
				t.Errorf("the first client again: %v", err)
			}
		})
	}
}

// TestLogin_NoRoom_SpendsNoCode: the next attempt is a new one. The room is
// free when the exchange is over, not when the client has gone.
func TestLogin_NoRoom_SpendsNoCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		g := newGate(t, answering(func(context.Context) error {
			<-held
			return nil
		}))
		taken, errBusy := 0, errors.New("no room")
		ask := func(ctx context.Context, code string) (session.Login, error) {
			r := request(code, phone)
			r.Begin = func() (func(error), error) {
				if taken == 1 {
					return nil, errBusy
				}
				taken++
				return func(error) { taken-- }, nil
			}
			return g.Login(ctx, r)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go ask(ctx, "first")
		synctest.Wait()
		cancel() // the client is gone, the exchange is not
		synctest.Wait()
		if _, err := ask(t.Context(), "second"); !errors.Is(err, errBusy) {
			t.Errorf("no room, but got %v", err)
		}
		close(held)
		synctest.Wait()
		if taken != 0 {
			t.Error("the room is not given back")
		}
		for _, code := range []string{"first", "second"} {
			l, err := ask(t.Context(), code)
			g.must(err)
			g.accept(l.Token)
		}
	})
}
