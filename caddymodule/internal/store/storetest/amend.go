package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// everything is an amendment with all that there may be, for a user whose key is key("k").
func everything(n string) store.Amendment {
	return store.Amendment{UnionID: "union " + n, Key: key(n), KeyWas: key("k").Tag, Phone: []byte("number " + n)}
}

func (f *fixture) amend(id store.UserID, a store.Amendment) store.Amended {
	f.t.Helper()
	res, err := f.Amend(f.t.Context(), id, a)
	f.must(err)
	return res
}

// testAmend: what is told is what is then known, at every session of the user, and nothing else has changed.
func testAmend(t *testing.T, f *fixture) {
	first, _ := f.login(alice)
	second, _ := f.login(alice, withKey(key("k")))
	f.login(bob)
	f.login(alice2)
	others := []store.User{f.user(bob), f.user(alice2)}
	k1, k2 := key("k1"), key("k2")
	for _, step := range []struct {
		name string
		a    store.Amendment
		res  store.Amended
		want func(*store.User)
	}{
		{"nothing", store.Amendment{}, store.Amended{}, func(*store.User) {}},
		{"first unionid", store.Amendment{UnionID: "a"}, store.Amended{UnionIDChanged: true}, func(u *store.User) { u.UnionID = "a" }},
		{"the same unionid", store.Amendment{UnionID: "a"}, store.Amended{UnionIDWas: "a"}, func(*store.User) {}},
		{"another unionid", store.Amendment{UnionID: "b"}, store.Amended{UnionIDWas: "a", UnionIDChanged: true}, func(u *store.User) { u.UnionID = "b" }},
		{"number", store.Amendment{Phone: []byte("1")}, store.Amended{UnionIDWas: "b"}, func(u *store.User) { u.Phone = []byte("1") }},
		{"another number", store.Amendment{Phone: []byte("2")}, store.Amended{UnionIDWas: "b"}, func(u *store.User) { u.Phone = []byte("2") }},
		{"key", store.Amendment{Key: k1, KeyWas: key("k").Tag}, store.Amended{UnionIDWas: "b", KeySet: true}, func(u *store.User) {
			u.PrevKey, u.Key, u.KeyVersion = u.Key, k1, 2
		}},
		{"everything", store.Amendment{UnionID: "c", Key: k2, KeyWas: k1.Tag, Phone: []byte("3")}, store.Amended{UnionIDWas: "b", UnionIDChanged: true, KeySet: true}, func(u *store.User) {
			u.UnionID, u.Phone, u.PrevKey, u.Key, u.KeyVersion = "c", []byte("3"), k1, k2, 3
		}},
		{"nothing after that", store.Amendment{KeyWas: k2.Tag}, store.Amended{UnionIDWas: "c"}, func(*store.User) {}},
	} {
		want := f.user(alice)
		step.want(&want)
		if res := f.amend(alice, step.a); res != step.res {
			t.Errorf("%s: %+v, want %+v", step.name, res, step.res)
		}
		if got := f.user(alice); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the user is %+v, want %+v", step.name, got, want)
		}
		for _, l := range []store.Login{first, second} {
			rec, err := f.Lookup(t.Context(), l.Digest)
			f.must(err)
			if !live(rec) || rec.UnionID != want.UnionID || !bytes.Equal(rec.Phone, want.Phone) {
				t.Errorf("%s: a session shows %q, %q, and holds: %v", step.name, rec.UnionID, rec.Phone, live(rec))
			}
		}
	}
	if got := []store.User{f.user(bob), f.user(alice2)}; !reflect.DeepEqual(got, others) {
		t.Errorf("the other users are now %+v, were %+v", got, others)
	}
}

// testAmendNotFound: a user of whom nothing is known has no sessions to show it, and none is made.
func testAmendNotFound(t *testing.T, f *fixture) {
	f.login(alice)
	for _, id := range []store.UserID{bob, alice2, {}} {
		if res, err := f.Amend(t.Context(), id, everything("x")); !errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUnavailable) || res != (store.Amended{}) {
			t.Errorf("%v: %+v, %v", id, res, err)
		}
		if _, err := f.User(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%v is known: %v", id, err)
		}
	}
	f.checkUnion("union x")
	f.must(f.RevokeUser(t.Context(), alice)) // which leaves what is known of the user
	if res := f.amend(alice, everything("x")); !res.UnionIDChanged || !res.KeySet {
		t.Errorf("without a session: %+v", res)
	}
}

// testAmendDurable: it outlives a restart, logins that tell nothing new, and revocations.
func testAmendDurable(t *testing.T, f *fixture) {
	l, _ := f.login(alice)
	f.amend(alice, everything("x"))
	want := f.user(alice)
	f.reopen()
	if got := f.user(alice); !reflect.DeepEqual(got, want) || got.UnionID != "union x" || string(got.Phone) != "number x" || !sameKey(got.Key, key("x")) || !sameKey(got.PrevKey, key("k")) {
		t.Errorf("after a restart the user is %+v, was %+v", got, want)
	}
	if !f.accepted(l.Digest) {
		t.Error("the session does not hold")
	}
	f.login(alice, withKey(key("x")))
	f.must(f.RevokeUser(t.Context(), alice))
	f.must(f.RevokeAll(t.Context()))
	again, _ := f.login(alice, withKey(key("x")))
	rec, err := f.Lookup(t.Context(), again.Digest)
	f.must(err)
	if rec.UnionID != "union x" || string(rec.Phone) != "number x" {
		t.Errorf("a later session shows %q, %q", rec.UnionID, rec.Phone)
	}
	if u := f.user(alice); u.KeyVersion != 2 || !sameKey(u.PrevKey, key("k")) {
		t.Errorf("after logins with the same key the user is %+v", u)
	}
}

// testAmendUnionID: a person is found by what is known now.
func testAmendUnionID(t *testing.T, f *fixture) {
	f.login(alice)
	f.login(alice2)
	f.login(bob, unionID("u"))
	bind := func(id store.UserID, unionID string) { f.amend(id, store.Amendment{UnionID: unionID}) }
	bind(alice, "u")
	f.checkUnion("u", alice, bob)
	bind(alice2, "u")
	f.checkUnion("u", alice, bob, alice2)
	bind(bob, "v")
	f.checkUnion("u", alice, alice2)
	f.checkUnion("v", bob)
	f.amend(alice, store.Amendment{Phone: []byte("1")})
	f.reopen()
	f.checkUnion("u", alice, alice2)
	f.checkUnion("v", bob)
	f.login(alice, unionID("v"))
	f.checkUnion("u", alice2)
	bind(alice, "u")
	f.checkUnion("u", alice, alice2)
	f.checkUnion("v", bob)
	f.checkUnion("")
}

// testAmendKeyWas: a login in between is newer, whatever else the amendment tells is not.
func testAmendKeyWas(t *testing.T, f *fixture) {
	f.login(alice, withKey(key("k")))
	f.login(alice, withKey(key("k2")))
	want := f.user(alice)
	for _, was := range [][8]byte{{}, key("k").Tag, key("new").Tag} {
		if res := f.amend(alice, store.Amendment{Key: key("new"), KeyWas: was}); res.KeySet {
			t.Errorf("the key was replaced although it was not the one with tag %q", was)
		}
		if got := f.user(alice); !reflect.DeepEqual(got, want) {
			t.Errorf("the user is %+v, was %+v", got, want)
		}
	}
	if res := f.amend(alice, everything("x")); res.KeySet || !res.UnionIDChanged {
		t.Errorf("everything: %+v", res)
	}
	if u := f.user(alice); u.UnionID != "union x" || string(u.Phone) != "number x" || !sameKey(u.Key, key("k2")) || u.KeyVersion != 2 {
		t.Errorf("the user is %+v", u)
	}
	// The same key, under a master key that has come since: its predecessor stays.
	again := key("k3")
	if res := f.amend(alice, store.Amendment{Key: again, OldTags: [][8]byte{key("k2").Tag}, KeyWas: key("k2").Tag}); !res.KeySet {
		t.Errorf("the same key: %+v", res)
	}
	if u := f.user(alice); u.KeyVersion != 2 || !sameKey(u.Key, again) || !sameKey(u.PrevKey, key("k")) {
		t.Errorf("the user is %+v", u)
	}
}

// testAmendParallel: amendments and logins of one user at the same time keep each other, and of those that replace the same key one does.
func testAmendParallel(t *testing.T, f *fixture) { amendParallel(t, f, f) }

func testSharedAmend(t *testing.T, p *pair) { amendParallel(t, p.a.fixture, p.b.fixture) }

func amendParallel(t *testing.T, a, b *fixture) {
	a.login(alice, withKey(key("k")))
	var set atomic.Int64
	var winner atomic.Value
	var wg sync.WaitGroup
	made := make([]store.Login, workers/4)
	for i := range workers {
		f := a
		if i%2 == 1 {
			f = b
		}
		wg.Go(func() {
			var err error
			switch i % 4 {
			case 0:
				made[i/4] = newLogin(alice, withKey(key("k")))
				_, err = f.Login(t.Context(), made[i/4])
			case 1:
				_, err = f.Amend(t.Context(), alice, store.Amendment{UnionID: "u"})
			case 2:
				_, err = f.Amend(t.Context(), alice, store.Amendment{Phone: []byte("number")})
			case 3:
				var res store.Amended
				k := key(fmt.Sprint("n", i))
				if res, err = f.Amend(t.Context(), alice, store.Amendment{Key: k, KeyWas: key("gone").Tag}); res.KeySet {
					t.Error("a key was replaced that was not there")
				}
				if err == nil {
					res, err = f.Amend(t.Context(), bob, store.Amendment{Key: k, KeyWas: key("k").Tag})
				}
				if res.KeySet {
					set.Add(1)
					winner.Store(k)
				}
			}
			if err != nil && !(i%4 == 3 && errors.Is(err, store.ErrNotFound)) {
				t.Error(err)
			}
		})
		if i == workers/2 {
			a.login(bob, withKey(key("k"))) // whose key is replaced from then on
		}
	}
	wg.Wait()
	for _, l := range made {
		rec, err := b.Lookup(t.Context(), l.Digest)
		b.must(err)
		if !live(rec) || rec.UnionID != "u" || string(rec.Phone) != "number" {
			t.Errorf("a session shows %q, %q, and holds: %v", rec.UnionID, rec.Phone, live(rec))
		}
	}
	if u := a.user(alice); len(u.Sessions) != len(made)+1 || u.KeyVersion != 1 || !sameKey(u.Key, key("k")) {
		t.Errorf("the user is %+v", u)
	}
	b.checkUnion("u", alice)
	if n := set.Load(); n != 1 {
		t.Fatalf("%d have replaced the same key", n)
	}
	if u := a.user(bob); u.KeyVersion != 2 || !sameKey(u.Key, winner.Load().(store.SealedKey)) || !sameKey(u.PrevKey, key("k")) {
		t.Errorf("the user whose key was replaced is %+v", u)
	}
}

// testAmendRevoke: an amendment that runs beside a revocation does not undo it.
func testAmendRevoke(t *testing.T, f *fixture) {
	for range 8 {
		l, _ := f.login(alice)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if _, err := f.Amend(t.Context(), alice, store.Amendment{UnionID: fmt.Sprint("u", i), Phone: []byte{byte(i)}}); err != nil {
					t.Error(err)
				}
			})
		}
		f.must(f.RevokeUser(t.Context(), alice))
		wg.Wait()
		if f.accepted(l.Digest) {
			t.Error("a revoked session holds")
		}
		checkList(t, f, alice, nil)
	}
}

func (m *model) amend(rt *rapid.T) {
	m.now = m.now.Add(time.Millisecond)
	id := rapid.SampledFrom(modelUsers).Draw(rt, "user")
	a := store.Amendment{UnionID: rapid.SampledFrom([]string{"", "u1", "u2"}).Draw(rt, "unionid")}
	if n := rapid.SampledFrom([]string{"", "p1", "p2"}).Draw(rt, "number"); n != "" {
		a.Phone = []byte(n)
	}
	if rapid.Bool().Draw(rt, "with a key") {
		a.Key, a.OldTags = drawKey(rt)
	}
	u, known := m.users[id]
	if known && rapid.IntRange(0, 3).Draw(rt, "key was") > 0 {
		a.KeyWas = u.tag
	}
	res, err := m.s.Amend(ctxb, id, a)
	if !known {
		if !errors.Is(err, store.ErrNotFound) {
			m.t.Fatalf("amending nobody: %v", err)
		}
		return
	}
	m.must(err)
	want := store.Amended{UnionIDWas: u.unionID, UnionIDChanged: a.UnionID != "" && a.UnionID != u.unionID, KeySet: a.Key.Box != nil && a.KeyWas == u.tag}
	if res != want {
		m.t.Fatalf("amended %+v, want %+v", res, want)
	}
	if want.UnionIDChanged {
		u.unionID = a.UnionID
	}
	if a.Phone != nil {
		u.phone = string(a.Phone)
	}
	if want.KeySet {
		u.setKey(a.Key, a.OldTags)
	}
}
