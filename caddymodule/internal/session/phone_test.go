package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

const number = "13580006666"

// phoneOf asks for the number of a user.
func (g *gate) phoneOf(id store.UserID, code string) opendata.Phone {
	g.t.Helper()
	p, err := g.Phone(context.Background(), id, code)
	if err != nil {
		g.t.Fatalf("phone: %v", err)
	}
	return p
}

// TestPhone: by default a number goes to the client and is kept nowhere.
func TestPhone(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p))
	token := g.cached("alice")
	if n := g.asks(func() {
		if got := g.phoneOf(alice, number); got != (opendata.Phone{Number: number, PureNumber: number, CountryCode: "86"}) {
			t.Errorf("got %q %q %q", got.Number, got.PureNumber, got.CountryCode)
		}
	}); n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
	if id := g.accept(token); id.Phone != "" || g.record(alice).Phone != nil {
		t.Errorf("shown %q, kept %x", id.Phone, g.record(alice).Phone)
	}
	if want := fmt.Sprintln("PhoneNumber", appA, number, "alice"); p.args[len(p.args)-1] != want {
		t.Errorf("WeChat was asked %q, want %q", p.args[len(p.args)-1], want)
	}
	for _, id := range []store.UserID{{AppID: "wxcccccccccccccccc", OpenID: "alice"}, {}} {
		if _, err := g.Phone(t.Context(), id, number); !errors.Is(err, session.ErrUnknownApp) {
			t.Errorf("%v: %v", id, err)
		}
	}
	if n := p.count("PhoneNumber"); n != 1 {
		t.Errorf("WeChat was asked %d times", n)
	}
}

// TestP3_PhoneRemembered: a number that is kept is at the next request of every session of the user, here and on another gate, until there is another, and nowhere in the clear.
func TestP3_PhoneRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gates, _ := newFleet(t, 2, on(newPlatform()), remembering)
		a, b := gates[0], gates[1]
		tokens := []string{a.login("alice/union").Token, b.login("alice").Token}
		bystander := a.login("bob").Token
		shows := func(want string) {
			t.Helper()
			for _, g := range gates {
				for _, token := range tokens {
					if id := g.accept(token); id.Phone != want || id.UnionID != "union" || id.OpenID != "alice" {
						t.Fatalf("shown %+v, want number %q", id, want)
					}
					cacheAt(g, token)
					if id := g.accept(token); id.Phone != want || id.UnionID != "union" || id.OpenID != "alice" {
						t.Fatalf("shown from the cache %+v, want number %q", id, want)
					}
				}
				if id := g.accept(bystander); id.Phone != "" {
					t.Fatalf("somebody else is shown with %q", id.Phone)
				}
			}
		}
		shows("")
		a.phoneOf(alice, number)
		shows(number)
		if box := a.record(alice).Phone; len(box) == 0 || bytes.Contains(box, []byte(number[:5])) {
			t.Errorf("kept as %q", box)
		}
		b.phoneOf(alice, "2025550100@1")
		shows("12025550100")
		a.must(a.RevokeUser(t.Context(), alice))
		tokens = []string{b.login("alice").Token}
		shows("12025550100")
		a.must(a.Forget(t.Context(), alice))
		tokens = []string{b.login("alice/union").Token}
		shows("")
	})
}

// TestPhoneOff: a number that was kept before is not shown by a configuration that does not ask for it, and is by the next one that does.
func TestPhoneOff(t *testing.T) {
	g := newGate(t, on(newPlatform()), remembering)
	token := g.cached("alice")
	g.phoneOf(alice, number)
	under := func(remember bool) *session.Service {
		return session.New(session.Config{Core: g.core, Apps: []weixin.Credentials{{ID: appA}}, Keys: g.keys, TTL: 1 << 40, RememberPhone: remember})
	}
	for range 2 { // from the store, then from the cache, which both configurations share
		for _, remember := range []bool{true, false, true} {
			id, err := under(remember).Authenticate(t.Context(), token)
			if err != nil || (id.Phone == number) != remember || (id.Phone == "") == remember {
				t.Errorf("remember %v: %+v, %v", remember, id, err)
			}
		}
		g.settle()
	}
}

// TestPhoneRotation: a number opens while its key is in the ring. After that, or when it is damaged, there is none: the user goes on, and the log has one line without it.
func TestPhoneRotation(t *testing.T) {
	data, m := memstore.NewData(), newMasters(2)
	core, logs := observer.New(zap.DebugLevel)
	start := func(masters ...string) *gate {
		return newGate(t, on(newPlatform()), remembering, func(cc *session.CoreConfig, c *session.Config) {
			cc.Store, cc.Logger, c.Keys = memstore.New(data), zap.New(core), newKeys(t, masters...)
		})
	}
	g := start(m[0])
	g.login("alice")
	g.phoneOf(alice, number)
	g = start(m[1], m[0])
	token := g.login("alice").Token
	if id := g.accept(token); id.Phone != number || logs.Len() != 0 {
		t.Fatalf("after a rotation: %+v, logged %v", id, logs.All())
	}
	shown := func(g *gate, what string) {
		t.Helper()
		for range 3 {
			if id := g.accept(token); id.Phone != "" || id.OpenID != "alice" {
				t.Errorf("%s: %+v", what, id)
			}
		}
		lines := logs.TakeAll()
		if len(lines) != 1 || lines[0].Level != zap.WarnLevel || strings.Contains(fmt.Sprint(lines), number[:5]) {
			t.Errorf("%s: logged %v", what, lines)
		}
	}
	shown(start(m[1]), "without the key")
	box := data.Users[alice].Phone
	for _, broken := range [][]byte{{}, {1}, box[:len(box)-1], append(bytes.Clone(box), 0), append([]byte{2}, box[1:]...), g.keys.SealPhone(keyring.User(user("bob")), number), g.keys.SealSessionKey(keyring.User(alice), number).Box} {
		if data.Users[alice].Phone = broken; len(broken) > 0 {
			shown(start(m[1], m[0]), fmt.Sprintf("%x", broken))
		}
	}
}

// TestPhoneRefused: what WeChat says is passed on as it is, after one call, and nothing is kept.
func TestPhoneRefused(t *testing.T) {
	for _, class := range []weixin.Class{weixin.ClassCodeInvalid, weixin.ClassUnavailable, weixin.ClassMisconfigured, weixin.ClassRateLimited} {
		p := newPlatform()
		want := &weixin.Error{Op: "getting phone number", Class: class}
		p.answered = func(_ context.Context, op string) error {
			if op == "PhoneNumber" {
				return want
			}
			return nil
		}
		g := newGate(t, on(p), remembering)
		g.login("alice")
		if got, err := g.Phone(t.Context(), alice, number); err != error(want) || got != (opendata.Phone{}) {
			t.Errorf("%v: %v", class, err)
		}
		if n := p.count("PhoneNumber"); n != 1 || g.store.Count("Amend") != 0 {
			t.Errorf("%v: %d calls, %d changes", class, n, g.store.Count("Amend"))
		}
	}
}

// TestPhoneCostsMoney: no code is spent where the number could not be kept, and a number that was paid for is not lost: neither when the store fails just then nor when the caller leaves.
func TestPhoneCostsMoney(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p), remembering)
	spent := func(want int) {
		t.Helper()
		if n := p.count("PhoneNumber"); n != want {
			t.Fatalf("%d codes are spent, want %d", n, want)
		}
	}
	if _, err := g.Phone(t.Context(), alice, number); !errors.Is(err, session.ErrUnknownUser) {
		t.Errorf("for nobody: %v", err)
	}
	token := g.cached("alice")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ctx := range []context.Context{gone, t.Context()} {
		g.store.SetDown(ctx.Err() == nil)
		if _, err := g.Phone(ctx, alice, number); !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrInvalid) {
			t.Errorf("got %v", err)
		}
	}
	g.store.SetDown(false)
	g.store.SetReadOnly(true)
	if _, err := g.Phone(t.Context(), alice, number); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("without room to keep it: %v", err)
	}
	g.store.SetReadOnly(false)
	if _, err := newGate(t, on(p)).Phone(gone, alice, number); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("without a store: %v", err)
	}
	spent(0)

	p.answered = func(_ context.Context, op string) error { g.store.SetDown(op == "PhoneNumber"); return nil }
	if got := g.phoneOf(alice, number); got.Number != number {
		t.Errorf("got %q", got.Number)
	}
	spent(1)
	g.store.SetDown(false)
	if id := g.accept(token); id.Phone != "" {
		t.Errorf("shown %q", id.Phone)
	}

	leaving, leave := context.WithCancel(t.Context())
	p.answered = func(context.Context, string) error { leave(); return nil }
	if _, err := g.Phone(leaving, alice, number); err != nil {
		t.Error(err)
	}
	spent(2)
	if id := g.accept(token); id.Phone != number {
		t.Errorf("after the caller left: shown %q", id.Phone)
	}
}

// TestPhoneLostAnswer: a number whose writing was not acknowledged may be kept; the next request says which.
func TestPhoneLostAnswer(t *testing.T) {
	g := newGate(t, on(newPlatform()), remembering)
	token := g.cached("alice")
	g.store.After = func(_ context.Context, op string) error {
		if op == "Amend" {
			return store.ErrUnavailable
		}
		return nil
	}
	g.phoneOf(alice, number)
	if id := g.accept(token); id.Phone != number {
		t.Errorf("shown %q", id.Phone)
	}
}

func BenchmarkCachedCheckWithPhone(b *testing.B) {
	g := newGate(b, on(newPlatform()), remembering)
	token := g.cached("alice")
	g.phoneOf(alice, number)
	g.accept(token)
	g.settle()
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if id, err := g.Authenticate(ctx, token); err != nil || id.Phone != number {
			b.Fatal(id, err)
		}
	}
}
