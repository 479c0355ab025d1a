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

// By default a number goes to the client, and the gate keeps it nowhere.
func TestPhone_Default_NotKept(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p))
	token := g.cached("alice")
	n := g.asks(func() {
		want := opendata.Phone{Number: number, PureNumber: number, CountryCode: "86"}
		if got := g.phoneOf(alice, number); got != want {
			t.Errorf("got %q %q %q", got.Number, got.PureNumber, got.CountryCode)
		}
	})
	if n != 0 {
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

// A remembered number is at the next request of every session of the user, here
// and at another gate, until there is another, and nowhere in the clear.
func TestP3_Phone_Remembered_IsAtEveryGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gates, _ := newFleet(t, 2, on(newPlatform()), remembering)
		a, b := gates[0], gates[1]
		tokens := []string{a.login("alice/union").Token, b.login("alice").Token}
		bystander := a.login("bob").Token
		shows := func(want string) {
			t.Helper()
			for _, g := range gates {
				for _, token := range tokens {
					for _, from := range []string{"store", "cache"} {
						id := g.accept(token)
						if id.Phone != want || id.UnionID != "union" || id.OpenID != "alice" {
							t.Fatalf("shown from the %s %+v, want number %q", from, id, want)
						}
						cacheAt(g, token)
					}
				}
				if id := g.accept(bystander); id.Phone != "" {
					t.Fatalf("another user is shown with %q", id.Phone)
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
		a.must(a.RevokeUser(t.Context(), alice, endRevoked))
		tokens = []string{b.login("alice").Token}
		shows("12025550100")
		a.must(a.Forget(t.Context(), alice, endForgotten))
		tokens = []string{b.login("alice/union").Token}
		shows("")
	})
}

// A configuration without RememberPhone does not show a remembered number.
func TestPhone_RememberOff_NotShown(t *testing.T) {
	g := newGate(t, on(newPlatform()), remembering)
	token := g.cached("alice")
	g.phoneOf(alice, number)
	under := func(remember bool) *session.Service {
		return session.New(session.Config{
			Core: g.core, Apps: []weixin.Credentials{{ID: appA}}, Keys: g.keys,
			TTL: 1 << 40, RememberPhone: remember,
		})
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

// A number opens while its key is in the ring. After that, or damaged, it is
// absent: its user goes on, and the log has one line without it.
func TestPhone_DoesNotOpen_UserGoesOn(t *testing.T) {
	data, m := memstore.NewData(), newMasters(2)
	core, logs := observer.New(zap.DebugLevel)
	start := func(masters ...string) *gate {
		logging := withCore(func(cc *session.CoreConfig) { cc.Logger = zap.New(core) })
		return newGate(t, on(newPlatform()), remembering, logging, keeping(t, data, masters...))
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
		if len(lines) != 1 || lines[0].Level != zap.WarnLevel ||
			strings.Contains(fmt.Sprint(lines), number[:5]) {
			t.Errorf("%s: logged %v", what, lines)
		}
	}
	shown(start(m[1]), "without the key")
	box := data.Users[alice].Phone
	for _, broken := range [][]byte{
		{},
		{1},
		box[:len(box)-1],
		append(bytes.Clone(box), 0),
		append([]byte{2}, box[1:]...),
		g.keys.SealPhone(keyring.User(user("bob")), number),
		g.keys.SealSessionKey(keyring.User(alice), number).Box,
	} {
		if data.Users[alice].Phone = broken; len(broken) > 0 {
			shown(start(m[1], m[0]), fmt.Sprintf("%x", broken))
		}
	}
}

// An error of WeChat comes back as it is, after one call, and changes nothing.
func TestP5_Phone_WeChatFails_AskOnce(t *testing.T) {
	for _, class := range []weixin.Class{
		weixin.ClassCodeInvalid, weixin.ClassUnavailable,
		weixin.ClassMisconfigured, weixin.ClassRateLimited,
	} {
		p := newPlatform()
		want := &weixin.Error{Op: "getting phone number", Class: class}
		p.answered = failing("PhoneNumber", want)
		g := newGate(t, on(p), remembering)
		g.login("alice")
		got, err := g.Phone(t.Context(), alice, number)
		if err != error(want) || got != (opendata.Phone{}) {
			t.Errorf("%v: %v", class, err)
		}
		if n := p.count("PhoneNumber"); n != 1 || g.store.Count("Amend") != 0 {
			t.Errorf("%v: %d calls, %d changes", class, n, g.store.Count("Amend"))
		}
	}
}

// A number costs money. So the gate spends no code when its store takes no
// number, and loses no number when the store fails just then or the caller
// leaves.
func TestPhone_StoreOrCallerFails_NoMoneyIsLost(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p), remembering)
	spent := func(want int) {
		t.Helper()
		if n := p.count("PhoneNumber"); n != want {
			t.Fatalf("%d codes are spent, want %d", n, want)
		}
	}
	if _, err := g.Phone(t.Context(), alice, number); !errors.Is(err, session.ErrUnknownUser) {
		t.Errorf("for an unknown user: %v", err)
	}
	token := g.cached("alice")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ctx := range []context.Context{gone, t.Context()} {
		g.store.SetDown(ctx.Err() == nil)
		_, err := g.Phone(ctx, alice, number)
		if !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrInvalid) {
			t.Errorf("got %v", err)
		}
	}
	g.store.SetDown(false)
	g.store.SetReadOnly(true)
	if _, err := g.Phone(t.Context(), alice, number); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("without room to keep it: %v", err)
	}
	g.store.SetReadOnly(false)
	_, err := newGate(t, on(p)).Phone(gone, alice, number)
	if !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("for a caller who has gone: %v", err)
	}
	spent(0)

	p.answered = func(_ context.Context, op string) error {
		g.store.SetDown(op == "PhoneNumber")
		return nil
	}
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

// The store may have taken a number although its answer was lost.
func TestPhone_AnswerLost_NextRequestTells(t *testing.T) {
	g := newGate(t, on(newPlatform()), remembering)
	token := g.cached("alice")
	g.store.After = failing("Amend", store.ErrUnavailable)
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
