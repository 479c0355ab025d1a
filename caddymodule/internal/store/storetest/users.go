package storetest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// everything is an amendment of all facts, for a user whose key is key("k").
func everything(n string) store.Amendment {
	return store.Amendment{
		UnionID: "union " + n, Phone: []byte("number " + n),
		Key: key(n), KeyWas: key("k").Tag,
	}
}

func (f *fixture) amend(id store.UserID, a store.Amendment) store.Amended {
	f.t.Helper()
	res, err := f.Amend(f.t.Context(), id, a)
	f.must(err)
	return res
}

// shows reports whether a session holds and shows these facts.
func (f *fixture) shows(l store.Login, unionID, phone string) bool {
	f.t.Helper()
	rec := f.lookup(l.Digest)
	return live(rec) && rec.UnionID == unionID && string(rec.Phone) == phone
}

// Every session of the user shows the new facts. Nothing else changes.
func testAmend(t *testing.T, f *fixture) {
	first, _ := f.login(alice)
	second, _ := f.login(alice, withKey(key("k")))
	f.login(bob)
	f.login(alice2)
	others := []store.User{f.user(bob), f.user(alice2)}
	k1, k2 := key("k1"), key("k2")
	phone := func(n string) func(*store.User) {
		return func(u *store.User) { u.Phone = []byte(n) }
	}
	union := func(id string) func(*store.User) {
		return func(u *store.User) { u.UnionID = id }
	}
	nothing := func(*store.User) {}
	for _, step := range []struct {
		name string
		a    store.Amendment
		res  store.Amended
		want func(*store.User)
	}{
		{"nothing", store.Amendment{}, store.Amended{}, nothing},
		{
			"first unionid",
			store.Amendment{UnionID: "a"},
			store.Amended{UnionIDChanged: true},
			union("a"),
		},
		{
			"the same unionid",
			store.Amendment{UnionID: "a"},
			store.Amended{UnionIDWas: "a"},
			nothing,
		},
		{
			"another unionid",
			store.Amendment{UnionID: "b"},
			store.Amended{UnionIDWas: "a", UnionIDChanged: true},
			union("b"),
		},
		{
			"number",
			store.Amendment{Phone: []byte("1")},
			store.Amended{UnionIDWas: "b"},
			phone("1"),
		},
		{
			"another number",
			store.Amendment{Phone: []byte("2")},
			store.Amended{UnionIDWas: "b"},
			phone("2"),
		},
		{
			"no number",
			store.Amendment{Phone: []byte{}},
			store.Amended{UnionIDWas: "b"},
			func(u *store.User) { u.Phone = nil },
		},
		{
			"key",
			store.Amendment{Key: k1, KeyWas: key("k").Tag},
			store.Amended{UnionIDWas: "b", KeySet: true},
			func(u *store.User) { u.PrevKey, u.Key, u.KeyVersion = u.Key, k1, 2 },
		},
		{
			"everything",
			store.Amendment{UnionID: "c", Key: k2, KeyWas: k1.Tag, Phone: []byte("3")},
			store.Amended{UnionIDWas: "b", UnionIDChanged: true, KeySet: true},
			func(u *store.User) {
				u.UnionID, u.Phone, u.PrevKey, u.Key, u.KeyVersion = "c", []byte("3"), k1, k2, 3
			},
		},
		{
			"no key",
			store.Amendment{KeyWas: k2.Tag},
			store.Amended{UnionIDWas: "c"},
			nothing,
		},
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
			if !f.shows(l, want.UnionID, string(want.Phone)) {
				t.Errorf("%s: a session shows %+v", step.name, f.lookup(l.Digest))
			}
		}
	}
	if got := []store.User{f.user(bob), f.user(alice2)}; !reflect.DeepEqual(got, others) {
		t.Errorf("the other users are now %+v, were %+v", got, others)
	}
}

// An amendment makes no user.
func testAmendNotFound(t *testing.T, f *fixture) {
	f.login(alice)
	for _, id := range []store.UserID{bob, alice2, {}} {
		res, err := f.Amend(t.Context(), id, everything("x"))
		if !notFound(err) || res != (store.Amended{}) {
			t.Errorf("%v: %+v, %v", id, res, err)
		}
		if _, err := f.User(t.Context(), id); !notFound(err) {
			t.Errorf("%v is known: %v", id, err)
		}
	}
	f.checkUnion("union x")
	f.must(f.RevokeUser(t.Context(), alice, store.EndRevoked)) // leaves the user's facts
	if res := f.amend(alice, everything("x")); !res.UnionIDChanged || !res.KeySet {
		t.Errorf("without a session: %+v", res)
	}
}

// Amended facts outlive a restart, logins that tell nothing new, and revocations.
func testAmendDurable(t *testing.T, f *fixture) {
	l, _ := f.login(alice)
	f.amend(alice, everything("x"))
	want := f.user(alice)
	f.reopen()
	if got := f.user(alice); !reflect.DeepEqual(got, want) ||
		got.UnionID != "union x" || string(got.Phone) != "number x" ||
		!sameKey(got.Key, key("x")) || !sameKey(got.PrevKey, key("k")) {
		t.Errorf("after a restart the user is %+v, was %+v", got, want)
	}
	f.checkAccepted(true, "after a restart", l)
	f.login(alice, withKey(key("x")))
	f.must(f.RevokeUser(t.Context(), alice, store.EndRevoked))
	f.must(f.RevokeAll(t.Context()))
	again, _ := f.login(alice, withKey(key("x")))
	if !f.shows(again, "union x", "number x") {
		t.Errorf("a later session shows %+v", f.lookup(again.Digest))
	}
	if u := f.user(alice); u.KeyVersion != 2 || !sameKey(u.PrevKey, key("k")) {
		t.Errorf("after logins with the same key the user is %+v", u)
	}
}

// ByUnionID finds users by the amended unionid.
func testAmendUnionID(t *testing.T, f *fixture) {
	f.login(alice)
	f.login(alice2)
	f.login(bob, unionID("u"))
	bind := func(id store.UserID, unionID string) {
		f.amend(id, store.Amendment{UnionID: unionID})
	}
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

// The key of a login in between is newer than that of the amendment.
func testAmendKeyWas(t *testing.T, f *fixture) {
	f.login(alice, withKey(key("k")))
	f.login(alice, withKey(key("k2")))
	want := f.user(alice)
	for _, was := range [][8]byte{{}, key("k").Tag, key("new").Tag} {
		res := f.amend(alice, store.Amendment{Key: key("new"), KeyWas: was})
		if got := f.user(alice); res.KeySet || !reflect.DeepEqual(got, want) {
			t.Errorf("key was %q: %+v, the user is %+v, was %+v", was, res, got, want)
		}
	}
	if res := f.amend(alice, everything("x")); res.KeySet || !res.UnionIDChanged {
		t.Errorf("everything: %+v", res)
	}
	u := f.user(alice)
	if u.UnionID != "union x" || string(u.Phone) != "number x" ||
		!sameKey(u.Key, key("k2")) || u.KeyVersion != 2 {
		t.Errorf("the user is %+v", u)
	}
	// The same key under a newer master key keeps its predecessor.
	k2 := key("k2").Tag
	res := f.amend(alice, store.Amendment{Key: key("k3"), OldTags: [][8]byte{k2}, KeyWas: k2})
	u = f.user(alice)
	if !res.KeySet || u.KeyVersion != 2 ||
		!sameKey(u.Key, key("k3")) || !sameKey(u.PrevKey, key("k")) {
		t.Errorf("the same key: %+v, the user is %+v", res, u)
	}
}

// amendParallel checks that amendments and logins of one user at the same time
// keep each other, and that one of several replaces the same key.
func amendParallel(t *testing.T, a, b *fixture) {
	a.login(alice, withKey(key("k")))
	a.login(bob, withKey(key("k")))
	var set atomic.Int64
	var winner atomic.Value
	made := make([]store.Login, workers/4)
	parallel(workers, func(i int) {
		f := []*fixture{a, b}[i%2]
		var err error
		switch i / 2 % 4 {
		case 0:
			l := newLogin(alice, withKey(key("k")))
			made[i/8*2+i%2] = l
			_, err = f.Login(t.Context(), l)
		case 1:
			_, err = f.Amend(t.Context(), alice, store.Amendment{UnionID: "u"})
		case 2:
			_, err = f.Amend(t.Context(), alice, store.Amendment{Phone: []byte("number")})
		case 3:
			var res store.Amended
			k := key(fmt.Sprint("n", i))
			res, err = f.Amend(t.Context(), alice, store.Amendment{Key: k, KeyWas: key("gone").Tag})
			if res.KeySet {
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
		if err != nil {
			t.Error(err)
		}
	})
	for _, l := range made {
		if !b.shows(l, "u", "number") {
			t.Errorf("a session shows %+v", b.lookup(l.Digest))
		}
	}
	u := a.user(alice)
	if len(u.Sessions) != len(made)+1 || u.KeyVersion != 1 || !sameKey(u.Key, key("k")) {
		t.Errorf("the user is %+v", u)
	}
	b.checkUnion("u", alice)
	if n := set.Load(); n != 1 {
		t.Fatalf("%d have replaced the same key", n)
	}
	u = a.user(bob)
	if u.KeyVersion != 2 || !sameKey(u.Key, winner.Load().(store.SealedKey)) ||
		!sameKey(u.PrevKey, key("k")) {
		t.Errorf("the user whose key was replaced is %+v", u)
	}
}

// An amendment beside a revocation does not undo it.
func testAmendRevoke(t *testing.T, f *fixture) {
	for range 8 {
		l, _ := f.login(alice)
		parallel(9, func(i int) {
			a := store.Amendment{UnionID: fmt.Sprint("u", i), Phone: []byte{byte(i)}}
			_, err := f.Amend(t.Context(), alice, a)
			if i == 8 {
				err = f.RevokeUser(t.Context(), alice, store.EndRevoked)
			}
			if err != nil {
				t.Error(err)
			}
		})
		f.checkAccepted(false, "after a revocation", l)
		f.checkList(alice)
	}
}

// Forget leaves nothing of the user and all of the others. A later login finds no
// user.
func testForget(t *testing.T, f *fixture) {
	first, _ := f.login(alice, unionID("u"), withKey(key("k")))
	second, _ := f.login(alice, withKey(key("k2")))
	f.amend(alice, store.Amendment{Phone: []byte("number")})
	kept, _ := f.login(bob, unionID("u"))
	other, _ := f.login(alice2, unionID("u"))
	others := []store.User{f.user(bob), f.user(alice2)}
	f.must(f.Forget(t.Context(), alice, store.EndForgotten))
	gone := func(when string) {
		t.Helper()
		if u, err := f.User(t.Context(), alice); !notFound(err) {
			t.Errorf("%s: the user is %+v, %v", when, u, err)
		}
		for _, l := range []store.Login{first, second} {
			if _, err := f.Lookup(t.Context(), l.Digest); !notFound(err) {
				t.Errorf("%s: lookup of a session: %v", when, err)
			}
		}
		if got := []store.User{f.user(bob), f.user(alice2)}; !reflect.DeepEqual(got, others) {
			t.Errorf("%s: the other users are %+v, were %+v", when, got, others)
		}
		f.checkAccepted(true, when, kept, other)
		f.checkUnion("u", bob, alice2)
	}
	gone("at once")
	f.must(f.Forget(t.Context(), alice, store.EndForgotten))
	gone("again")
	f.reopen()
	gone("after a restart")

	l, res := f.login(alice, withKey(key("k3")))
	if res.UnionID != "" || res.UnionIDChanged || len(res.Ended) != 0 {
		t.Errorf("the next login: %+v", res)
	}
	f.checkRecorded(l)
	if f.user(alice).Phone != nil {
		t.Error("the telephone number is back")
	}
	f.checkAccepted(false, "after the next login", first, second)
	f.checkUnion("u", bob, alice2)
}

// Whatever runs beside Forget, the sessions of before end. A later login holds
// and shows no earlier amendment.
func testForgetParallel(t *testing.T, f *fixture) {
	for range 4 {
		before, _ := f.login(alice, unionID("old"))
		made := make([]store.Login, 4)
		parallel(9, func(i int) {
			var err error
			switch {
			case i == 8:
				err = f.Forget(t.Context(), alice, store.EndForgotten)
			case i%2 == 0:
				made[i/2] = newLogin(alice)
				_, err = f.Login(t.Context(), made[i/2])
			default:
				_, err = f.Amend(t.Context(), alice, store.Amendment{Phone: []byte("number")})
				if notFound(err) {
					err = nil
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
		f.checkAccepted(false, "after Forget", before)
		f.checkUnion("old")
		var listed []store.Digest
		if u, err := f.User(t.Context(), alice); err == nil {
			listed = digestsOf(u.Sessions)
		}
		for _, l := range made {
			f.checkAccepted(slices.Contains(listed, l.Digest), "as it is listed", l)
		}
		f.must(f.Forget(t.Context(), alice, store.EndForgotten))
		after, _ := f.login(alice)
		if !f.shows(after, "", "") || len(f.user(alice).Sessions) != 1 {
			t.Errorf("after it the user is %+v", f.user(alice))
		}
	}
}

// byUnionID returns the users of a unionid in an order of their own.
func byUnionID(s store.Store, unionID string) ([]store.UserID, error) {
	ids, err := s.ByUnionID(ctxb, unionID)
	slices.SortFunc(ids, func(a, b store.UserID) int {
		return strings.Compare(a.AppID+a.OpenID, b.AppID+b.OpenID)
	})
	return ids, err
}

func (f *fixture) checkUnion(unionID string, want ...store.UserID) {
	f.t.Helper()
	got, err := byUnionID(f, unionID)
	f.must(err)
	if !slices.Equal(got, want) {
		f.t.Errorf("users with unionid %.20q: %v, want %v", unionID, got, want)
	}
}

// ByUnionID finds a person in all mini programs by the present unionid, and tells
// similar unionids apart.
func testByUnionID(t *testing.T, f *fixture) {
	long := strings.Repeat("u", 1<<16)
	f.checkUnion("u")
	f.login(alice) // WeChat does not always tell one
	f.checkUnion("")
	f.login(alice, unionID("u"))
	f.login(alice)
	f.login(alice2, unionID("u"))
	f.login(bob, unionID("u\x00"))
	f.checkUnion("u", alice, alice2)
	f.checkUnion("u\x00", bob)
	for _, other := range []string{"", "U", "uu", "u\x00u", long, "u " + alice.OpenID} {
		f.checkUnion(other)
	}
	f.login(bob, unionID(long))
	f.reopen()
	f.checkUnion(long, bob)
	f.checkUnion("u\x00")
	f.checkUnion("u", alice, alice2)
	f.must(f.RevokeUser(t.Context(), alice, store.EndRevoked))
	f.must(f.RevokeAll(t.Context()))
	f.checkUnion("u", alice, alice2)
	f.login(alice, unionID("v"))
	f.checkUnion("u", alice2)
	f.checkUnion("v", alice)
	f.login(alice, unionID("u"))
	f.checkUnion("v")
	f.checkUnion("u", alice, alice2)
}
