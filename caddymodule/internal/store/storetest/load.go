package storetest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// testLoadMoved: in an empty store everything is as it was, and stays so.
func testLoadMoved(t *testing.T, from, to *fixture) {
	first, _ := from.login(alice, unionID("u"), withKey(key("k1")))
	second, _ := from.login(alice, withKey(key("k2")))
	other, _ := from.login(alice2, unionID("u"))
	from.must(from.RevokeUser(t.Context(), alice2)) // epochs are unlike from now on
	third, _ := from.login(alice2)
	to.load(from.dump(), store.Loaded{Users: 2, Sessions: 3})
	to.reopen()

	for _, l := range []store.Login{first, second, third} {
		if !to.accepted(l.Digest) {
			t.Errorf("a session of %v does not hold after the move", l.User)
			continue
		}
		rec, err := to.Lookup(t.Context(), l.Digest)
		to.must(err)
		if s := rec.Session; rec.UnionID != "u" || s.User != l.User || !s.Created.Equal(l.Created) || !s.UsedUntil.Equal(l.UsedUntil) || !s.Expires.Equal(l.Expires) {
			t.Errorf("the session is now %+v", rec)
		}
	}
	if to.accepted(other.Digest) {
		t.Error("a revoked session holds after the move")
	}
	for _, id := range []store.UserID{alice, alice2} {
		was, is := from.user(id), to.user(id)
		was.Epoch, is.Epoch = 0, 0
		if !reflect.DeepEqual(is, was) {
			t.Errorf("the user is now\n%+v, was\n%+v", is, was)
		}
	}
	to.checkUnion("u", alice, alice2)
	if items := to.dump(); len(items) != 2 || len(items[alice].Sessions) != 2 || len(items[alice2].Sessions) != 1 {
		t.Errorf("what was loaded is not told in turn: %v", items)
	}
	if st, err := to.Stats(t.Context()); err != nil || st.Sessions != 3 || st.Users != 2 || st.LastExpiry.Before(third.Expires) {
		t.Errorf("stats %+v, %v", st, err)
	}
}

func testLoadAgain(t *testing.T, from, to *fixture) {
	l, _ := from.login(alice, unionID("u"))
	from.login(bob)
	items := from.dump()
	to.load(items, store.Loaded{Users: 2, Sessions: 2})
	before := to.user(alice)
	to.load(items, store.Loaded{})
	if after := to.user(alice); !reflect.DeepEqual(after, before) {
		t.Errorf("the user is now %+v, was %+v", after, before)
	}
	more, _ := from.login(alice)
	to.load(from.dump(), store.Loaded{Sessions: 1})
	for _, d := range []store.Digest{l.Digest, more.Digest} {
		if !to.accepted(d) {
			t.Error("a session does not hold")
		}
	}
	if got := digestsOf(to.user(alice)); !slices.Equal(got, []store.Digest{l.Digest, more.Digest}) {
		t.Errorf("the user's list is %x", got)
	}
}

// testLoadMerged: the store has sessions and epochs of its own, of the same users. Both sides go on.
func testLoadMerged(t *testing.T, from, to *fixture) {
	older, _ := from.login(alice, unionID("old"), withKey(key("old")), ago(time.Minute))
	newer, _ := from.login(bob, unionID("new"), withKey(key("new")))
	own, _ := to.login(alice, unionID("own"), withKey(key("own")))
	ownOld, _ := to.login(bob, withKey(key("own old")), ago(time.Minute))
	to.login(alice2)
	to.must(to.RevokeUser(t.Context(), alice2))
	epoch := to.user(alice).Epoch

	to.load(from.dump(), store.Loaded{Sessions: 2})
	for _, l := range []store.Login{older, newer, own, ownOld} {
		if !to.accepted(l.Digest) {
			t.Errorf("a session of %v does not hold", l.User)
		}
	}
	a, b := to.user(alice), to.user(bob)
	if a.Epoch != epoch || a.UnionID != "own" || !reflect.DeepEqual(a.Key, key("own")) || !a.LastLogin.Equal(own.Created) {
		t.Errorf("an earlier login has changed the user to %+v", a)
	}
	if b.UnionID != "new" || !reflect.DeepEqual(b.Key, key("new")) || !reflect.DeepEqual(b.PrevKey, key("own old")) || b.KeyVersion != 2 {
		t.Errorf("a later login has left the user at %+v", b)
	}
	if got := digestsOf(a); !slices.Equal(got, []store.Digest{older.Digest, own.Digest}) {
		t.Errorf("the list is %x", got)
	}
	to.checkUnion("new", bob)
	to.checkUnion("own", alice)
	to.checkUnion("old")
}

// testLoadTouched: of two times until which a session is used, the later one counts.
func testLoadTouched(t *testing.T, from, to *fixture) {
	l, _ := from.login(alice)
	early := from.dump()
	until := l.UsedUntil.Add(time.Minute)
	from.Touch(l.Digest, until)
	from.reopen()
	late := from.dump()
	if s, _ := session(late[alice], l.Digest); !s.UsedUntil.Equal(until) {
		t.Errorf("used until %v, told %v", until, s.UsedUntil)
	}
	for _, items := range []map[store.UserID]store.Item{early, late, early} {
		n := store.Loaded{}
		if _, err := to.Lookup(t.Context(), l.Digest); err != nil {
			n = store.Loaded{Users: 1, Sessions: 1}
		}
		to.load(items, n)
	}
	if rec, err := to.Lookup(t.Context(), l.Digest); err != nil || !rec.Session.UsedUntil.Equal(until) {
		t.Errorf("used until %v, now recorded %v, %v", until, rec.Session.UsedUntil, err)
	}
}

// testLoadEndedHere: a session that was moved ends like any other.
func testLoadEndedHere(t *testing.T, from, to *fixture) {
	end, _ := from.login(alice)
	user, _ := from.login(alice)
	app, _ := from.login(alice2)
	all, _ := from.login(bob)
	to.load(from.dump(), store.Loaded{Users: 3, Sessions: 4})
	for _, step := range []struct {
		d   store.Digest
		end func(context.Context) error
	}{
		{end.Digest, func(ctx context.Context) error { return to.End(ctx, end.Digest) }},
		{user.Digest, func(ctx context.Context) error { return to.RevokeUser(ctx, alice) }},
		{app.Digest, func(ctx context.Context) error { return to.RevokeApp(ctx, alice2.AppID) }},
		{all.Digest, to.RevokeAll},
	} {
		if !to.accepted(step.d) {
			t.Error("it does not hold before it is ended")
		}
		to.must(step.end(t.Context()))
		if to.accepted(step.d) {
			t.Error("it holds after it was ended")
		}
	}
}

// testLoadLimit: sessions that were moved count, and the oldest goes.
func testLoadLimit(t *testing.T, from, to *fixture) {
	first, _ := from.login(alice, ago(time.Minute))
	second, _ := from.login(alice)
	to.load(from.dump(), store.Loaded{Users: 1, Sessions: 2})
	_, res := to.login(alice, maxPerUser(2))
	if !slices.Equal(res.Ended, []store.Digest{first.Digest}) || to.accepted(first.Digest) || !to.accepted(second.Digest) {
		t.Errorf("ended %x", res.Ended)
	}
}

// testLoadMany: more users than an engine reads in one go.
func testLoadMany(t *testing.T, from, to *fixture) {
	const n = 1500
	var batch []store.Item
	want := make(map[store.Digest]bool)
	for i := range n {
		id := store.UserID{AppID: alice.AppID, OpenID: fmt.Sprint("o", i)}
		l := newLogin(id)
		u := store.User{ID: id}
		u.Admit(l)
		batch = append(batch, store.Item{User: u, Sessions: []store.Session{{User: id, Created: l.Created, UsedUntil: l.UsedUntil, Expires: l.Expires}}})
		want[l.Digest] = true
	}
	for part := range slices.Chunk(batch, 400) {
		_, err := from.Store.(store.Loader).Load(t.Context(), part)
		from.must(err)
	}
	items := from.dump()
	to.load(items, store.Loaded{Users: n, Sessions: n})
	for d := range want {
		if !to.accepted(d) {
			t.Fatal("a session does not hold")
		}
	}
}

// testLoadConcurrent: users log in while they are loaded, for the first time and again. Both sides' sessions hold and are listed.
func testLoadConcurrent(t *testing.T, from, to *fixture) {
	const n = 50
	var old []store.Login
	for i := range n {
		l, _ := from.login(store.UserID{AppID: alice.AppID, OpenID: fmt.Sprint("o", i)})
		old = append(old, l)
	}
	items := from.dump()
	var fresh []store.Login
	for _, l := range old {
		f := newLogin(l.User)
		fresh = append(fresh, f)
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := to.Store.(store.Loader).Load(t.Context(), []store.Item{items[l.User]}); err != nil {
				t.Errorf("loading: %v", err)
			}
		})
		both.Go(func() {
			if _, err := to.Login(t.Context(), f); err != nil {
				t.Errorf("login: %v", err)
			}
		})
		both.Wait()
	}
	for i := range n {
		if !to.accepted(old[i].Digest) || !to.accepted(fresh[i].Digest) {
			t.Fatalf("user %d: a session does not hold", i)
		}
		if listed := digestsOf(to.user(old[i].User)); !slices.Contains(listed, old[i].Digest) || !slices.Contains(listed, fresh[i].Digest) {
			t.Fatalf("user %d: the list is %x", i, listed)
		}
	}
}
