package storetest

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// RunDump tests that the engine of h takes as a store.Loader what it dumps as a
// store.Dumper. Its stores are both.
func RunDump(t *testing.T, h Harness) {
	for _, tt := range []struct {
		name string
		f    func(t *testing.T, from, to *fixture)
	}{
		{"Empty", testDumpEmpty},
		{"WhatHolds", testDumpWhatHolds},
		{"Moved", testLoadMoved},
		{"Again", testLoadAgain},
		{"Merged", testLoadMerged},
		{"Touched", testLoadTouched},
		{"EndedHere", testLoadEndedHere},
		{"Limit", testLoadLimit},
		{"Many", testLoadMany},
		{"Concurrent", testLoadConcurrent},
		{"MasterKeys", testLoadMasterKeys},
		{"Stops", testDumpStops},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.f(t, newFixture(t, h), newFixture(t, h)) })
	}
}

// dump returns all items by user; of a user who comes twice, the last one.
func (f *fixture) dump() map[store.UserID]store.Item {
	f.t.Helper()
	items := make(map[store.UserID]store.Item)
	f.must(f.Store.(store.Dumper).Dump(f.t.Context(), func(it store.Item) error {
		if len(it.Sessions) != len(it.User.Sessions) {
			f.t.Errorf("%v has %d sessions on the list, %d beside it",
				it.User.ID, len(it.User.Sessions), len(it.Sessions))
		}
		items[it.User.ID] = it
		return nil
	}))
	return items
}

// load loads items and checks how many records are new.
func (f *fixture) load(items map[store.UserID]store.Item, want store.Loaded) {
	f.t.Helper()
	list := slices.Collect(maps.Values(items))
	n, err := f.Store.(store.Loader).Load(f.t.Context(), list)
	f.must(err)
	if n != want {
		f.t.Errorf("loaded %+v, want %+v", n, want)
	}
}

// session returns a session of an item, or the zero Session.
func session(it store.Item, d store.Digest) store.Session {
	i := slices.Index(digestsOf(it.User.Sessions), d)
	if i < 0 {
		return store.Session{}
	}
	return it.Sessions[i]
}

func testDumpEmpty(_ *testing.T, from, to *fixture) {
	if items := from.dump(); len(items) != 0 {
		from.t.Errorf("an empty store tells %v", items)
	}
	to.load(nil, store.Loaded{})
}

// A dump has all users, and the sessions that hold.
func testDumpWhatHolds(t *testing.T, from, _ *fixture) {
	kept, _ := from.login(alice, unionID("u"))
	ended, _ := from.login(alice)
	expired, _ := from.login(alice, ago(2*time.Hour))
	revoked, _ := from.login(alice2)
	late, _ := from.login(alice2)
	from.must(from.End(t.Context(), ended.Digest, store.EndLogout))
	from.must(from.RevokeApp(t.Context(), alice2.AppID))
	gone, _ := from.login(bob)
	from.must(from.RevokeUser(t.Context(), bob, store.EndRevoked))
	again, _ := from.login(alice2)

	items := from.dump()
	if len(items) != 3 {
		t.Errorf("%d users, want 3", len(items))
	}
	var told []store.Digest
	for _, it := range items {
		told = append(told, digestsOf(it.User.Sessions)...)
	}
	for _, l := range []store.Login{kept, again} {
		if !slices.Contains(told, l.Digest) {
			t.Errorf("a session of %v is missing", l.User)
		}
	}
	for i, l := range []store.Login{ended, expired, revoked, late, gone} {
		if slices.Contains(told, l.Digest) {
			t.Errorf("session %d has ended and is in the dump", i)
		}
	}
	s := session(items[alice], kept.Digest)
	if s.User != alice || !s.Created.Equal(kept.Created) || !s.Expires.Equal(kept.Expires) ||
		!s.UsedUntil.Equal(kept.UsedUntil) {
		t.Errorf("the session is %+v", s)
	}
	u := items[alice].User
	if u.UnionID != "u" || !reflect.DeepEqual(u.Key, key("k")) || u.KeyVersion != 1 {
		t.Errorf("the user is %+v", u)
	}

	from.must(from.RevokeAll(t.Context()))
	for id, it := range from.dump() {
		if len(it.Sessions) > 0 {
			t.Errorf("after RevokeAll, a session of %v is in the dump", id)
		}
	}
}

// An error of the caller ends a dump, and is not one of the store. A context that
// has ended is no answer.
func testDumpStops(t *testing.T, from, to *fixture) {
	from.login(alice)
	from.login(bob)
	items := from.dump()
	enough := errors.New("enough")
	calls := 0
	err := from.Store.(store.Dumper).Dump(t.Context(), func(store.Item) error {
		calls++
		return enough
	})
	if err != enough || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = from.Store.(store.Dumper).Dump(ctx, func(store.Item) error { return nil })
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("dumping: %v", err)
	}
	_, err = to.Store.(store.Loader).Load(ctx, []store.Item{items[alice]})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("loading: %v", err)
	}
}

// In an empty store everything is as it was, and stays so.
func testLoadMoved(t *testing.T, from, to *fixture) {
	first, _ := from.login(alice, unionID("u"), withKey(key("k1")), func(l *store.Login) {
		l.Proof = store.Proof{1}
	})
	second, _ := from.login(alice, withKey(key("k2")))
	other, _ := from.login(alice2, unionID("u"))
	// The epochs differ from now on.
	from.must(from.RevokeUser(t.Context(), alice2, store.EndRevoked))
	third, _ := from.login(alice2)
	to.load(from.dump(), store.Loaded{Users: 2, Sessions: 3})
	to.reopen()

	to.checkProof(first, store.Proof{1})
	for _, l := range []store.Login{first, second, third} {
		to.checkAccepted(true, "after the move", l)
		was, is := from.lookup(l.Digest), to.lookup(l.Digest)
		is.Session.Epochs, is.Current = was.Session.Epochs, was.Current
		if !reflect.DeepEqual(is, was) || is.UnionID != "u" {
			t.Errorf("the session is now %+v, was %+v", is, was)
		}
	}
	to.checkAccepted(false, "revoked before the move", other)
	for _, id := range []store.UserID{alice, alice2} {
		was, is := from.user(id), to.user(id)
		was.Epoch, is.Epoch = 0, 0
		if !reflect.DeepEqual(is, was) {
			t.Errorf("the user is now\n%+v, was\n%+v", is, was)
		}
	}
	to.checkUnion("u", alice, alice2)
	items := to.dump()
	if len(items) != 2 || len(items[alice].Sessions) != 2 || len(items[alice2].Sessions) != 1 {
		t.Errorf("a second dump has %v", items)
	}
	st, err := to.Stats(t.Context())
	if err != nil || st.Sessions != 3 || st.Users != 2 || st.LastExpiry.Before(third.Expires) {
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
	to.checkAccepted(true, "after another move", l, more)
	to.checkList(alice, l, more)
}

// A store with sessions and epochs of its own, of the same users: both sides go
// on.
func testLoadMerged(t *testing.T, from, to *fixture) {
	older, _ := from.login(alice, unionID("old"), withKey(key("old")), ago(time.Minute))
	newer, _ := from.login(bob, unionID("new"), withKey(key("new")))
	own, _ := to.login(alice, unionID("own"), withKey(key("own")))
	ownOld, _ := to.login(bob, withKey(key("own old")), ago(time.Minute))
	to.login(alice2)
	to.must(to.RevokeUser(t.Context(), alice2, store.EndRevoked))
	epoch := to.user(alice).Epoch

	to.load(from.dump(), store.Loaded{Sessions: 2})
	to.checkAccepted(true, "after the merge", older, newer, own, ownOld)
	a, b := to.user(alice), to.user(bob)
	if a.Epoch != epoch || a.UnionID != "own" || !sameKey(a.Key, key("own")) ||
		!a.LastLogin.Equal(own.Created) {
		t.Errorf("an earlier login has changed the user to %+v", a)
	}
	if b.UnionID != "new" || !sameKey(b.Key, key("new")) || b.KeyVersion != 2 ||
		!sameKey(b.PrevKey, key("own old")) {
		t.Errorf("a later login has left the user at %+v", b)
	}
	to.checkList(alice, older, own)
	to.checkUnion("new", bob)
	to.checkUnion("own", alice)
	to.checkUnion("old")
}

// Of two UsedUntil, the later one counts.
func testLoadTouched(t *testing.T, from, to *fixture) {
	l, _ := from.login(alice)
	early := from.dump()
	until := l.UsedUntil.Add(time.Minute)
	from.Touch(l.Digest, until)
	from.reopen()
	late := from.dump()
	if got := session(late[alice], l.Digest).UsedUntil; !got.Equal(until) {
		t.Errorf("used until %v, dumped %v", until, got)
	}
	to.load(early, store.Loaded{Users: 1, Sessions: 1})
	to.load(late, store.Loaded{})
	to.load(early, store.Loaded{})
	if got := to.lookup(l.Digest).Session.UsedUntil; !got.Equal(until) {
		t.Errorf("used until %v, loaded %v", until, got)
	}
}

// A loaded session ends like any other.
func testLoadEndedHere(t *testing.T, from, to *fixture) {
	end, _ := from.login(alice)
	user, _ := from.login(alice)
	app, _ := from.login(alice2)
	all, _ := from.login(bob)
	to.load(from.dump(), store.Loaded{Users: 3, Sessions: 4})
	for _, step := range []struct {
		l   store.Login
		end func(context.Context) error
	}{
		{end, func(ctx context.Context) error { return to.End(ctx, end.Digest, store.EndLogout) }},
		{user, func(ctx context.Context) error {
			return to.RevokeUser(ctx, alice, store.EndRevoked)
		}},
		{app, func(ctx context.Context) error { return to.RevokeApp(ctx, alice2.AppID) }},
		{all, to.RevokeAll},
	} {
		to.checkAccepted(true, "before the end", step.l)
		to.must(step.end(t.Context()))
		to.checkAccepted(false, "after the end", step.l)
	}
}

// Loaded sessions count for MaxPerUser.
func testLoadLimit(t *testing.T, from, to *fixture) {
	first, _ := from.login(alice, ago(2*store.Grace))
	second, _ := from.login(alice)
	to.load(from.dump(), store.Loaded{Users: 1, Sessions: 2})
	_, res := to.login(alice, maxPerUser(2))
	if !slices.Equal(res.Ended, []store.Digest{first.Digest}) {
		t.Errorf("ended %x", res.Ended)
	}
	to.checkAccepted(false, "the oldest", first)
	to.checkAccepted(true, "the next", second)
}

// More users than an engine reads in one go.
func testLoadMany(t *testing.T, from, to *fixture) {
	const n = 1500
	var batch []store.Item
	var logins []store.Login
	for i := range n {
		l := newLogin(numbered(i))
		u := store.User{ID: l.User}
		u.Admit(l)
		batch = append(batch, store.Item{User: u, Sessions: []store.Session{l.Session()}})
		logins = append(logins, l)
	}
	for part := range slices.Chunk(batch, 400) {
		_, err := from.Store.(store.Loader).Load(t.Context(), part)
		from.must(err)
	}
	to.load(from.dump(), store.Loaded{Users: n, Sessions: n})
	to.checkAccepted(true, "after the move", logins...)
}

// Users who log in while they are loaded keep the sessions of both sides.
func testLoadConcurrent(t *testing.T, from, to *fixture) {
	const n = 50
	var old, fresh []store.Login
	for i := range n {
		l, _ := from.login(numbered(i))
		old, fresh = append(old, l), append(fresh, newLogin(l.User))
	}
	items := from.dump()
	for i := range n {
		parallel(2, func(side int) {
			var err error
			if side == 0 {
				_, err = to.Login(t.Context(), fresh[i])
			} else {
				item := []store.Item{items[old[i].User]}
				_, err = to.Store.(store.Loader).Load(t.Context(), item)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	for i := range n {
		to.checkAccepted(true, "of both sides", old[i], fresh[i])
		listed := digestsOf(to.user(old[i].User).Sessions)
		if !slices.Contains(listed, old[i].Digest) || !slices.Contains(listed, fresh[i].Digest) {
			t.Fatalf("user %d: the list is %x", i, listed)
		}
	}
}
