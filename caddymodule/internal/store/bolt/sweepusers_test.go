package bolt_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// TestSweepUsers: a user who has not logged in for 180 days and has no session is forgotten, with all traces; everybody else is not.
func TestSweepUsers(t *testing.T) {
	const gone = 2300 // more than are looked at in one go
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := bolt.Open(bolt.Config{Path: path, SweepEvery: 6 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		known := func(openID string) bool {
			_, err := s.User(t.Context(), userOf(openID))
			return err == nil
		}
		var wg sync.WaitGroup
		for i := range gone {
			wg.Go(func() { login(t, s, fmt.Sprint("gone", i), i, time.Hour) })
		}
		wg.Wait()
		long := login(t, s, "long", 1, 300*24*time.Hour)
		login(t, s, "back", 1, time.Hour)

		time.Sleep(179 * 24 * time.Hour)
		for i := range gone {
			if !known(fmt.Sprint("gone", i)) {
				t.Fatal("forgotten too early")
			}
		}
		login(t, s, "back", 2, time.Hour)
		time.Sleep(12 * 24 * time.Hour)
		for i := range gone {
			if known(fmt.Sprint("gone", i)) {
				t.Fatal("not forgotten")
			}
		}
		if !known("back") {
			t.Error("forgotten 12 days after the last login")
		}
		if _, err := s.Lookup(t.Context(), long.Digest); err != nil || !known("long") {
			t.Errorf("a user was forgotten who has a session: %v", err)
		}
		if ids, err := s.ByUnionID(t.Context(), "union"); err != nil || len(ids) != 2 {
			t.Errorf("%d users by unionid, %v", len(ids), err)
		}
		again := login(t, s, "gone1", 1, time.Hour)
		if rec, err := s.Lookup(t.Context(), again.Digest); err != nil || rec.Current != rec.Session.Epochs || rec.UnionID != "union" {
			t.Errorf("back after having been forgotten: %+v, %v", rec, err)
		}
	})
	if n := count(t, path); n["user"] != 3 || n["union"] != 3 || n["sess"] != 2 {
		t.Errorf("rows left: %v", n)
	}
}

// TestForgottenEpoch: a session that outlived its user's record, by whatever mistake, does not hold again when the user comes back.
func TestForgottenEpoch(t *testing.T) {
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	old := login(t, s, "o", 1, time.Hour)
	s.Close()
	edit(t, path, func(tx *bbolt.Tx) error {
		h := userOf("o").Hash()
		return tx.Bucket([]byte("user")).Delete(h[:])
	})
	s = open(t, bolt.Config{Path: path})
	if ids, err := s.ByUnionID(t.Context(), "union"); err != nil || len(ids) != 0 {
		t.Errorf("the index is believed: %v, %v", ids, err)
	}
	login(t, s, "o", 2, time.Hour)
	if rec, err := s.Lookup(t.Context(), old.Digest); err == nil && rec.Current == rec.Session.Epochs {
		t.Error("holds again")
	}
	if ids, err := s.ByUnionID(t.Context(), "union"); err != nil || len(ids) != 1 || ids[0] != userOf("o") {
		t.Errorf("by unionid: %v, %v", ids, err)
	}
}

// TestUnionIndexIsNotBelieved: who has which unionid is what the users' records say.
func TestUnionIndexIsNotBelieved(t *testing.T) {
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	login(t, s, "o", 1, time.Hour)
	l := login(t, s, "p", 1, time.Hour)
	l.UnionID, l.Digest = "other", digest("p", 2)
	if _, err := s.Login(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	s.Close()
	edit(t, path, func(tx *bbolt.Tx) error { // every unionid is entered for every user, and some things that are no users
		b := tx.Bucket([]byte("union"))
		first, _ := b.Cursor().First()
		last, _ := b.Cursor().Last()
		for _, k := range [][]byte{slices.Concat(first[:16], last[16:]), slices.Concat(last[:16], first[16:]), slices.Concat(first, last), slices.Concat(last[:16], make([]byte, 16))} {
			if err := b.Put(k, nil); err != nil {
				return err
			}
		}
		return nil
	})
	s = open(t, bolt.Config{Path: path})
	for unionID, want := range map[string]store.UserID{"union": userOf("o"), "other": userOf("p")} {
		ids, err := s.ByUnionID(t.Context(), unionID)
		if err != nil || len(ids) != 1 || ids[0] != want {
			t.Errorf("%s: %v, %v", unionID, ids, err)
		}
	}
}
