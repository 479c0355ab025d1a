package assertion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

var alice = User{OpenID: "oAlice", AppID: "wx0123456789abcdef"}

func parse(t testing.TB, masters ...string) *keyring.Ring {
	t.Helper()
	ring, err := keyring.Parse(strings.Join(masters, ","))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// box returns a way to the keys of shared data.
func box(t testing.TB, d *memstore.Data, masters ...string) (Box, *memstore.Store) {
	s := memstore.New(d)
	return Box{Facts: s, Ring: parse(t, masters...), Shared: true}, s
}

func loaded(t testing.TB, b Box) *Keys {
	t.Helper()
	k := new(Keys)
	if err := k.Load(t.Context(), b, true); err != nil {
		t.Fatal(err)
	}
	return k
}

func keySet(t testing.TB, k *Keys) (set jose.JSONWebKeySet) {
	t.Helper()
	b, err := k.Public()
	if err == nil {
		err = json.Unmarshal(b, &set)
	}
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// verify is what a verifier does, without leeway.
func verify(token string, set jose.JSONWebKeySet, iss, aud string, now time.Time) error {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return err
	}
	var c jwt.Claims
	if err := parsed.Claims(set, &c); err != nil {
		return err
	}
	return c.ValidateWithLeeway(
		jwt.Expected{Issuer: iss, AnyAudience: jwt.Audience{aud}, Subject: alice.OpenID, Time: now},
		0)
}

func TestP12_Token_HoldsForItsAudienceIssuerKeyAndTime(t *testing.T) {
	b, _ := box(t, memstore.NewData(), keyring.NewMasterKey())
	other, _ := box(t, memstore.NewData(), keyring.NewMasterKey())
	keys, now := loaded(t, b), time.Now()
	u := alice
	u.UnionID = "uAlice"
	token, err := NewSigner("https://a.example.com", "orders").Token(keys, u)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, iss, aud string
		keys           *Keys
		at             time.Duration
		ok             bool
	}{
		{"right", "https://a.example.com", "orders", keys, 0, true},
		{"nearly over", "https://a.example.com", "orders", keys, Life - 2*time.Second, true},
		{"over", "https://a.example.com", "orders", keys, Life + time.Second, false},
		{"not yet", "https://a.example.com", "orders", keys, -3 * time.Second, false},
		{"audience", "https://a.example.com", "payments", keys, 0, false},
		{"issuer", "https://b.example.com", "orders", keys, 0, false},
		{"key", "https://a.example.com", "orders", loaded(t, other), 0, false},
	} {
		err := verify(token, keySet(t, c.keys), c.iss, c.aud, now.Add(c.at))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		t.Fatal(err)
	}
	h := parsed.Headers[0]
	if h.ExtraHeaders["typ"] != "JWT" || h.KeyID != keys.List()[0].ID || h.Algorithm != "ES256" {
		t.Errorf("header %+v", h)
	}
	if claims["exp"].(float64)-claims["iat"].(float64) != 60 || claims["appid"] != alice.AppID ||
		claims["unionid"] != "uAlice" || len(claims) != 7 {
		t.Errorf("claims %v", claims)
	}
	var public map[string][]map[string]string
	text, _ := keys.Public()
	if err := json.Unmarshal(text, &public); err != nil || len(public["keys"]) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	for name := range public["keys"][0] {
		if !slices.Contains([]string{"kty", "crv", "x", "y", "kid", "alg", "use"}, name) {
			t.Errorf("the key set shows %s", name)
		}
	}
}

// TestP12_Rotation_NoVerificationFails follows two gates, which ask the store at their
// own pace, through rotations at either. Verifiers keep a key set of either gate as
// long as they may.
func TestP12_Rotation_NoVerificationFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const step = 10 * time.Second
		const audience, issuer = "orders", "https://a.example.com"
		d, master := memstore.NewData(), keyring.NewMasterKey()
		var boxes []Box
		var gates []*Keys
		var signers []*Signer
		for i := range 2 {
			b, _ := box(t, d, master)
			time.Sleep(time.Duration(i) * 13 * time.Second)
			boxes, gates = append(boxes, b), append(gates, loaded(t, b))
			signers = append(signers, NewSigner(issuer, audience))
		}
		type dated[T any] struct {
			at  time.Time
			val T
		}
		var sets []dated[jose.JSONWebKeySet]
		var tokens []dated[string]
		used := make(map[string]bool)
		var ids []string
		for i := range 60 * 6 {
			time.Sleep(step)
			now := time.Now()
			switch i {
			case 30, 31, 150:
				id, from, err := gates[i%2].Rotate(t.Context(), boxes[i%2])
				if err != nil || i != 31 && !from.Equal(time.Unix(now.Add(Lead).Unix(), 0)) {
					t.Fatal(id, from, err)
				}
				ids = append(ids, id)
			}
			for g := range gates {
				if i%6 == g*2 { // each minute
					if err := gates[g].Load(t.Context(), boxes[g], false); err != nil {
						t.Fatal(err)
					}
				}
				sets = append(sets, dated[jose.JSONWebKeySet]{now, keySet(t, gates[g])})
				token, err := signers[g].Token(gates[g], alice)
				if err != nil {
					t.Fatal(err)
				}
				tokens = append(tokens, dated[string]{now, token})
			}
			sets = slices.DeleteFunc(sets, func(s dated[jose.JSONWebKeySet]) bool {
				return now.Sub(s.at) > KeySetAge
			})
			tokens = slices.DeleteFunc(tokens, func(s dated[string]) bool {
				return now.Sub(s.at) > Life/2
			})
			for _, k := range gates[0].List() {
				used[k.ID] = used[k.ID] || k.Signs
			}
			if testing.Short() && i%3 != 0 {
				continue
			}
			for _, tok := range slices.Concat(tokens[:2], tokens[len(tokens)-2:]) {
				for _, set := range slices.Concat(sets[:2], sets[len(sets)-2:]) {
					if err := verify(tok.val, set.val, issuer, audience, now); err != nil {
						t.Fatalf("step %d: a token of %v with keys of %v: %v",
							i, now.Sub(tok.at), now.Sub(set.at), err)
					}
				}
			}
		}
		if len(used) != 3 || ids[0] != ids[1] || ids[2] == ids[0] ||
			!used[ids[0]] || !used[ids[2]] {
			t.Errorf("used %v, rotated to %v", used, ids)
		}
		if set := keySet(t, gates[1]); len(set.Keys) != 1 || set.Keys[0].KeyID != ids[2] {
			t.Errorf("old keys stay published: %v", set)
		}
	})
}

// TestKeys_FirstStart_OneKey: gates that start at the same time use the same key.
func TestKeys_FirstStart_OneKey(t *testing.T) {
	d, master := memstore.NewData(), keyring.NewMasterKey()
	gates := make([]*Keys, 16)
	var wg sync.WaitGroup
	for i := range gates {
		gates[i] = new(Keys)
		b, _ := box(t, d, master)
		wg.Go(func() {
			if err := gates[i].Load(t.Context(), b, true); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, g := range gates {
		if got, want := g.List(), gates[0].List(); len(got) != 1 || got[0] != want[0] {
			t.Errorf("%v and %v", got, want)
		}
	}
}

// TestP12_StoreDown_LastKeysStay: a gate goes on with the keys that it knows, as long
// as no other gate can have replaced them.
func TestP12_StoreDown_LastKeysStay(t *testing.T) {
	for _, shared := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b, s := box(t, memstore.NewData(), keyring.NewMasterKey())
			b.Shared = shared
			k, signer := new(Keys), NewSigner("https://a.example.com", "orders")
			s.SetDown(true)
			if err := k.Load(t.Context(), b, true); !errors.Is(err, store.ErrUnavailable) {
				t.Fatal(err)
			}
			if _, err := signer.Token(k, alice); !errors.Is(err, ErrNoKey) {
				t.Fatal(err)
			}
			if _, err := k.Public(); !errors.Is(err, ErrNoKey) {
				t.Fatal(err)
			}
			s.SetDown(false)
			if err := k.Load(t.Context(), b, true); err != nil {
				t.Fatal(err)
			}
			set := keySet(t, k)
			s.SetDown(true)
			for range 3 * int(Lead/Every) {
				time.Sleep(Every)
				if err := k.Load(t.Context(), b, false); err == nil {
					t.Fatal("the store answers")
				}
				if _, _, err := k.Rotate(t.Context(), b); err == nil {
					t.Fatal("rotated without the store")
				}
			}
			if got := keySet(t, k); len(got.Keys) != 1 || got.Keys[0].KeyID != set.Keys[0].KeyID {
				t.Errorf("published are %v", got)
			}
			if _, err := signer.Token(k, alice); errors.Is(err, ErrNoKey) != shared {
				t.Errorf("shared %v: %v", shared, err)
			}
			s.SetDown(false)
			if err := k.Load(t.Context(), b, false); err != nil {
				t.Fatal(err)
			}
			if _, err := signer.Token(k, alice); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestKeys_StoreLostThem_AreKept: a server that lost its data gets the keys back.
func TestKeys_StoreLostThem_AreKept(t *testing.T) {
	d := memstore.NewData()
	empty := d.Save()
	b, _ := box(t, d, keyring.NewMasterKey())
	k := loaded(t, b)
	d.Restore(empty)
	if err := k.Load(t.Context(), b, false); err != nil {
		t.Fatal(err)
	}
	if got := loaded(t, b).List(); got[0] != k.List()[0] {
		t.Errorf("another gate has %v, want %v", got, k.List())
	}
}

// TestKeys_MasterKeyRotated_SealedAnew: after a start under a new master key the old one
// can go. Without either the keys stay known, and a rotation replaces them.
func TestKeys_MasterKeyRotated_SealedAnew(t *testing.T) {
	d := memstore.NewData()
	one, two := keyring.NewMasterKey(), keyring.NewMasterKey()
	for { // one pair in 64 must not stand in one ring
		if _, err := keyring.Parse(two + "," + one); err == nil {
			break
		}
		two = keyring.NewMasterKey()
	}
	first, _ := box(t, d, one)
	both, _ := box(t, d, two, one)
	second, _ := box(t, d, two)
	want := loaded(t, first).List()[0]

	k := loaded(t, first)
	if err := k.Load(t.Context(), both, false); err != nil {
		t.Fatal(err)
	}
	loaded(t, first) // not sealed anew by the way
	loaded(t, both)
	if got := loaded(t, second).List(); got[0] != want {
		t.Errorf("%v, want %v", got, want)
	}

	if err := k.Load(t.Context(), first, true); !errors.Is(err, errSealed) {
		t.Errorf("a ring without the key: %v", err)
	}
	if got := k.List(); got[0] != want {
		t.Errorf("known are %v, want %v", got, want)
	}
	id, from, err := k.Rotate(t.Context(), first)
	if err != nil || id == want.ID || from.Unix() != 0 || len(k.List()) != 1 {
		t.Errorf("%s %v %v %v", id, from, err, k.List())
	}
	damaged := d.Save()
	damaged.Facts[fact] = []byte("damage")
	d.Restore(damaged)
	if err := new(Keys).Load(t.Context(), first, true); !errors.Is(err, errSealed) {
		t.Errorf("damage: %v", err)
	}
}

// TestP12_Token_CachedForHalfItsLife: a hot request signs nothing.
func TestP12_Token_CachedForHalfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := box(t, memstore.NewData(), keyring.NewMasterKey())
		keys, s := loaded(t, b), NewSigner("https://a.example.com", "orders")
		get := func(u User) string {
			t.Helper()
			token, err := s.Token(keys, u)
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		first := get(alice)
		time.Sleep(Life/2 - time.Second)
		if get(alice) != first {
			t.Error("signed again within half of its life")
		}
		for _, u := range []User{
			{alice.OpenID, "wxother", ""},
			{alice.OpenID, alice.AppID, "u"},
			{"oBob", alice.AppID, ""},
		} {
			if get(u) == first {
				t.Errorf("%v has alice's", u)
			}
		}
		time.Sleep(time.Second)
		if get(alice) == first {
			t.Error("not signed again after half of its life")
		}
		if n := testing.AllocsPerRun(100, func() { get(alice) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// TestP12_ClockSetBack_NoLongAssertion: what was made by a clock that ran ahead is not
// used.
func TestP12_ClockSetBack_NoLongAssertion(t *testing.T) {
	b, _ := box(t, memstore.NewData(), keyring.NewMasterKey())
	keys, s := loaded(t, b), NewSigner("https://a.example.com", "orders")
	for _, ahead := range []time.Duration{time.Second, time.Hour} {
		s.shards[shardOf(alice.OpenID)].put(alice, made{time.Now().Add(ahead).UnixMilli(), "ahead"})
		token, err := s.Token(keys, alice)
		if err != nil || token == "ahead" {
			t.Fatalf("%v ahead: %q, %v", ahead, token, err)
		}
		if err := verify(token, keySet(t, keys), s.issuer, s.audience, time.Now()); err != nil {
			t.Error(err)
		}
	}
}

// TestToken_ManyUsers_BoundedMemory: a full shard forgets its older half.
func TestToken_ManyUsers_BoundedMemory(t *testing.T) {
	var s shard
	for i := range 3 * usersInHalf {
		s.put(User{OpenID: fmt.Sprint(i)}, made{})
	}
	if n := len(s.young) + len(s.old); n > 2*usersInHalf {
		t.Errorf("%d users", n)
	}
	if _, ok := s.get(User{OpenID: fmt.Sprint(3*usersInHalf - 1)}); !ok {
		t.Error("the last one is forgotten")
	}
}

func BenchmarkP12_Token(b *testing.B) {
	bx, _ := box(b, memstore.NewData(), keyring.NewMasterKey())
	keys := new(Keys)
	if err := keys.Load(context.Background(), bx, true); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"hot", "signed"} {
		b.Run(name, func(b *testing.B) {
			s := NewSigner("https://a.example.com", "orders")
			b.ReportAllocs()
			for b.Loop() {
				if name == "signed" {
					clear(s.shards[shardOf(alice.OpenID)].young)
				}
				if _, err := s.Token(keys, alice); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
