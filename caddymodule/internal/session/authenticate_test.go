package session_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

type counter struct{ atomic.Int64 }

func (c *counter) Inc() { c.Add(1) }

func TestAuthenticate_Token_TellsItsUser(t *testing.T) {
	var hits, misses counter
	g := newGate(t, withCore(func(c *session.CoreConfig) { c.Hits, c.Misses = &hits, &misses }))
	l := g.login("alice/union")
	for i := range 3 {
		id := g.accept(l.Token)
		want := session.Identity{
			AppID: appA, OpenID: "alice", UnionID: "union", Expires: milli(l.Expires),
		}
		if id != want {
			t.Fatalf("check %d: got %+v, want %+v", i, id, want)
		}
		g.settle()
	}
	if id := g.accept(g.login("bob").Token); id.OpenID != "bob" || id.UnionID != "" {
		t.Errorf("a user without unionid: %+v", id)
	}
	g.refuse("junk", session.ErrMalformed)
	g.refuse(newKeys(t).Mint(nobody), session.ErrForged)
	if hits.Load() != 2 || misses.Load() != 2 {
		t.Errorf("%d hits and %d misses counted, want 2 and 2", hits.Load(), misses.Load())
	}
}

// TestP8_CachedCheck: a cached check allocates nothing and asks the store
// nothing, also one that gates share.
func TestP8_CachedCheck(t *testing.T) {
	idle := with(func(c *session.Config) { c.Idle = time.Hour })
	gates, _ := newFleet(t, 1, idle)
	for _, g := range []*gate{newGate(t, idle), gates[0]} {
		token, ctx := g.cached("alice/union"), context.Background()
		var allocs float64
		asked := g.asks(func() {
			allocs = testing.AllocsPerRun(5000, func() {
				if id, err := g.Authenticate(ctx, token); err != nil || id.OpenID != "alice" {
					t.Fatal(id, err)
				}
			})
		})
		if allocs != 0 || asked != 0 {
			t.Errorf("%v allocations, and the store was asked %d times", allocs, asked)
		}
	}
}

func TestP8_MadeUpToken_IsRefusedWithoutStore(t *testing.T) {
	g := newGate(t)
	forged, malformed := newKeys(t).Mint(nobody), strings.Repeat("A", 45)
	if n := g.asks(func() {
		g.refuse(forged, session.ErrForged)
		g.refuse(malformed, session.ErrMalformed)
	}); n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
	check := func() { _, _ = g.Authenticate(context.Background(), malformed) }
	if allocs := testing.AllocsPerRun(1000, check); allocs != 0 {
		t.Errorf("a malformed token costs %v allocations", allocs)
	}
}

// lifetimes records how long the cache is asked to keep what it is given.
type lifetimes struct {
	forgetful
	given []time.Duration
}

func (l *lifetimes) SetWithTTL(_ uint64, _ *session.Entry, _ int64, ttl time.Duration) bool {
	l.given = append(l.given, ttl)
	return false
}

// TestCache_Lifetime_EndsWithTheSession: the cache keeps entries for about ten
// minutes, never past the end of their session, and drops them at different
// times.
func TestCache_Lifetime_EndsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, l := newGate(t, with(func(c *session.Config) { c.TTL = time.Hour })), new(lifetimes)
		g.core.SetEntries(l)
		token := g.login("alice").Token
		for range 50 {
			g.accept(token)
		}
		low, high := slices.Min(l.given), slices.Max(l.given)
		if low < 9*time.Minute || high > 10*time.Minute || low == high {
			t.Errorf("kept from %v to %v", low, high)
		}
		l.given = nil
		time.Sleep(time.Hour - time.Second)
		g.accept(token)
		time.Sleep(time.Second)
		g.refuse(token, session.ErrExpired)
		if !slices.Equal(l.given, []time.Duration{time.Second}) {
			t.Errorf("a second before the end and at the end: kept for %v", l.given)
		}
	})
}

// TestThreat22_Refusals_AreOneKind: the client cannot tell the refusals apart.
// The log can.
func TestThreat22_Refusals_AreOneKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, with(func(c *session.Config) { c.TTL = time.Hour }))
		g.refuse("", session.ErrMalformed)
		g.refuse(newKeys(t).Mint(nobody), session.ErrForged)
		g.refuse(g.keys.Mint(nobody), session.ErrUnknown)
		ended := g.cached("alice")
		g.must(g.Logout(t.Context(), ended))
		g.refuse(ended, session.ErrUnknown)
		for _, revoke := range []func() error{
			func() error { return g.RevokeUser(t.Context(), user("alice"), endRevoked) },
			func() error { return g.RevokeApp(t.Context(), appA) },
			func() error { return g.RevokeAll(t.Context()) },
		} {
			token := g.cached("alice")
			g.must(revoke())
			g.refuse(token, session.ErrRevoked)
		}
		expired := g.cached("alice")
		time.Sleep(time.Hour)
		g.refuse(expired, session.ErrExpired)
	})
}

// TestAuthenticate_ParallelMisses_AskOnce: also when the first of them gives
// up.
func TestAuthenticate_ParallelMisses_AskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		token := g.login("alice").Token
		held := make(chan struct{})
		g.store.Before = holding("Lookup", held)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			id, err := g.Authenticate(ctx, token)
			if g.checkRefused(id, err, session.ErrUnavailable); !errors.Is(err, context.Canceled) {
				t.Errorf("the first: %v", err)
			}
		})
		synctest.Wait()
		for range 50 {
			wg.Go(func() {
				id, err := g.Authenticate(t.Context(), token)
				if err != nil || id.OpenID != "alice" {
					t.Errorf("a joiner: %+v, %v", id, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(held)
		wg.Wait()
		if n := g.store.Count("Lookup"); n != 1 {
			t.Errorf("%d look-ups for 51 checks", n)
		}
	})
}

// TestLogin_OtherUnionID_ShowsAtOnce: the next request of each session of the
// user shows it.
func TestLogin_OtherUnionID_ShowsAtOnce(t *testing.T) {
	g := newGate(t)
	tokens := []string{g.cached("alice"), g.cached("alice"), g.cached("alice")}
	bystander := g.cached("bob/hers")
	for _, union := range []string{"u1", "u2", "", "u2"} {
		l := g.login("alice/" + union)
		want := union
		if union == "" {
			want = "u2" // not told is not unbound
		}
		for _, token := range append(tokens, l.Token) {
			if id := g.accept(token); id.UnionID != want {
				t.Fatalf("told %q, got %+v", union, id)
			}
		}
		if !l.UnionIDBound {
			t.Errorf("told %q: the login says that none is known", union)
		}
		g.settle()
	}
	if id := g.accept(bystander); id.UnionID != "hers" {
		t.Errorf("bystander: %+v", id)
	}
	if g.login("carol").UnionIDBound {
		t.Error("a unionid is bound that nobody told")
	}
}

// TestThreat17_SameCacheKey_OtherIdentity: two tokens whose digests agree in
// the 64 bits of the cache key never share an identity.
func TestThreat17_SameCacheKey_OtherIdentity(t *testing.T) {
	g := newGate(t)
	mallory, victim := g.cached("mallory"), g.cached("alice")
	cache := g.core.Entries()
	key := func(token string) uint64 { return session.DigestKey(session.DigestOf(token)) }
	e, ok := cache.Get(key(victim))
	if !ok {
		t.Fatal("the victim is not cached")
	}
	// The victim's entry, as if mallory had found a token with the same first
	// eight bytes.
	collide := func(token string, d store.Digest) {
		cache.SetWithTTL(key(token), e.WithDigest(d), 1, time.Minute)
		g.settle()
	}
	far := session.DigestOf(mallory)
	for i := 8; i < len(far); i++ {
		near := far
		near[i] ^= 1
		collide(mallory, near)
		if id := g.accept(mallory); id.OpenID != "mallory" {
			t.Fatalf("byte %d of the digest is not compared: mallory is %+v", i, id)
		}
		g.settle()
	}
	unknown := g.keys.Mint(nobody)
	collide(unknown, session.DigestOf(victim))
	g.refuse(unknown, session.ErrUnknown)
	// And that the trick works when the digest is the same: otherwise the test
	// proves nothing.
	collide(mallory, far)
	if id := g.accept(mallory); id.OpenID != "alice" {
		t.Fatalf("the planted entry was not used: %+v", id)
	}
}

// TestP4_StoreDown_CachedSessionsGoOn: all other sessions are unavailable,
// never invalid, and made-up tokens are still refused.
func TestP4_StoreDown_CachedSessionsGoOn(t *testing.T) {
	g := newGate(t)
	cached, cold, revoked := g.cached("alice"), g.login("bob").Token, g.cached("carol")
	g.must(g.RevokeUser(t.Context(), user("carol"), endRevoked))
	g.store.SetDown(true)
	for range 3 {
		if id := g.accept(cached); id.OpenID != "alice" {
			t.Fatalf("cached: %+v", id)
		}
		for _, token := range []string{cold, revoked, g.keys.Mint(nobody)} {
			g.refuse(token, session.ErrUnavailable)
		}
		g.refuse("junk", session.ErrMalformed)
		g.refuse(newKeys(t).Mint(nobody), session.ErrForged)
	}
	g.store.SetDown(false)
	for _, token := range []string{cached, cold} {
		g.accept(token)
	}
	g.refuse(revoked, session.ErrRevoked)
}

// TestP4_StoreHangs_IsUnavailableInTime: within 100 ms (docs/design.md#p4), and
// the session is not over.
func TestP4_StoreHangs_IsUnavailableInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		token := g.login("alice").Token
		g.store.Before = hanging("Lookup")
		start := time.Now()
		id, err := g.Authenticate(t.Context(), token)
		g.checkRefused(id, err, session.ErrUnavailable)
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("answered after %v", d)
		}
		g.store.Before = nil
		g.accept(token)
	})
}

// TestP4_StorePanics_IsUnavailable: a bug of the store does not end the
// process, as a panic on the goroutine of a shared look-up would.
func TestP4_StorePanics_IsUnavailable(t *testing.T) {
	g := newGate(t)
	token := g.login("alice").Token
	g.store.Before = func(_ context.Context, op string) error {
		if op == "Lookup" {
			panic("a bug")
		}
		return nil
	}
	id, err := g.Authenticate(t.Context(), token)
	g.checkRefused(id, err, session.ErrUnavailable)
	g.store.Before = nil
	g.accept(token)
}

// TestAuthenticate_CallerGivesUp_LearnsNothing: at once, and that is no outage.
func TestAuthenticate_CallerGivesUp_LearnsNothing(t *testing.T) {
	g := newGate(t)
	token, cold := g.cached("alice"), g.login("bob").Token
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Authenticate(ctx, token); err != nil {
		t.Errorf("cached: %v", err) // costs nothing, so it is answered
	}
	for range 20 {
		id, err := g.Authenticate(ctx, cold)
		if err == nil {
			continue // the store was quicker than the look at ctx
		}
		if g.checkRefused(id, err, session.ErrUnavailable); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	g.accept(cold)
}

// patientStore is a store that is far away: a check gives up before a look-up does.
type patientStore struct{ *memstore.Store }

func (patientStore) Patience() (check, lookup time.Duration) { return time.Second, time.Minute }

// TestP4_LookupLate_ServesTheRetry: a check gives up in its time. The look-up goes on
// once for all, and the client's retry is answered from the cache.
func TestP4_LookupLate_ServesTheRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *memstore.Store
		g := newGate(t, withCore(func(c *session.CoreConfig) {
			s = c.Store.(*memstore.Store)
			c.Store = patientStore{s}
		}))
		g.store = s
		token := g.login("alice").Token
		held := make(chan struct{})
		g.store.Before = holding("Lookup", held)
		began := time.Now()
		for range 3 {
			_, err := g.Authenticate(t.Context(), token)
			unavailable(t, err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("three checks gave up after %v", took)
		}
		close(held)
		synctest.Wait()
		g.settle()
		if n := g.asks(func() { g.accept(token) }); n != 0 {
			t.Errorf("the retry asked the store %d times", n)
		}
		if n := g.store.Calls()["Lookup"]; n != 1 {
			t.Errorf("%d look-ups for one token", n)
		}
	})
}

const tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// refusal returns the error that a token gets which is not the live one.
func refusal(token string) error {
	rest, prefixed := strings.CutPrefix(token, keyring.TokenPrefix)
	if len(token) != keyring.TokenLen || !utf8.ValidString(token) || !prefixed ||
		strings.Trim(rest, tokenAlphabet) != "" {
		return session.ErrMalformed
	}
	return session.ErrForged
}

// No change of a live token opens anything or costs a call to the store.
func TestThreat21_ChangedToken_IsRefusedWithoutStore(t *testing.T) {
	g := newGate(t)
	token := g.login("alice").Token
	changes := []string{newKeys(t).Mint(nobody), token + "A", " " + token, strings.ToUpper(token)}
	for i := range len(token) {
		changes = append(changes, token[:i], token[:i]+"\x00"+token[i+1:])
		for _, c := range "Aa0-" {
			if byte(c) != token[i] {
				changes = append(changes, token[:i]+string(c)+token[i+1:])
			}
		}
	}
	for _, changed := range changes {
		var err error
		n := g.asks(func() { _, err = g.Authenticate(context.Background(), changed) })
		if n != 0 || !errors.Is(err, refusal(changed)) || !errors.Is(err, session.ErrInvalid) {
			t.Fatalf("%q: %d calls of the store, %v, want %v", changed, n, err, refusal(changed))
		}
	}
	g.accept(token)
}

func TestAuthenticate_RotatedRing_AcceptsOldTokens(t *testing.T) {
	keys := newMasters(2)
	newKey, oldKey := keys[0], keys[1]
	data := memstore.NewData()
	under := func(keys ...string) *gate {
		return newGate(t, keeping(t, data, keys...))
	}
	before := under(oldKey).login("alice").Token
	rotated := under(newKey, oldKey)
	if id := rotated.accept(before); id.OpenID != "alice" {
		t.Fatalf("got %+v", id)
	}
	after := rotated.login("alice").Token
	rotated.accept(after)

	dropped := under(newKey)
	dropped.accept(after)
	if n := dropped.asks(func() { dropped.refuse(before, session.ErrForged) }); n != 0 {
		t.Error("the store was asked for a token whose key is gone")
	}
	under(oldKey).refuse(after, session.ErrForged)
}

// Authenticate accepts nothing but the one live token, and asks the store for
// nothing that no key of the ring has signed.
func FuzzToken(f *testing.F) {
	g := newGate(f)
	live := g.cached("alice")
	unknown := g.keys.Mint(nobody)
	for _, s := range []string{
		"", "wxs_", live, unknown, live[:44], live + "A", newKeys(f).Mint(nobody),
		strings.Repeat("A", 45), "wxs_" + strings.Repeat("é", 41),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		var err error
		n := g.asks(func() { _, err = g.Authenticate(context.Background(), token) })
		switch {
		case token == live:
			if err != nil {
				t.Fatalf("the live token is refused: %v", err)
			}
		case token == unknown:
			if errors.Is(err, context.DeadlineExceeded) {
				return // a busy machine
			}
			if n != 1 || !errors.Is(err, session.ErrUnknown) {
				t.Fatalf("%d calls, %v", n, err)
			}
		case n != 0 || !errors.Is(err, refusal(token)):
			t.Fatalf("%q: %d calls of the store, %v, want %v", token, n, err, refusal(token))
		}
	})
}

// attacks are what one who can write to the store, but has no master key, makes of the
// session behind mallory's token.
var attacks = map[string]func(d *memstore.Data, mallory, alice session.Login){
	"alice's openid and epochs": func(d *memstore.Data, mallory, alice session.Login) {
		s := d.Sessions[mallory.Digest]
		s.User, s.Epochs = alice.User, d.Sessions[alice.Digest].Epochs
		d.Sessions[mallory.Digest] = s
	},
	"alice's record": func(d *memstore.Data, mallory, alice session.Login) {
		d.Sessions[mallory.Digest] = d.Sessions[alice.Digest]
	},
	"the same openid in another mini program": func(d *memstore.Data, mallory, _ session.Login) {
		s := d.Sessions[mallory.Digest]
		was := s.User
		s.User.AppID = appB
		d.Users[s.User], d.Apps[appB] = d.Users[was], s.Epochs.App
		d.Sessions[mallory.Digest] = s
	},
	"a later end": func(d *memstore.Data, mallory, _ session.Login) {
		s := d.Sessions[mallory.Digest]
		s.Expires = s.Expires.Add(time.Millisecond)
		d.Sessions[mallory.Digest] = s
	},
	"a later begin and end": func(d *memstore.Data, mallory, _ session.Login) {
		s := d.Sessions[mallory.Digest]
		s.Created, s.Expires = s.Created.Add(time.Hour), s.Expires.Add(time.Hour)
		d.Sessions[mallory.Digest] = s
	},
	"a later begin, ending soon": func(d *memstore.Data, mallory, _ session.Login) {
		s := d.Sessions[mallory.Digest]
		s.Created, s.Expires = s.Created.Add(time.Hour), s.Created.Add(2*time.Hour)
		d.Sessions[mallory.Digest] = s
	},
}

// TestThreat37_ForgedSession_IsNobody: it is refused for as long as it is there,
// logged once a minute and counted. Other sessions go on, and a login brings
// mallory back as mallory.
func TestThreat37_ForgedSession_IsNobody(t *testing.T) {
	for name, forge := range attacks {
		bubble(t, name, func(t *testing.T) {
			logger, logs := observed()
			var counted counter
			g := newGate(t, logger, withCore(func(c *session.CoreConfig) { c.Foreign = &counted }))
			g.core.SetEntries(newFaultCache(1))
			mallory, alice := g.login("mallory/union"), g.login("alice/union")
			g.accept(mallory.Token)
			g.store.Data.Lock()
			forge(g.store.Data, mallory, alice)
			g.store.Data.Unlock()
			g.core.SetEntries(newFaultCache(2)) // as after a while
			for range 3 {
				g.refuse(mallory.Token, session.ErrForeign)
				g.settle()
			}
			lines := logs.FilterMessage("record in session store is not a gate's; not believed").
				All()
			if len(lines) != 1 || lines[0].Level != zap.ErrorLevel || counted.Load() != 3 {
				t.Errorf("counted %d, logged %+v", counted.Load(), lines)
			}
			time.Sleep(time.Minute)
			g.refuse(mallory.Token, session.ErrForeign)
			if n := logs.FilterMessageSnippet("is not a gate's").Len(); n != 2 {
				t.Errorf("%d lines after a minute", n)
			}
			g.accept(alice.Token)
			again := g.login(
				"mallory",
				func(r *session.LoginRequest) { r.Presented = mallory.Token },
			)
			if id := g.accept(again.Token); id.OpenID != "mallory" {
				t.Errorf("mallory is %+v", id)
			}
			// The login may have shortened the session to less than it was, which is true.
			if id, err := g.authenticate(mallory.Token); err == nil && id.OpenID != "mallory" {
				t.Errorf("mallory's token is %+v", id)
			}
		})
	}
}

// TestThreat37_ForgedUnionID_IsHidden: whatever proof stands beside it. The next login
// shows the true one.
func TestThreat37_ForgedUnionID_IsHidden(t *testing.T) {
	for name, forge := range map[string]func(bob, alice *store.User){
		"proof of bob's": func(bob, alice *store.User) { bob.UnionID = alice.UnionID },
		"proof of alice's": func(bob, alice *store.User) {
			bob.UnionID, bob.Proof = alice.UnionID, alice.Proof
		},
		"no proof": func(bob, alice *store.User) {
			bob.UnionID, bob.Proof = alice.UnionID, store.Proof{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t)
			bob, alice := g.login("bob/his"), g.login("alice/hers")
			users := g.store.Data.Users
			forge(users[bob.User], users[alice.User])
			if id := g.accept(bob.Token); id.OpenID != "bob" || id.UnionID != "" {
				t.Errorf("bob is %+v", id)
			}
			if l := g.login("bob"); l.UnionIDBound {
				t.Error("a login without a unionid counts the forged one as bound")
			}
			other := g.login("bob/his")
			for _, token := range []string{bob.Token, other.Token} {
				if id := g.accept(token); id.UnionID != "his" {
					t.Errorf("after a login: %+v", id)
				}
			}
			if id := g.accept(alice.Token); id.UnionID != "hers" {
				t.Errorf("alice is %+v", id)
			}
		})
	}
}

// TestThreat37_Decrypt_ProvesTheUnionID: also the one that is on record, unproven, from
// a release before.
func TestThreat37_Decrypt_ProvesTheUnionID(t *testing.T) {
	const sessionKey = "AAECAwQFBgcICQoLDA0ODw=="
	g := gateOf(t, alice, sessionKey)
	token := g.login("alice").Token
	g.store.Data.Users[alice].UnionID = "found"
	if id := g.accept(token); id.UnionID != "" {
		t.Errorf("unproven, but shown: %+v", id)
	}
	g.settle()
	text := object(alice, "found")
	g.openAs(alice, seal(sessionKey, text), text)
	if id := g.accept(token); id.UnionID != "found" {
		t.Errorf("after it was proven: %+v", id)
	}
}

// oldToken is one that the release before silentUntil's made, under oldMasterKey.
const (
	oldToken     = "wxs_kg_Wg5o5LC9bdifrVa3k8DWJORYqiGXMGhQluTpMi"
	oldMasterKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// TestThreat37_OldToken_HoldsForATime: sessions of a release before go on after the
// upgrade, with their unionids. Then the gate believes no such record.
func TestThreat37_OldToken_HoldsForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, with(func(c *session.Config) { c.Keys = newKeys(t, oldMasterKey) }))
		now := time.Now()
		session.SetSilentUntil(t, now.Add(time.Hour))
		_, err := g.store.Login(t.Context(), store.Login{
			User: alice, UnionID: "union", Digest: session.DigestOf(oldToken), Created: now,
			Expires: now.Add(2 * time.Hour), UsedUntil: now.Add(time.Minute),
		})
		g.must(err)
		for range 2 {
			if id := g.accept(oldToken); id.OpenID != "alice" || id.UnionID != "union" {
				t.Errorf("an old session: %+v", id)
			}
			time.Sleep(time.Hour - time.Second)
		}
		g.refuse(oldToken, session.ErrForeign)
		g.accept(g.login("alice").Token)
	})
}
