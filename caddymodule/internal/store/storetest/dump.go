package storetest

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// RunDump tests that what the engine of h tells as a store.Dumper it takes as a store.Loader. Its stores have to be both.
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

// dump returns all items by user; a user who comes twice came as the last says.
func (f *fixture) dump() map[store.UserID]store.Item {
	f.t.Helper()
	items := make(map[store.UserID]store.Item)
	f.must(f.Store.(store.Dumper).Dump(f.t.Context(), func(it store.Item) error {
		if len(it.Sessions) != len(it.User.Sessions) {
			f.t.Errorf("%v has %d sessions on the list, %d beside it", it.User.ID, len(it.User.Sessions), len(it.Sessions))
		}
		items[it.User.ID] = it
		return nil
	}))
	return items
}

// load gives the store what a dump told and checks what it counts as new.
func (f *fixture) load(items map[store.UserID]store.Item, want store.Loaded) {
	f.t.Helper()
	var list []store.Item
	for _, it := range items {
		list = append(list, it)
	}
	n, err := f.Store.(store.Loader).Load(f.t.Context(), list)
	f.must(err)
	if n != want {
		f.t.Errorf("loaded %+v, want %+v", n, want)
	}
}

// session returns what an item says of a session.
func session(it store.Item, d store.Digest) (store.Session, bool) {
	for i, ref := range it.User.Sessions {
		if ref.Digest == d {
			return it.Sessions[i], true
		}
	}
	return store.Session{}, false
}

func digestsOf(u store.User) (ds []store.Digest) {
	for _, ref := range u.Sessions {
		ds = append(ds, ref.Digest)
	}
	return ds
}

func testDumpEmpty(_ *testing.T, from, to *fixture) {
	if items := from.dump(); len(items) != 0 {
		from.t.Errorf("an empty store tells %v", items)
	}
	to.load(nil, store.Loaded{})
}

// testDumpWhatHolds: what has ended, in whichever way, is not told; its user is.
func testDumpWhatHolds(t *testing.T, from, _ *fixture) {
	kept, _ := from.login(alice, unionID("u"))
	ended, _ := from.login(alice)
	expired, _ := from.login(alice, ago(2*time.Hour))
	revoked, _ := from.login(alice2)
	late, _ := from.login(alice2)
	from.must(from.End(t.Context(), ended.Digest))
	from.must(from.RevokeApp(t.Context(), alice2.AppID))
	gone, _ := from.login(bob)
	from.must(from.RevokeUser(t.Context(), bob))
	again, _ := from.login(alice2)

	items := from.dump()
	if len(items) != 3 {
		t.Errorf("%d users, want 3", len(items))
	}
	told := make(map[store.Digest]bool)
	for _, it := range items {
		for _, d := range digestsOf(it.User) {
			told[d] = true
		}
	}
	for _, l := range []store.Login{kept, again} {
		if !told[l.Digest] {
			t.Errorf("a session of %v is not told", l.User)
		}
	}
	for what, l := range map[string]store.Login{"ended": ended, "expired": expired, "revoked": revoked, "revoked as well": late, "revoked with its user": gone} {
		if told[l.Digest] {
			t.Errorf("a session is told that is %s", what)
		}
	}
	s, _ := session(items[alice], kept.Digest)
	if s.User != alice || !s.Created.Equal(kept.Created) || !s.Expires.Equal(kept.Expires) || !s.UsedUntil.Equal(kept.UsedUntil) {
		t.Errorf("the session is told as %+v", s)
	}
	if u := items[alice].User; u.UnionID != "u" || !reflect.DeepEqual(u.Key, key("k")) || u.KeyVersion != 1 {
		t.Errorf("the user is told as %+v", u)
	}

	from.must(from.RevokeAll(t.Context()))
	for id, it := range from.dump() {
		if len(it.Sessions) > 0 {
			t.Errorf("after everybody was revoked, a session of %v is told", id)
		}
	}
}

// testDumpStops: an error of the caller ends it and is not taken for one of the store, nor is a context that has ended taken for an answer.
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
	if err := from.Store.(store.Dumper).Dump(ctx, func(store.Item) error { return nil }); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("dumping: %v", err)
	}
	if _, err := to.Store.(store.Loader).Load(ctx, []store.Item{items[alice]}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("loading: %v", err)
	}
}
