package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
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
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// keysOf returns the session_keys that a gate keeps of a user.
func (g *gate) keysOf(id store.UserID) (current, previous string) {
	g.t.Helper()
	u := g.record(id)
	for k, text := range map[*store.SealedKey]*string{&u.Key: &current, &u.PrevKey: &previous} {
		if k.Box != nil {
			var err error
			*text, err = g.keys.OpenSessionKey(keyring.User(id), k.Box)
			g.must(err)
		}
	}
	return current, previous
}

// The simulator checks tokens and signatures of the client.
func TestUserCalls_Simulator_AnswersAll(t *testing.T) {
	sim := weixintest.NewServer(weixintest.Config{
		Apps: map[string]string{appA: "secretA", appB: "secretB"},
	})
	defer sim.Close()
	sim.SetUser(appA, "alice", weixintest.UserOptions{NoUnionID: true}) // at logins
	client, err := weixin.New(weixin.Config{BaseURL: sim.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	asking := with(func(c *session.Config) { c.WeChat, c.Calls = client, client })
	g := newGate(t, remembering, asking)
	ctx := t.Context()
	l, err := g.Login(ctx, session.LoginRequest{AppID: appA, Code: sim.Code(appA, "alice")})
	g.must(err)
	id := l.User

	object := map[string]string{"openId": id.OpenID, "unionId": "u1"}
	data, err := sim.Encrypt(appA, "alice", object)
	g.must(err)
	sealed := session.SealedData{
		EncryptedData: data.EncryptedData, IV: data.IV,
		RawData: []byte(data.RawData), Signature: data.Signature,
	}
	opened, err := g.OpenData(ctx, id, sealed)
	if err != nil || !strings.Contains(string(opened), `"u1"`) {
		t.Errorf("open data: %q, %v", opened, err)
	}
	if p, err := g.Phone(ctx, id, sim.PhoneCode(appA, number)); err != nil || p.Number != number {
		t.Errorf("phone: %v", err)
	}
	if who := g.accept(l.Token); who.UnionID != "u1" || who.Phone != number {
		t.Errorf("shown %+v", who)
	}
	_, err = g.Phone(ctx, id, sim.PhoneCode(appB, number))
	wantClass(t, err, weixin.ClassCodeInvalid) // the code of another mini program

	if valid, err := g.CheckSessionKey(ctx, id); err != nil || !valid {
		t.Errorf("check: %v, %v", valid, err)
	}
	if keys, err := g.EncryptKeys(ctx, id); err != nil || len(keys) != 1 || keys[0].Version != 1 {
		t.Errorf("encryption keys: %d, %v", len(keys), err)
	}
	was := sim.SessionKey(appA, "alice")
	g.must(g.ResetSessionKey(ctx, id))
	cur, prev := g.keysOf(id)
	if cur != sim.SessionKey(appA, "alice") || cur == was || prev != was {
		t.Error("the gate does not keep the session_key of the reset, or lost the one before")
	}
	if valid, err := g.CheckSessionKey(ctx, id); err != nil || !valid {
		t.Errorf("check after a reset: %v, %v", valid, err)
	}
	if _, err := g.OpenData(ctx, id, sealed); err != nil {
		t.Errorf("data from before the reset: %v", err)
	}

	sim.SetUser(appA, "alice", weixintest.UserOptions{UnionID: "u2"})
	paid := sim.Pay(appA, "alice")
	got, err := g.PaidUnionID(ctx, id, weixin.Payment{TransactionID: paid.TransactionID})
	if err != nil || got != "u2" || g.accept(l.Token).UnionID != "u2" {
		t.Errorf("after a payment: %q, %v", got, err)
	}
	got, err = g.PluginOpenPID(ctx, appA, sim.PluginCode(appA, appB, "alice"))
	if err != nil || got != weixintest.OpenPID(appA, appB, "alice") {
		t.Errorf("plugin: %q, %v", got, err)
	}

	sim.RotateKey(appA, "alice")
	if valid, err := g.CheckSessionKey(ctx, id); err != nil || valid {
		t.Errorf("check of a key that is dead: %v, %v", valid, err)
	}
	wantClass(t, g.ResetSessionKey(ctx, id), weixin.ClassKeyStale)
	_, err = g.EncryptKeys(ctx, id)
	wantClass(t, err, weixin.ClassKeyStale)
}

// calls are the methods that ask WeChat about a user, by what they ask.
func (g *gate) calls(ctx context.Context, id store.UserID) map[string]func() error {
	return map[string]func() error{
		"CheckSession":        func() error { _, err := g.CheckSessionKey(ctx, id); return err },
		"ResetUserSessionKey": func() error { return g.ResetSessionKey(ctx, id) },
		"UserEncryptKey":      func() error { _, err := g.EncryptKeys(ctx, id); return err },
		"PaidUnionID": func() error {
			_, err := g.PaidUnionID(ctx, id, weixin.Payment{TransactionID: "found"})
			return err
		},
		"PhoneNumber": func() error { _, err := g.Phone(ctx, id, number); return err },
	}
}

// An unknown user and an unknown mini program are two errors. The gate does not ask
// WeChat, and changes nothing.
func TestUserCalls_NotPossible_AskNobody(t *testing.T) {
	const unknownApp = "wxcccccccccccccccc"
	p := newPlatform()
	g := newGate(t, on(p), remembering)
	g.login("alice")
	before := g.record(alice)
	for name, call := range g.calls(t.Context(), user("nobody")) {
		err := call()
		if !errors.Is(err, session.ErrUnknownUser) || errors.Is(err, session.ErrUnavailable) {
			t.Errorf("%s for an unknown user: %v", name, err)
		}
	}
	stranger := store.UserID{AppID: unknownApp, OpenID: "alice"}
	for name, call := range g.calls(t.Context(), stranger) {
		if err := call(); !errors.Is(err, session.ErrUnknownApp) {
			t.Errorf("%s in an unknown mini program: %v", name, err)
		}
	}
	_, err := g.PluginOpenPID(t.Context(), unknownApp, "c")
	if !errors.Is(err, session.ErrUnknownApp) {
		t.Errorf("plugin of an unknown mini program: %v", err)
	}
	if n := p.asked(); n != 1 { // the login
		t.Errorf("WeChat was asked %d times", n)
	}
	if !reflect.DeepEqual(g.record(alice), before) {
		t.Errorf("the user is %+v", g.record(alice))
	}
}

// An error of WeChat comes back as it is, after one call, and changes nothing.
func TestP5_UserCalls_WeChatFails_AskOnce(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p), remembering)
	g.login("alice")
	before := g.record(alice)
	boom := &weixin.Error{Class: weixin.ClassUnavailable}
	p.answered = func(context.Context, string) error { return boom }
	calls := g.calls(t.Context(), alice)
	calls["PluginOpenPID"] = func() error {
		_, err := g.PluginOpenPID(t.Context(), appA, "c")
		return err
	}
	for name, call := range calls {
		p.keys["alice"], _ = g.keysOf(alice)
		if err := call(); err != error(boom) {
			t.Errorf("%s: %v", name, err)
		}
		if n := p.count(name); n != 1 {
			t.Errorf("%s: WeChat was asked %d times", name, n)
		}
	}
	if !reflect.DeepEqual(g.record(alice), before) {
		t.Errorf("the user is %+v", g.record(alice))
	}
}

// A session_key that the key ring does not open counts as none.
func TestUserCalls_KeyDoesNotOpen_LoginIsNeeded(t *testing.T) {
	p := newPlatform()
	first := newGate(t, on(p))
	first.login("alice")
	g := newGate(t, on(p), keeping(t, first.store.Data)) // another key ring
	if valid, err := g.CheckSessionKey(t.Context(), alice); err != nil || valid {
		t.Errorf("check: %v, %v", valid, err)
	}
	wantClass(t, g.ResetSessionKey(t.Context(), alice), weixin.ClassKeyStale)
	_, err := g.EncryptKeys(t.Context(), alice)
	wantClass(t, err, weixin.ClassKeyStale)
}

// The gate binds the unionid to the user of the call, whoever the order names.
func TestPaidUnionID_Found_IsBound(t *testing.T) {
	p := newPlatform()
	var told []bound
	g := newGate(t, on(p), with(func(c *session.Config) {
		c.UnionIDBound = func(id store.UserID, changed bool) {
			told = append(told, bound{id, changed})
		}
	}))
	token := g.cached("alice")
	for range 2 {
		order := weixin.Payment{OpenID: "bob", TransactionID: "found"}
		if got, err := g.PaidUnionID(t.Context(), alice, order); err != nil || got != "found" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	shown := g.accept(token).UnionID
	if shown != "found" || len(told) != 1 || told[0] != (bound{alice, false}) {
		t.Errorf("shown with %q, told %v", shown, told)
	}
	if want := fmt.Sprintln("PaidUnionID", appA, "alice"); p.args[len(p.args)-1] != want {
		t.Errorf("WeChat was asked %q, want %q", p.args[len(p.args)-1], want)
	}
	g.store.Before = failing("Amend", store.ErrUnavailable)
	_, err := g.PaidUnionID(t.Context(), alice, weixin.Payment{TransactionID: "another"})
	if !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("without a store: %v", err)
	}
}

// The old key is dead when WeChat has the call, so the gate keeps the new one
// although the caller has gone.
func TestResetSessionKey_CallerGone_NewKeyIsKept(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p))
	g.login("alice")
	ctx, cancel := context.WithCancel(t.Context())
	p.answered = func(context.Context, string) error { cancel(); return nil }
	g.must(g.ResetSessionKey(ctx, alice))
	if cur, _ := g.keysOf(alice); cur != p.key("alice") {
		t.Error("the new key is lost")
	}
	err := g.ResetSessionKey(ctx, alice)
	if n := p.count("ResetUserSessionKey"); !errors.Is(err, session.ErrUnavailable) || n != 1 {
		t.Errorf("of a caller who has gone before: %v, %d resets", err, n)
	}
}

// The gate replaces no key when its store takes no new one. When the store fails
// after the reset, the caller gets an error, and the next login heals it.
func TestResetSessionKey_StoreFails_LoginHeals(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p))
	g.login("alice")
	was := p.key("alice")
	g.store.SetReadOnly(true)
	err := g.ResetSessionKey(t.Context(), alice)
	if !errors.Is(err, session.ErrUnavailable) || p.key("alice") != was {
		t.Errorf("without room to keep it: %v", err)
	}
	g.store.SetReadOnly(false)
	p.answered = func(_ context.Context, op string) error {
		g.store.SetDown(op == "ResetUserSessionKey")
		return nil
	}
	if err := g.ResetSessionKey(t.Context(), alice); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	g.store.SetDown(false)
	if cur, _ := g.keysOf(alice); cur != was {
		t.Error("another key than the new one replaced the old one")
	}
	g.login("alice")
	if cur, prev := g.keysOf(alice); cur != p.key("alice") || prev != was {
		t.Error("a login does not heal it")
	}
}

// Between a reset and the keeping of its key, a login with a later key wins; a
// login with the old key, at a gate with another master key, does not.
func TestResetSessionKey_LoginMeanwhile_LaterKeyWins(t *testing.T) {
	for name, later := range map[string]bool{
		"a later key":                          true,
		"the old key under another master key": false,
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform()
			g, other := twoFirstKeys(t, p)
			g.login("alice")
			was := p.key("alice")
			fresh, login := "", ""
			p.answered = func(_ context.Context, op string) error {
				if op == "ResetUserSessionKey" {
					p.answered = nil
					fresh = p.key("alice")
					if login = was; later {
						login = newSessionKey()
					}
					p.keys["alice"] = login
					other.login("alice")
				}
				return nil
			}
			g.must(g.ResetSessionKey(t.Context(), alice))
			cur, prev := g.keysOf(alice)
			want := fresh
			if later {
				want = login
			}
			if cur != want || prev != was {
				t.Errorf("current: that of the reset %v, of the login %v; previous: the old one %v",
					cur == fresh, cur == login, prev == was)
			}
			if u := g.record(alice); u.KeyVersion != 2 {
				t.Errorf("version %d", u.KeyVersion)
			}
		})
	}
}

// The record may change between the gate's reading and its amendment.
func TestResetSessionKey_RecordChanges_TriesAgain(t *testing.T) {
	p := newPlatform()
	g, other := twoFirstKeys(t, p)
	g.login("alice")
	was := p.key("alice")
	amends := 0
	g.store.Before = func(_ context.Context, op string) error {
		if op == "Amend" {
			if amends++; amends <= 2 {
				fresh := p.keys["alice"]
				p.keys["alice"] = was
				[]*gate{other, g}[amends-1].login("alice") // the same key under another tag
				p.keys["alice"] = fresh
			}
		}
		return nil
	}
	g.must(g.ResetSessionKey(t.Context(), alice))
	if cur, prev := g.keysOf(alice); cur != p.key("alice") || prev != was || amends != 3 {
		t.Errorf("after %d attempts the new key is kept: %v", amends, cur == p.key("alice"))
	}
}

// twoFirstKeys returns gates with the same data and the same two master keys, in
// another order each.
func twoFirstKeys(t *testing.T, p *platform) (g, other *gate) {
	m, data := newMasters(2), memstore.NewData()
	return newGate(t, on(p), keeping(t, data, m[0], m[1])),
		newGate(t, on(p), keeping(t, data, m[1], m[0]))
}

// sameKey answers a reset with the current key.
type sameKey struct{ *platform }

func (p sameKey) ResetUserSessionKey(
	_ context.Context, _ weixin.Credentials, s weixin.Session,
) (weixin.Session, error) {
	return s, nil
}

// The same key under another master key is the same, so the previous one stays.
func TestResetSessionKey_SameKey_PreviousKeyStays(t *testing.T) {
	p, data, m := newPlatform(), memstore.NewData(), newMasters(2)
	start := func(masters ...string) *gate {
		calls := with(func(c *session.Config) { c.WeChat, c.Calls = p, sameKey{p} })
		return newGate(t, calls, keeping(t, data, masters...))
	}
	g := start(m[0])
	g.login("alice")
	first := p.key("alice")
	p.renew("alice")
	g.login("alice")
	g = start(m[1], m[0])
	g.must(g.ResetSessionKey(t.Context(), alice))
	cur, prev := g.keysOf(alice)
	version := g.record(alice).KeyVersion
	if cur != p.key("alice") || prev != first || version != 2 {
		t.Errorf("the previous key is kept: %v; version %d", prev == first, version)
	}
}

// No error shows a session_key, a code, a telephone number or data.
func TestThreat28_UserCalls_ErrorsShowNoSecret(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p), remembering)
	g.login("alice")
	key := p.key("alice")
	secrets := []string{key, number, "found"}
	var errs []error
	collect := func() {
		for _, call := range g.calls(t.Context(), alice) {
			errs = append(errs, call())
		}
		d := sign(seal(newSessionKey(), object(alice, "found")), key, "found")
		_, err := g.OpenData(t.Context(), alice, d)
		errs = append(errs, err)
		_, err = g.OpenData(t.Context(), alice, seal(key, object(alice, "found")))
		errs = append(errs, err)
	}
	g.store.SetDown(true)
	collect()
	g.store.SetDown(false)
	g.store.Before = failing("Amend", store.ErrUnavailable)
	collect()
	failed := 0
	for _, err := range errs {
		for _, secret := range secrets {
			if err != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
				t.Errorf("%q shows %q", err, secret)
			}
		}
		if err != nil {
			failed++
		}
	}
	if failed < 10 {
		t.Errorf("only %d errors", failed)
	}
}

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
