package bolt_test

import (
	"errors"
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

func TestSweep_Expired_RemovedWithTraces(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := bolt.Open(bolt.Config{Path: path})
		must(t, err)
		defer s.Close()
		const users, sessions = 50, 500 // five batches
		for i := range sessions {
			login(t, s, fmt.Sprint("o", i%users), i, time.Minute)
		}
		ended := login(t, s, "p", 998, time.Minute)
		must(t, s.End(t.Context(), ended.Digest, store.EndLogout))
		replaced := login(t, s, "p", 997, time.Hour)
		keep := replaced
		keep.Digest, keep.Ends = digest("p", 999), replaced.Digest
		_, err = s.Login(t.Context(), keep)
		must(t, err)
		time.Sleep(59 * time.Second)
		if _, err := s.Lookup(t.Context(), digest("o1", 1)); err != nil {
			t.Errorf("a session went before its time: %v", err)
		}
		time.Sleep(3 * time.Second)
		for i := range sessions {
			_, err := s.Lookup(t.Context(), digest(fmt.Sprint("o", i%users), i))
			if err != store.ErrNotFound {
				t.Fatalf("session %d after its time: %v", i, err)
			}
		}
		if _, err := s.Lookup(t.Context(), keep.Digest); err != nil {
			t.Error(err)
		}
		if u, err := s.User(t.Context(), keep.User); err != nil || len(u.Sessions) != 1 ||
			u.Sessions[0].Digest != keep.Digest {
			t.Errorf("user: %+v, %v", u, err)
		}
		u, err := s.User(t.Context(), userOf("o49"))
		if err != nil || len(u.Sessions) != 0 || u.UnionID != "union" {
			t.Errorf("user without sessions: %+v, %v", u, err)
		}
	})
	// The first row of exp of the replaced session stays until its time.
	if n := count(t, path); n["sess"] != 1 || n["exp"] != 2 || n["user"] != 51 {
		t.Errorf("rows left: %v", n)
	}
}

func TestSweep_WrongIndex_SessionDecides(t *testing.T) {
	path := newPath(t)
	var l store.Login
	synctest.Test(t, func(t *testing.T) { // in the time of the bubble, which starts anew with each
		s, err := bolt.Open(bolt.Config{Path: path})
		must(t, err)
		l = login(t, s, "o", 1, time.Hour)
		s.Close()
	})
	edit(t, path, func(tx *bbolt.Tx) error {
		exp := tx.Bucket([]byte("exp"))
		k, _ := exp.Cursor().First()
		early := append([]byte{0x80, 0, 0, 0, 0, 0, 0, 1}, k[8:]...)
		err := exp.Delete(k)
		return errors.Join(err, exp.Put([]byte("not one of ours"), nil), exp.Put(early, nil))
	})
	synctest.Test(t, func(t *testing.T) {
		s, err := bolt.Open(bolt.Config{Path: path})
		must(t, err)
		defer s.Close()
		time.Sleep(5 * time.Second)
		if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
			t.Fatalf("swept by the index: %v", err)
		}
		time.Sleep(time.Until(l.Expires) - time.Second)
		if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
			t.Fatalf("swept early: %v", err)
		}
		time.Sleep(5 * time.Second)
		if _, err := s.Lookup(t.Context(), l.Digest); err != store.ErrNotFound {
			t.Fatalf("entered anew, but not swept: %v", err)
		}
	})
	if n := count(t, path); n["sess"] != 0 || n["exp"] != 0 {
		t.Errorf("rows left: %v", n)
	}
}

// A user is stale 180 days after the last login, without a session.
func TestSweep_StaleUsers_RemovedWithTraces(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lock or writes megabytes; run without -short")
	}
	const gone = 1500 // more than are looked at in one go, and removed in 12
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := bolt.Open(bolt.Config{Path: path, SweepEvery: 6 * time.Hour})
		must(t, err)
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
		rec, err := s.Lookup(t.Context(), again.Digest)
		if err != nil || rec.Current != rec.Session.Epochs || rec.UnionID != "union" {
			t.Errorf("back after having been forgotten: %+v, %v", rec, err)
		}
	})
	if n := count(t, path); n["user"] != 3 || n["union"] != 3 || n["sess"] != 2 {
		t.Errorf("rows left: %v", n)
	}
}

func TestLogin_UserRecordLost_OldSessionStaysDead(t *testing.T) {
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
	if rec, err := s.Lookup(t.Context(), old.Digest); err == nil &&
		rec.Current == rec.Session.Epochs {
		t.Error("holds again")
	}
	if ids, err := s.ByUnionID(t.Context(), "union"); err != nil || len(ids) != 1 ||
		ids[0] != userOf("o") {
		t.Errorf("by unionid: %v, %v", ids, err)
	}
}

func TestByUnionID_WrongIndex_RecordsDecide(t *testing.T) {
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	login(t, s, "o", 1, time.Hour)
	l := login(t, s, "p", 1, time.Hour)
	l.UnionID, l.Digest = "other", digest("p", 2)
	if _, err := s.Login(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	s.Close()
	edit(t, path, func(tx *bbolt.Tx) error { // every unionid for every user, and for no user
		b := tx.Bucket([]byte("union"))
		first, _ := b.Cursor().First()
		last, _ := b.Cursor().Last()
		return errors.Join(
			b.Put(slices.Concat(first[:16], last[16:]), nil),
			b.Put(slices.Concat(last[:16], first[16:]), nil),
			b.Put(slices.Concat(first, last), nil),
			b.Put(slices.Concat(last[:16], make([]byte, 16)), nil),
		)
	})
	s = open(t, bolt.Config{Path: path})
	for unionID, want := range map[string]store.UserID{"union": userOf("o"), "other": userOf("p")} {
		ids, err := s.ByUnionID(t.Context(), unionID)
		if err != nil || len(ids) != 1 || ids[0] != want {
			t.Errorf("%s: %v, %v", unionID, ids, err)
		}
	}
}
