package session_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// keysOf returns the session_keys that a gate has of alice.
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

// TestUserCalls: everything in the name of a user, with WeChat's own client against a stand-in that checks tokens and signatures.
func TestUserCalls(t *testing.T) {
	sim := weixintest.NewServer(weixintest.Config{Apps: map[string]string{appA: "secretA", appB: "secretB"}})
	defer sim.Close()
	sim.SetUser(appA, "alice", weixintest.UserOptions{NoUnionID: true}) // at logins
	client, err := weixin.New(weixin.Config{BaseURL: sim.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	g := newGate(t, remembering, with(func(c *session.Config) { c.WeChat, c.Calls = client, client }))
	ctx := t.Context()
	l, err := g.Login(ctx, session.LoginRequest{AppID: appA, Code: sim.Code(appA, "alice")})
	g.must(err)
	id := l.User

	data, err := sim.Encrypt(appA, "alice", map[string]string{"openId": id.OpenID, "unionId": "u1"})
	g.must(err)
	sealed := session.SealedData{EncryptedData: data.EncryptedData, IV: data.IV, RawData: []byte(data.RawData), Signature: data.Signature}
	if got, err := g.OpenData(ctx, id, sealed); err != nil || !strings.Contains(string(got), `"u1"`) {
		t.Errorf("open data: %q, %v", got, err)
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
	if cur, prev := g.keysOf(id); cur != sim.SessionKey(appA, "alice") || cur == was || prev != was {
		t.Error("the session_key that WeChat has given is not the one that is kept, or the one before is lost")
	}
	if valid, err := g.CheckSessionKey(ctx, id); err != nil || !valid {
		t.Errorf("check after a reset: %v, %v", valid, err)
	}
	if _, err := g.OpenData(ctx, id, sealed); err != nil {
		t.Errorf("data from before the reset: %v", err)
	}

	sim.SetUser(appA, "alice", weixintest.UserOptions{UnionID: "u2"})
	paid := sim.Pay(appA, "alice")
	if got, err := g.PaidUnionID(ctx, id, weixin.Payment{TransactionID: paid.TransactionID}); err != nil || got != "u2" || g.accept(l.Token).UnionID != "u2" {
		t.Errorf("after a payment: %q, %v", got, err)
	}
	if got, err := g.PluginOpenPID(ctx, appA, sim.PluginCode(appA, appB, "alice")); err != nil || got != weixintest.OpenPID(appA, appB, "alice") {
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

// calls are all methods that ask WeChat about a user, by what they ask.
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

// TestUserCallsRefused: users and mini programs that are not known are told from a store that does not answer. WeChat is not asked, and nothing is changed.
func TestUserCallsRefused(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p), remembering)
	g.login("alice")
	before := g.record(alice)
	for name, call := range g.calls(t.Context(), user("nobody")) {
		if err := call(); !errors.Is(err, session.ErrUnknownUser) || errors.Is(err, session.ErrUnavailable) {
			t.Errorf("%s for nobody: %v", name, err)
		}
	}
	for name, call := range g.calls(t.Context(), store.UserID{AppID: "wxcccccccccccccccc", OpenID: "alice"}) {
		if err := call(); !errors.Is(err, session.ErrUnknownApp) {
			t.Errorf("%s in an unknown mini program: %v", name, err)
		}
	}
	g.store.SetDown(true)
	for name, call := range g.calls(t.Context(), alice) {
		if err := call(); !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrInvalid) || errors.Is(err, session.ErrUnknownUser) {
			t.Errorf("%s without a store: %v", name, err)
		}
		if n := p.count(name); n != 0 {
			t.Errorf("%s: WeChat was asked %d times", name, n)
		}
	}
	if _, err := g.PluginOpenPID(t.Context(), "wxcccccccccccccccc", "c"); !errors.Is(err, session.ErrUnknownApp) {
		t.Errorf("plugin of an unknown mini program: %v", err)
	}
	if !reflect.DeepEqual(g.record(alice), before) {
		t.Errorf("the user is %+v", g.record(alice))
	}
}

// TestP5_UserCalls: what WeChat says is passed on as it is, after one call, and nothing is changed.
func TestP5_UserCalls(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p), remembering)
	g.login("alice")
	before := g.record(alice)
	boom := &weixin.Error{Class: weixin.ClassUnavailable}
	p.answered = func(context.Context, string) error { return boom }
	calls := g.calls(t.Context(), alice)
	calls["PluginOpenPID"] = func() error { _, err := g.PluginOpenPID(t.Context(), appA, "c"); return err }
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

// TestUserCallsWithoutKey: where no session_key is known that opens, WeChat's client is told so by leaving it out, and a check needs no more to be answered.
func TestUserCallsWithoutKey(t *testing.T) {
	p := newPlatform()
	first := newGate(t, on(p))
	first.login("alice")
	g := newGate(t, on(p), func(cc *session.CoreConfig, _ *session.Config) { cc.Store = memstore.New(first.store.Data) }) // with another key ring
	if valid, err := g.CheckSessionKey(t.Context(), alice); err != nil || valid {
		t.Errorf("check: %v, %v", valid, err)
	}
	wantClass(t, g.ResetSessionKey(t.Context(), alice), weixin.ClassKeyStale)
	_, err := g.EncryptKeys(t.Context(), alice)
	wantClass(t, err, weixin.ClassKeyStale)
}

// TestPaidUnionID: the unionid is bound to the user, who is the one that was paid for whatever the order says.
func TestPaidUnionID(t *testing.T) {
	p := newPlatform()
	var told []bound
	g := newGate(t, on(p), with(func(c *session.Config) {
		c.UnionIDBound = func(id store.UserID, changed bool) { told = append(told, bound{id, changed}) }
	}))
	token := g.cached("alice")
	for range 2 {
		if got, err := g.PaidUnionID(t.Context(), alice, weixin.Payment{OpenID: "bob", TransactionID: "found"}); err != nil || got != "found" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if id := g.accept(token); id.UnionID != "found" || len(told) != 1 || told[0] != (bound{alice, false}) {
		t.Errorf("shown with %q, told %v", id.UnionID, told)
	}
	if want := fmt.Sprintln("PaidUnionID", appA, "alice"); p.args[len(p.args)-1] != want {
		t.Errorf("WeChat was asked %q, want %q", p.args[len(p.args)-1], want)
	}
	g.store.Before = func(_ context.Context, op string) error {
		if op == "Amend" {
			return store.ErrUnavailable
		}
		return nil
	}
	if _, err := g.PaidUnionID(t.Context(), alice, weixin.Payment{TransactionID: "another"}); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("without a store: %v", err)
	}
}

// TestResetCallerGone: the old key is dead when WeChat has the call, so the new one is kept although nobody waits for it.
func TestResetCallerGone(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p))
	g.login("alice")
	ctx, cancel := context.WithCancel(t.Context())
	p.answered = func(context.Context, string) error { cancel(); return nil }
	g.must(g.ResetSessionKey(ctx, alice))
	if cur, _ := g.keysOf(alice); cur != p.key("alice") {
		t.Error("the new key is lost")
	}
	if err := g.ResetSessionKey(ctx, alice); !errors.Is(err, session.ErrUnavailable) || p.count("ResetUserSessionKey") != 1 {
		t.Errorf("of a caller who is gone before: %v, %d resets", err, p.count("ResetUserSessionKey"))
	}
}

// TestResetStoreFails: no key is replaced where the new one cannot be kept. When that turns out too late the caller is told, and a new login heals it.
func TestResetStoreFails(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p))
	g.login("alice")
	was := p.key("alice")
	g.store.SetReadOnly(true)
	if err := g.ResetSessionKey(t.Context(), alice); !errors.Is(err, session.ErrUnavailable) || p.key("alice") != was {
		t.Errorf("without room to keep it: %v", err)
	}
	g.store.SetReadOnly(false)
	p.answered = func(_ context.Context, op string) error { g.store.SetDown(op == "ResetUserSessionKey"); return nil }
	if err := g.ResetSessionKey(t.Context(), alice); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	g.store.SetDown(false)
	if cur, _ := g.keysOf(alice); cur != was {
		t.Error("the key was replaced by another than the new one")
	}
	g.login("alice")
	if cur, prev := g.keysOf(alice); cur != p.key("alice") || prev != was {
		t.Error("a login does not heal it")
	}
}

// TestResetMeanwhile: what comes in between the reset and the keeping of its key. A login with a later key wins; one with the old key, at a gate with another master key, does not.
func TestResetMeanwhile(t *testing.T) {
	m := newMasters(2)
	for name, later := range map[string]bool{"a later key": true, "the old key under another master key": false} {
		t.Run(name, func(t *testing.T) {
			p, data := newPlatform(), memstore.NewData()
			start := func(masters ...string) *gate {
				return newGate(t, on(p), func(cc *session.CoreConfig, c *session.Config) {
					cc.Store, c.Keys = memstore.New(data), newKeys(t, masters...)
				})
			}
			g, other := start(m[0], m[1]), start(m[1], m[0])
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
			if later && (cur != login || prev != was) || !later && (cur != fresh || prev != was) {
				t.Errorf("the reset was lost to an older key, or a login to the reset: fresh %v, login %v, was before %v", cur == fresh, cur == login, prev == was)
			}
			if u := g.record(alice); u.KeyVersion != 2 {
				t.Errorf("version %d", u.KeyVersion)
			}
		})
	}
}

// TestResetMeanwhileAmended is the moment after that: the record changes between the look at it and the amendment.
func TestResetMeanwhileAmended(t *testing.T) {
	m := newMasters(2)
	p, data := newPlatform(), memstore.NewData()
	start := func(masters ...string) *gate {
		return newGate(t, on(p), func(cc *session.CoreConfig, c *session.Config) {
			cc.Store, c.Keys = memstore.New(data), newKeys(t, masters...)
		})
	}
	g, other := start(m[0], m[1]), start(m[1], m[0])
	g.login("alice")
	was := p.key("alice")
	amends := 0
	g.store.Before = func(_ context.Context, op string) error {
		if op == "Amend" {
			if amends++; amends <= 2 {
				fresh := p.keys["alice"]
				p.keys["alice"] = was
				[]*gate{other, g}[amends-1].login("alice") // the same key, each time under another tag
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

// sameKey is a platform that answers a reset with the key that there is.
type sameKey struct{ *platform }

func (p sameKey) ResetUserSessionKey(_ context.Context, _ weixin.Credentials, s weixin.Session) (weixin.Session, error) {
	return s, nil
}

// TestResetToTheSame: the same key under another master key is the same, and the one before it is not lost to it.
func TestResetToTheSame(t *testing.T) {
	p, data, m := newPlatform(), memstore.NewData(), newMasters(2)
	start := func(masters ...string) *gate {
		return newGate(t, func(cc *session.CoreConfig, c *session.Config) {
			cc.Store, c.WeChat, c.Calls, c.Keys = memstore.New(data), p, sameKey{p}, newKeys(t, masters...)
		})
	}
	g := start(m[0])
	g.login("alice")
	first := p.key("alice")
	p.renew("alice")
	g.login("alice")
	g = start(m[1], m[0])
	g.must(g.ResetSessionKey(t.Context(), alice))
	if cur, prev := g.keysOf(alice); cur != p.key("alice") || prev != first || g.record(alice).KeyVersion != 2 {
		t.Errorf("the previous key is kept: %v; version %d", prev == first, g.record(alice).KeyVersion)
	}
}

// TestThreat28_UserCalls: no error of any of these shows a session_key, a code, a number or data.
func TestThreat28_UserCalls(t *testing.T) {
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
		_, err := g.OpenData(t.Context(), alice, sign(seal(newSessionKey(), object(alice, "found")), key, "found"))
		errs = append(errs, err)
		_, err = g.OpenData(t.Context(), alice, seal(key, object(alice, "found")))
		errs = append(errs, err)
	}
	g.store.SetDown(true)
	collect()
	g.store.SetDown(false)
	g.store.Before = func(_ context.Context, op string) error {
		if op == "Amend" {
			return store.ErrUnavailable
		}
		return nil
	}
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
