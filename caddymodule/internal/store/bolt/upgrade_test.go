package bolt_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// TestP2_Upgrade: the file of the first version loses nobody, and has the index of unionids that it lacked.
func TestP2_Upgrade(t *testing.T) {
	const users = 10_050 // more than one transaction's worth
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	now := time.UnixMilli(time.Now().UnixMilli())
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < users; i += 64 {
				l := store.Login{User: userOf(fmt.Sprint("u", i)), Digest: digest("u", i), Created: now, Expires: now.Add(time.Hour), MaxPerUser: 10}
				if i%3 != 0 {
					l.UnionID = fmt.Sprint("union", i/3)
				}
				if _, err := s.Login(t.Context(), l); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s.Close()
	edit(t, path, func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket([]byte("union")), tx.DeleteBucket([]byte("key")), tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{1}))
	})
	if r, err := bolt.Check(path); err != nil || r.Stats.Sessions != users || r.Damaged != 0 {
		t.Fatalf("as it was: %+v, %v", r, err)
	}
	snap, err := bolt.OpenSnapshot(path, nil) // as `migrate` does
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := snap.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("as it was: keys %v, %v", keys, err)
	}
	snap.Close()
	for range 2 { // the second time there is nothing to do
		s = open(t, bolt.Config{Path: path})
		for i := range users / 3 {
			ids, err := s.ByUnionID(t.Context(), fmt.Sprint("union", i))
			if err != nil || len(ids) != 2 {
				t.Fatalf("union%d: %v, %v", i, ids, err)
			}
		}
		if _, err := s.Lookup(t.Context(), digest("u", users-1)); err != nil {
			t.Fatal(err)
		}
		if keys, err := s.Keys(t.Context()); err != nil || len(keys) != 0 {
			t.Fatal(keys, err)
		}
		s.Close()
	}
	edit(t, path, func(tx *bbolt.Tx) error {
		if v := tx.Bucket([]byte("meta")).Get([]byte("schema")); len(v) != 1 || v[0] != 3 {
			t.Errorf("version %v", v)
		}
		return nil
	})
}

// TestP2_UpgradeInterrupted: one that died half-way begins anew.
func TestP2_UpgradeInterrupted(t *testing.T) {
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	l := login(t, s, "o", 1, time.Hour)
	s.Close()
	edit(t, path, func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket([]byte("union")); err != nil {
			return err
		}
		_, err := tx.CreateBucket([]byte("union"))
		return errors.Join(err, tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{1}))
	})
	s = open(t, bolt.Config{Path: path})
	if ids, err := s.ByUnionID(t.Context(), l.UnionID); err != nil || len(ids) != 1 || ids[0] != l.User {
		t.Fatal(ids, err)
	}
	if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
		t.Fatal(err)
	}
}
