package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

// wantData expects no object, and an error that tells a client no more than
// whether a login will help.
func wantData(t testing.TB, object []byte, err error, again bool, reason opendata.Reason) {
	t.Helper()
	e, ok := errors.AsType[*session.DataError](err)
	if !ok || !errors.Is(err, session.ErrData) || errors.Is(err, session.ErrInvalid) ||
		errors.Is(err, session.ErrUnavailable) {
		t.Fatalf("got %v (%T), want a *DataError", err, err)
	}
	if err.Error() != session.ErrData.Error() || object != nil {
		t.Fatalf("the error is %q, with %d bytes", err, len(object))
	}
	// One wrong key in 256 leaves a padding that is right.
	byChance := reason == opendata.ReasonPadding && e.Reason == opendata.ReasonObject
	if e.LoginAgain != again || e.Reason != reason && !byChance {
		t.Fatalf("login again: %v, reason %q; want %v, %q",
			e.LoginAgain, e.Reason, again, reason)
	}
}

// gateOf returns a gate where a user has logged in with each of the
// session_keys.
func gateOf(t testing.TB, id store.UserID, keys ...string) *gate {
	t.Helper()
	p := newPlatform()
	g := newGate(t, on(p), with(func(c *session.Config) {
		c.Apps = append(c.Apps, weixin.Credentials{ID: id.AppID})
	}))
	for _, k := range keys {
		p.keys[id.OpenID] = k
		g.login(id.OpenID, inApp(id.AppID))
	}
	return g
}

func (g *gate) record(id store.UserID) store.User {
	g.t.Helper()
	u, err := memstore.New(g.store.Data).User(context.Background(), id)
	g.must(err)
	return u
}

// openAs opens data as the gate gives it to an app.
func (g *gate) openAs(id store.UserID, d session.SealedData, want string) {
	g.t.Helper()
	got, err := g.OpenData(context.Background(), id, d)
	if err != nil || string(got) != want {
		g.t.Fatalf("opened %q, %v", got, err)
	}
}

// Data opens under the current session_key and the one before, whichever order
// two logins had at WeChat. The gate asks for a login only where another key is
// the likely cause.
func TestOpenData_TwoKeys_EachOpens(t *testing.T) {
	k := []string{newSessionKey(), newSessionKey(), newSessionKey()}
	g := gateOf(t, alice, k...)
	foreign := `{"watermark":{"timestamp":1,"appid":"wxffffffffffffffff"}}`
	for i, key := range k {
		data := object(alice, "")
		for name, d := range map[string]session.SealedData{
			"":       seal(key, data),
			"signed": sign(seal(key, data), key, "{}"),
		} {
			got, err := g.OpenData(t.Context(), alice, d)
			switch {
			case i == 0 && name == "":
				wantData(t, got, err, true, opendata.ReasonPadding)
			case i == 0:
				wantData(t, got, err, true, opendata.ReasonSignature)
			case err != nil || string(got) != data:
				t.Errorf("key %d %s: %q, %v", i, name, got, err)
			}
		}
		// What opens but is not acceptable is no better after a login.
		if got, err := g.OpenData(t.Context(), alice, seal(key, foreign)); i > 0 {
			wantData(t, got, err, false, opendata.ReasonAppID)
		}
	}
	// Signature and data have one key.
	mixed := sign(seal(k[2], object(alice, "")), k[1], "{}")
	got, err := g.OpenData(t.Context(), alice, mixed)
	wantData(t, got, err, true, opendata.ReasonSignature)

	if u := g.record(alice); u.KeyVersion != 3 {
		t.Errorf("opening data changed the key: version %d", u.KeyVersion)
	}
}

// Where no session_key opens, the gate asks for a login, which brings one.
func TestOpenData_NoKeyOpens_LoginIsNeeded(t *testing.T) {
	key := newSessionKey()
	g := gateOf(t, alice, key)
	d := seal(key, object(alice, ""))
	other := newGate(t, keeping(t, g.store.Data)) // another key ring
	got, err := other.OpenData(t.Context(), alice, d)
	wantData(t, got, err, true, opendata.ReasonSessionKey)

	none := newGate(t)
	_, err = none.store.Login(t.Context(), store.Login{
		User: alice, Digest: store.Digest{1},
		Created: time.Now(), Expires: time.Now().Add(time.Hour),
	})
	none.must(err)
	got, err = none.OpenData(t.Context(), alice, d)
	wantData(t, got, err, true, opendata.ReasonSessionKey)
}

// Whatever is wrong with data, the error is the same and nothing changes.
func TestThreat29_OpenData_Wrong_SameErrorForAll(t *testing.T) {
	key := newSessionKey()
	good := seal(key, object(alice, "found"))
	edit := func(f func(*session.SealedData)) session.SealedData {
		d := sign(good, key, "{}")
		f(&d)
		return d
	}
	iv := func(iv string) session.SealedData {
		return edit(func(d *session.SealedData) { d.IV = iv })
	}
	box := func(box string) session.SealedData {
		return edit(func(d *session.SealedData) { d.EncryptedData = box })
	}
	signed := func(raw []byte, signature string) session.SealedData {
		return edit(func(d *session.SealedData) { d.RawData, d.Signature = raw, signature })
	}
	signature := edit(func(*session.SealedData) {}).Signature
	mark := fmt.Sprintf(`"watermark":{"timestamp":%d,"appid":%q}`, time.Now().Unix(), appA)
	of := func(members string) session.SealedData { return seal(key, "{"+members+"}") }
	marked := func(members string) session.SealedData { return of(members + "," + mark) }
	const block, who = "AAAAAAAAAAAAAAAAAAAAAA==", `"openId":"alice",`
	const found = who + `"unionId":"found"`
	for name, tt := range map[string]struct {
		d      session.SealedData
		again  bool
		reason opendata.Reason
	}{
		"nothing":       {session.SealedData{}, false, opendata.ReasonIV},
		"another iv":    {iv(block), true, opendata.ReasonObject},
		"17 bytes":      {box(block[:22] + "A="), false, opendata.ReasonCiphertext},
		"another block": {box(block), true, opendata.ReasonPadding},

		"signature without data": {signed(nil, signature), false, opendata.ReasonSignature},
		"data without signature": {signed([]byte("{}"), ""), false, opendata.ReasonSignature},
		"empty data, unsigned":   {signed([]byte{}, ""), false, opendata.ReasonSignature},
		"another text": {
			signed([]byte("{ }"), signature), true, opendata.ReasonSignature,
		},

		"foreign watermark": {
			of(found + `,"watermark":{"timestamp":1,"appid":"` + appB + `"}`),
			false, opendata.ReasonAppID,
		},
		"no time": {
			of(found + `,"watermark":{"appid":"` + appA + `"}`), false, opendata.ReasonTime,
		},

		"openid of another user": {
			marked(`"openId":"bob","unionId":"found"`), false, opendata.ReasonOpenID,
		},
		"unionid without user": {marked(`"unionId":"found"`), false, opendata.ReasonUnionID},
		"two unionids":         {marked(found + `,"unionId":"found"`), true, opendata.ReasonObject},
		"half a phone number":  {marked(found + `,"phoneNumber":"1"`), false, opendata.ReasonPhone},
	} {
		t.Run(name, func(t *testing.T) {
			g := gateOf(t, alice, newSessionKey(), key)
			before := g.record(alice)
			got, err := g.OpenData(t.Context(), alice, tt.d)
			wantData(t, got, err, tt.again, tt.reason)
			if n := g.store.Count("Amend"); n != 0 || !reflect.DeepEqual(g.record(alice), before) {
				t.Errorf("%d changes, the user is %+v", n, g.record(alice))
			}
		})
	}
	g := gateOf(t, alice, key)
	if _, err := g.OpenData(t.Context(), alice, edit(func(*session.SealedData) {})); err != nil {
		t.Errorf("the data that each of these changes in one thing: %v", err)
	}
}

// Data is as old as WeChat says, and too old at the second after the limit.
func TestOpenData_Age_IsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newSessionKey()
		p := newPlatform()
		p.keys["alice"] = key
		limit := with(func(c *session.Config) { c.DataMaxAge = time.Hour })
		any, limited := newGate(t, on(p)), newGate(t, on(p), limit)
		any.login("alice")
		limited.login("alice")
		made := func(ago time.Duration) session.SealedData {
			return seal(key, fmt.Sprintf(`{"watermark":{"timestamp":%d,"appid":%q}}`,
				time.Now().Add(-ago).Unix(), appA))
		}
		for ago, ok := range map[time.Duration]bool{
			0:                             true,
			time.Hour:                     true,
			time.Hour + time.Second:       false,
			-10 * time.Minute:             true,
			-10*time.Minute - time.Second: false,
			24 * 365 * time.Hour:          false,
		} {
			got, err := any.OpenData(t.Context(), alice, made(ago))
			if ago < -10*time.Minute {
				wantData(t, got, err, false, opendata.ReasonTime)
			} else if err != nil {
				t.Errorf("made %v ago, without a limit: %v", ago, err)
			}
			got, err = limited.OpenData(t.Context(), alice, made(ago))
			if !ok {
				wantData(t, got, err, false, opendata.ReasonTime)
			} else if err != nil {
				t.Errorf("made %v ago: %v", ago, err)
			}
		}
	})
}

// bound is what UnionIDBound was told.
type bound struct {
	id      store.UserID
	changed bool
}

// A unionid of open data is at the next request of every session of the user,
// here and at another gate, and the audit log hears of it once.
func TestP3_OpenData_UnionID_IsAtEveryGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform()
		var told []bound
		gates, _ := newFleet(t, 2, on(p), with(func(c *session.Config) {
			c.UnionIDBound = func(id store.UserID, changed bool) {
				told = append(told, bound{id, changed})
			}
		}))
		a, b := gates[0], gates[1]
		tokens := []string{a.login("alice").Token, b.login("alice").Token}
		bystander := a.login("bob").Token
		shows := func(want string) {
			t.Helper()
			for _, g := range gates {
				for _, token := range tokens {
					if id := g.accept(token); id.UnionID != want || id.OpenID != "alice" {
						t.Fatalf("shown %+v, want unionid %q", id, want)
					}
					cacheAt(g, token)
				}
				if id := g.accept(bystander); id.UnionID != "" {
					t.Fatalf("another user is shown with unionid %q", id.UnionID)
				}
			}
		}
		open := func(unionID string) {
			t.Helper()
			want := object(alice, unionID)
			a.openAs(alice, seal(p.key("alice"), want), want)
		}
		shows("")
		open("")
		shows("")
		open("first")
		shows("first")
		writes := a.store.Count("Amend")
		open("first")
		open("")
		if n := a.store.Count("Amend"); n != writes {
			t.Errorf("%d writes without news", n-writes)
		}
		open("second")
		shows("second")
		if want := []bound{{alice, false}, {alice, true}}; !reflect.DeepEqual(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
		if ids, err := a.UsersByUnionID(t.Context(), person("second")); err != nil ||
			len(ids) != 1 {
			t.Errorf("found by it: %v, %v", ids, err)
		}
	})
}

// Data from more than 10 minutes before the last login opens and may bring the
// first unionid, but it does not bring back a unionid that another has
// replaced.
func TestOpenData_OldUnionID_DoesNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform()
		g := newGate(t, on(p))
		old := object(alice, "old")
		time.Sleep(time.Hour)
		token := g.login("alice").Token
		open := func(object, want string) {
			t.Helper()
			g.openAs(alice, seal(p.key("alice"), object), object)
			if id := g.accept(token); id.UnionID != want {
				t.Errorf("shown with %q, want %q", id.UnionID, want)
			}
		}
		open(old, "old")
		open(object(alice, "new"), "new")
		open(old, "new")
		late := object(alice, "late")
		time.Sleep(10 * time.Minute) // as far as the two clocks may be apart
		token = g.login("alice").Token
		open(late, "late")
		time.Sleep(time.Second)
		token = g.login("alice").Token
		open(object(alice, "newer"), "newer")
		open(late, "newer")
	})
}

// A check under way does not leave a user in the cache without a unionid found
// meanwhile.
func TestP3_OpenData_CheckMeanwhile_CacheIsRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform()
		g := newGate(t, on(p))
		token := g.login("alice").Token
		held := make(chan struct{})
		g.store.After = holding("Lookup", held)
		go g.Authenticate(context.Background(), token)
		synctest.Wait()
		found := object(alice, "found")
		g.openAs(alice, seal(p.key("alice"), found), found)
		close(held)
		synctest.Wait()
		g.settle()
		if id := g.accept(token); id.UnionID != "found" {
			t.Errorf("shown with %q", id.UnionID)
		}
	})
}

// The gate finishes a binding that has begun, so that no change takes effect
// after the mark in the cache.
func TestOpenData_CallerGone_BindingIsFinished(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p))
	token := g.cached("alice")
	ctx, cancel := context.WithCancel(t.Context())
	g.store.Before = func(c context.Context, op string) error {
		if op == "Amend" {
			cancel()
			return c.Err()
		}
		return nil
	}
	_, err := g.OpenData(ctx, alice, seal(p.key("alice"), object(alice, "found")))
	if err != nil {
		t.Fatal(err)
	}
	if id := g.accept(token); id.UnionID != "found" {
		t.Errorf("shown with %q", id.UnionID)
	}
}

// A store that is down is no fault of the data, and no reason to log in again. A
// binding whose answer was lost shows at once all the same.
func TestP4_OpenData_StoreDown_IsUnavailable(t *testing.T) {
	p := newPlatform()
	told := 0
	g := newGate(t, on(p), with(func(c *session.Config) {
		c.UnionIDBound = func(store.UserID, bool) { told++ }
	}))
	token := g.cached("alice")
	unavailable := func(d session.SealedData) {
		t.Helper()
		got, err := g.OpenData(t.Context(), alice, d)
		if !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrData) ||
			errors.Is(err, session.ErrInvalid) || got != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	d := seal(p.key("alice"), object(alice, "found"))
	g.store.SetDown(true)
	unavailable(d)
	g.store.SetDown(false)
	g.store.After = failing("Amend", store.ErrUnavailable)
	unavailable(d)
	if id := g.accept(token); id.UnionID != "found" || told != 0 {
		t.Errorf("shown with %q, told %d times", id.UnionID, told)
	}
	if _, err := g.OpenData(t.Context(), alice, d); err != nil {
		t.Errorf("again: %v", err)
	}
}

// A user may be unknown from the start, or when the gate binds the unionid.
func TestOpenData_UnknownUser_IsRefused(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p))
	d := seal(p.key("alice"), object(alice, "found"))
	unknown := func() {
		t.Helper()
		got, err := g.OpenData(t.Context(), alice, d)
		if !errors.Is(err, session.ErrUnknownUser) || errors.Is(err, session.ErrUnavailable) ||
			got != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	unknown()
	g.login("alice")
	g.store.Before = failing("Amend", store.ErrNotFound)
	unknown()
}

// No data of a client panics, changes a user without being accepted, or learns
// more than ErrData. Accepted data is an object of this user, whose unionId is
// bound.
func FuzzOpenData(f *testing.F) {
	const current, previous = "AAECAwQFBgcICQoLDA0ODw==", "EBESExQVFhcYGRobHB0eHw=="
	for _, key := range []string{current, previous} {
		for _, o := range []string{
			object(alice, ""), object(alice, "found"), object(user("bob"), "found"), "{", "",
		} {
			d := sign(seal(key, o), key, "{}")
			f.Add(d.EncryptedData, d.IV, []byte(nil), "")
			f.Add(d.EncryptedData, d.IV, d.RawData, d.Signature)
			damaged := strings.NewReplacer("+", " ", "/", "_", "=", "").Replace(d.EncryptedData)
			f.Add(damaged, d.IV+"\n", d.RawData, "")
		}
	}
	f.Add("", "", []byte{}, "")
	f.Add("S+Xe+uPoEBTjCSduZSmD9akAyPJB1z367SOVX+G/Ywg=", previous, []byte(nil), "")
	g := gateOf(f, alice, previous, current)
	clean := g.record(alice)
	f.Fuzz(func(t *testing.T, sealed, iv string, raw []byte, signature string) {
		g.t = t
		d := session.SealedData{EncryptedData: sealed, IV: iv, RawData: raw, Signature: signature}
		got, err := g.OpenData(context.Background(), alice, d)
		now := g.record(alice)
		u := g.store.Data.Users[alice]
		u.UnionID, u.Proof = "", store.Proof{}
		if err != nil {
			e, ok := errors.AsType[*session.DataError](err)
			if !ok || err.Error() != session.ErrData.Error() || got != nil || e.Reason == "" ||
				!reflect.DeepEqual(now, clean) {
				t.Fatalf("got %q, %v (%T), the user is %+v", got, err, err, now)
			}
			return
		}
		var o struct {
			OpenID, UnionID string
			Watermark       struct{ AppID string }
		}
		err = json.Unmarshal(got, &o)
		if err != nil || o.Watermark.AppID != appA || o.OpenID != "" && o.OpenID != "alice" ||
			now.UnionID != o.UnionID {
			t.Fatalf("accepted %q, unionid now %q", got, now.UnionID)
		}
		if want := clean; now.UnionID != "" {
			want.Proof = now.Proof
			if want.UnionID = now.UnionID; !reflect.DeepEqual(now, want) {
				t.Fatalf("the user is %+v", now)
			}
		}
	})
}
