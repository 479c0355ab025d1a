package component_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/component"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPlatform_Authorised_LogsInAndCalls(t *testing.T) {
	w := newWorld(t)
	g := w.ready()
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop))
	w.must(g.Work(t.Context()))

	s, err := g.logIn(shop)
	w.must(err)
	if s.OpenID != w.sim.OpenID(shop, "alice") {
		t.Errorf("openid %s", s.OpenID)
	}
	app := weixin.Credentials{ID: shop, Platform: g.Platform}
	phone, err := g.client.PhoneNumber(t.Context(), app, w.sim.PhoneCode(shop, "13580006666"), "")
	if w.must(err); phone.Number != "13580006666" {
		t.Errorf("phone %+v", phone)
	}
	w.must(g.client.CheckSession(t.Context(), app, s))
	if got := g.state(shop); got != component.Authorized {
		t.Errorf("state %s", got)
	}
	w.calls("api_component_token", 1)
	w.calls("api_query_auth", 1)
	w.calls("api_authorizer_token", 0) // query_auth has brought the first token
}

func TestPlatform_NoTicket_AsksOnceAndSaysSo(t *testing.T) {
	w := newWorld(t)
	g := w.gate()
	_, err := g.logIn(shop)
	if class(err) != weixin.ClassNoTicket || g.Health().Ready {
		t.Errorf("login: %v; health %+v", err, g.Health())
	}
	w.receives(g)
	for range 3 {
		w.must(g.Work(t.Context()))
	}
	w.calls("api_start_push_ticket", 1)
	w.eventually("the ticket that WeChat pushes", func() bool {
		w.must(g.Work(t.Context()))
		return g.Health().Ready
	})
	w.calls("api_start_push_ticket", 1)
}

func TestTake_Ticket(t *testing.T) {
	now := time.Now()
	notice := func(ticket string, made time.Time) push.Message {
		return push.Message{
			AppID: platformID, InfoType: push.VerifyTicket, CreateTime: made,
			ComponentVerifyTicket: ticket,
		}
	}
	w := newWorld(t)
	g := w.gate()
	other := notice("another-platform's", now)
	other.AppID = "wx134c8103faa5a59e"
	for name, c := range map[string]struct {
		m    push.Message
		want error
	}{
		"another platform's": {other, push.ErrReceiver},
		"empty":              {notice("", now), push.ErrMalformed},
		"too long":           {notice(strings.Repeat("t", 2000), now), push.ErrMalformed},
		"unknown kind": {
			push.Message{AppID: platformID, InfoType: "notify_third_fasteregister"}, nil,
		},
	} {
		if err := g.Take(t.Context(), c.m); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if g.Health().Ready || len(w.data.Save().Facts) > 0 {
			t.Errorf("%s changed something", name)
		}
	}
	w.must(g.Take(t.Context(), notice("newer", now)))
	came := g.Health().TicketCame
	w.must(g.Take(t.Context(), notice("older", now.Add(-time.Minute))))
	if !g.Health().Ready || g.Health().TicketCame != came {
		t.Errorf("health %+v", g.Health())
	}
	for _, fact := range w.data.Save().Facts {
		if strings.Contains(string(fact), "newer") {
			t.Error("the ticket is in the store in the clear")
		}
	}
	w.later(component.TicketLife)
	if g.Health().Ready {
		t.Error("a ticket is good for longer than 12 hours")
	}
}

// TestRestart_BetweenTicketAndToken: the ticket is durable before it is acknowledged.
func TestRestart_BetweenTicketAndToken_NothingLost(t *testing.T) {
	w := newWorld(t)
	first := w.gate()
	w.receives(first)
	w.pushed(w.sim.PushTicket(w.t.Context(), platformID))
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop)) // and dies before any work
	w.receives(nil)

	second := w.gate()
	w.must(second.Work(t.Context()))
	_, err := second.logIn(shop)
	w.must(err)
	if got := second.state(shop); got != component.Authorized {
		t.Errorf("state %s", got)
	}
	w.calls("api_start_push_ticket", 0)
}

// TestRestart_BetweenQueryAuthAndStoring: the code is spent, and the list has the token.
func TestRestart_BetweenQueryAuthAndStoring_NothingLost(t *testing.T) {
	w := newWorld(t)
	first := w.ready()
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop))
	first.store.Before = func(_ context.Context, method string) error {
		if method == "SetFact" && w.sim.Count("/cgi-bin/component/api_query_auth") > 0 {
			return errors.New("killed")
		}
		return nil
	}
	if err := first.Work(t.Context()); err == nil {
		t.Fatal("the gate was not killed")
	}

	second := w.gate()
	w.must(second.Work(t.Context()))
	if got := second.state(shop); got != component.Authorized {
		t.Errorf("state %s", got)
	}
	if _, err := second.MerchantToken(t.Context(), shop, ""); err != nil {
		t.Error(err)
	}
	w.calls("api_query_auth", 1) // a code that WeChat may have had never goes out again
	if n := second.Health().Waiting; n != 0 {
		t.Errorf("%d codes wait", n)
	}
}

// TestFleet_AllAskAtOnce: one gate renews for all.
func TestFleet_AllAskAtOnce_OneCall(t *testing.T) {
	w := newWorld(t)
	first := w.ready(shared)
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop))
	w.must(first.Work(t.Context()))
	w.sim.Reset()
	w.sim.ExpireTokens() // before their time

	gates := []*gate{first, w.gate(shared), w.gate(shared)}
	var group sync.WaitGroup
	for _, g := range gates {
		for range 5 {
			group.Go(func() {
				if _, err := g.logIn(shop); err != nil {
					t.Error(err)
				}
			})
			group.Go(func() {
				app := weixin.Credentials{ID: shop, Platform: g.Platform}
				code := w.sim.PhoneCode(shop, "13580006666")
				if _, err := g.client.PhoneNumber(t.Context(), app, code, ""); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	w.calls("api_component_token", 1)
	w.calls("api_authorizer_token", 1)
}

// TestFleet_WorkOfADeadGate: a lease ends with its time.
func TestFleet_LeaseOfADeadGate_Ends(t *testing.T) {
	w := newWorld(t)
	w.receives(w.gate(shared))
	w.pushed(w.sim.PushTicket(w.t.Context(), platformID))
	dead := w.gate(shared)
	w.sim.Inject(weixintest.Fault{
		Kind: weixintest.FaultHang, Path: "/cgi-bin/component/api_component_token",
	})
	ctx, kill := context.WithCancel(t.Context())
	go func() { _, _ = dead.ComponentToken(ctx, "") }()
	w.eventually("the call of the first gate", func() bool {
		return w.sim.Count("/cgi-bin/component/api_component_token") == 1
	})
	dead.store.SetDown(true)
	kill()

	other := w.gate(shared)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := other.ComponentToken(ctx, ""); class(err) != weixin.ClassUnavailable {
		t.Errorf("the lease is not respected: %v", err)
	}
	w.later(time.Minute)
	_, err := other.ComponentToken(t.Context(), "")
	w.must(err)
	w.sim.Close() // ends the call that hangs
}

func TestUnauthorized_ClosesAndEndsSessions(t *testing.T) {
	w := newWorld(t)
	g := w.ready()
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop))
	w.must(g.Work(t.Context()))
	w.later(time.Second)
	w.pushed(w.sim.Unauthorize(w.t.Context(), platformID, shop))
	w.must(g.Work(t.Context()))
	if ok, err := g.Allows(t.Context(), shop); ok || err != nil {
		t.Errorf("allowed %v, %v", ok, err)
	}
	if known, err := g.Knows(t.Context(), shop); !known || err != nil {
		t.Errorf("known %v, %v: its sessions would be refused", known, err)
	}
	if got := w.sessionsEnded(); !slices.Equal(got, []string{shop}) {
		t.Errorf("sessions ended: %q", got)
	}
	if _, err := g.MerchantToken(t.Context(), shop, ""); class(err) != weixin.ClassUnauthorized {
		t.Errorf("token: %v", err)
	}
	// A push of before that comes late changes nothing.
	w.must(g.Take(t.Context(), push.Message{
		AppID: platformID, InfoType: push.Authorized, AuthorizerAppID: shop,
		AuthorizationCode: "late", CreateTime: w.now().Add(-time.Minute),
	}))
	if got := g.state(shop); got != component.Unauthorized {
		t.Errorf("state %s", got)
	}
	w.later(time.Second)
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop)) // again
	w.must(g.Work(t.Context()))
	if _, err := g.MerchantToken(t.Context(), shop, ""); err != nil {
		t.Error(err)
	}
}

// TestStart_NobodyHeard: merchants that came and went while no gate ran.
func TestStart_NobodyHeard_ListTells(t *testing.T) {
	w := newWorld(t)
	first := w.ready()
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop))
	w.must(first.Work(t.Context()))
	w.receives(nil)
	w.later(time.Minute)
	if _, err := w.sim.Unauthorize(w.t.Context(), platformID, shop); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Authorize(w.t.Context(), platformID, otherShop); err != nil {
		t.Fatal(err)
	}
	g := w.gate()
	w.must(g.Work(t.Context()))
	if a, b := g.state(shop), g.state(otherShop); a != component.Unauthorized ||
		b != component.NoToken { // its code was lost with the push
		t.Errorf("states %s, %s", a, b)
	}
	_, err := g.logIn(otherShop)
	w.must(err)
	w.must(g.Work(t.Context()))
	if got := w.sessionsEnded(); !slices.Contains(got, shop) {
		t.Errorf("sessions ended: %q", got)
	}
}

func TestMerchantToken_RefreshTokenVoid_ReadsList(t *testing.T) {
	w := newWorld(t)
	g := w.ready()
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop))
	w.must(g.Work(t.Context()))
	w.must(w.sim.LoseRefreshTokens(platformID))
	w.later(3 * time.Hour)
	_, err := g.MerchantToken(t.Context(), shop, "")
	w.must(err)
	w.calls("api_authorizer_token", 1)
}

// TestDoubted_ListTells: 61003 is that merchant's, and the breaker does not hear of it.
func TestDoubted_ListTells(t *testing.T) {
	w := newWorld(t)
	g := w.ready()
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop))
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, otherShop))
	w.must(g.Work(t.Context()))
	w.receives(nil)
	_, _ = w.sim.Unauthorize(w.t.Context(), platformID, shop)
	for range 40 {
		if _, err := g.logIn(shop); class(err) != weixin.ClassUnauthorized {
			t.Fatalf("login: %v", err)
		}
	}
	if g.client.BreakerOpen() {
		t.Error("one merchant opens the breaker for all")
	}
	_, err := g.logIn(otherShop)
	w.must(err)
	w.later(2 * time.Minute)
	w.must(g.Work(t.Context()))
	if got := g.state(shop); got != component.Unauthorized {
		t.Errorf("state %s", got)
	}
}

// newCrowd is a world of n merchants whose authorisation no gate has heard.
func newCrowd(t testing.TB, n int) (w *world, ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("wx%016x", i))
	}
	w = newWorld(t, ids...)
	w.receives(nil)
	for _, id := range ids {
		_, _ = w.sim.Authorize(w.t.Context(), platformID, id)
	}
	return w, ids
}

func TestWork_ThousandMerchants_PagesOfTheList(t *testing.T) {
	w, ids := newCrowd(t, 1234)
	g := w.ready()
	all, err := g.Merchants(t.Context())
	if w.must(err); len(all) != len(ids) {
		t.Errorf("%d merchants", len(all))
	}
	w.calls("api_get_authorizer_list", 3)
	if _, err := g.logIn(ids[1000]); err != nil {
		t.Error(err)
	}
}

// TestSecrets_Errors_HoldNone: whatever WeChat answers.
func TestSecrets_Errors_HoldNone(t *testing.T) {
	for _, code := range []int{-1, 40001, 40013, 40125, 45009, 61004, 61005, 61006, 61011} {
		w := newWorld(t)
		g := w.gate()
		w.receives(g)
		w.pushed(w.sim.PushTicket(w.t.Context(), platformID))
		w.sim.Inject(weixintest.Fault{
			Kind: weixintest.FaultErrCode, ErrCode: code, Times: -1,
			Path: "/cgi-bin/component/api_component_token",
		})
		_, err := g.logIn(shop)
		if err == nil || strings.Contains(err.Error(), secret) ||
			strings.Contains(err.Error(), "ticket@@@") {
			t.Errorf("%d: %v", code, err)
		}
		if noTicket := code == 61005 || code == 61006; noTicket == g.Health().Ready {
			t.Errorf("%d: health %+v", code, g.Health())
		}
		if w.sim.Count("/cgi-bin/component/api_component_token") > 2 {
			t.Errorf("%d: WeChat was asked too often", code)
		}
	}
}

func TestReseal_MasterKeys(t *testing.T) {
	w := newWorld(t)
	older, newer := strings.Repeat("1", 64), strings.Repeat("2", 64)
	w.ring = newRing(t, older)
	g := w.ready()
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop))
	w.must(g.Work(t.Context()))

	w.ring = newRing(t, newer, older)
	w.must(w.gate().Work(t.Context()))
	w.ring = newRing(t, newer) // the older one is gone
	after := w.gate()
	w.must(after.Work(t.Context()))
	if got := after.state(shop); got != component.Authorized {
		t.Errorf("state %s", got)
	}

	w.ring = newRing(t, keyring.NewMasterKey()) // a mistake
	lost := w.gate()
	if err := lost.Work(t.Context()); !errors.Is(err, component.ErrSealed) {
		t.Fatalf("no state opens: %v", err)
	}
	w.must(lost.Reseal(t.Context(), true))
	w.receives(lost)
	w.pushed(w.sim.PushTicket(w.t.Context(), platformID))
	w.must(lost.Work(t.Context()))
	if got := lost.state(shop); got != component.Authorized {
		t.Errorf("state %s", got)
	}
}

// TestCopy_AnotherStore_GoesOn: with the same ticket, tokens and merchants.
func TestCopy_AnotherStore_GoesOn(t *testing.T) {
	w := newWorld(t)
	old := w.ready()
	w.pushed(w.sim.Authorize(t.Context(), platformID, shop))
	w.must(old.Work(t.Context()))
	w.data = memstore.NewData()
	next := w.gate()
	foreign := newRing(t, keyring.NewMasterKey())
	for ring, want := range map[*keyring.Ring]bool{foreign: false, w.ring: true} {
		copied, err := component.Copy(t.Context(), platformID, old.store, next.store, ring)
		if err != nil || copied != want {
			t.Errorf("copied %v, %v", copied, err)
		}
	}
	w.must(next.Work(t.Context()))
	if _, err := next.logIn(shop); err != nil {
		t.Error(err)
	}
	w.calls("api_component_token", 1)
	w.calls("api_query_auth", 1)
}

// TestRun_Push_WorkBegins: no one waits for the next look.
func TestRun_Push_WorkBegins(t *testing.T) {
	w := newWorld(t)
	g := w.gate()
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { g.Run(ctx) })
	defer run.Wait()
	defer cancel()
	w.receives(g)
	w.pushed(w.sim.PushTicket(w.t.Context(), platformID))
	w.pushed(w.sim.Authorize(w.t.Context(), platformID, shop))
	w.eventually("the tokens of the merchant", func() bool {
		return w.sim.Count("/cgi-bin/component/api_query_auth") > 0 && g.Health().Waiting == 0
	})
	if got := g.state(shop); got != component.Authorized {
		t.Errorf("state %s", got)
	}
}

func BenchmarkAllows_5000Merchants(b *testing.B) {
	w, ids := newCrowd(b, 5000)
	g := w.ready()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if ok, err := g.Allows(b.Context(), ids[i%len(ids)]); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
