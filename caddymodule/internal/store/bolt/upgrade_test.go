package bolt_test

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// A file of version 1 loses no user, and gets the index of unionids.
func TestP2_Upgrade(t *testing.T) {
	const users = 10_050 // more than one transaction's worth
	path := newPath(t)
	now := time.UnixMilli(time.Now().UnixMilli())
	must(t, bolt.Fill(path, users, func(i int) store.Login {
		l := store.Login{
			User:       userOf(fmt.Sprint("u", i)),
			Digest:     digest("u", i),
			Created:    now,
			Expires:    now.Add(time.Hour),
			MaxPerUser: 10,
		}
		if i%3 != 0 {
			l.UnionID = fmt.Sprint("union", i/3)
		}
		return l
	}))
	edit(t, path, func(tx *bbolt.Tx) error {
		return errors.Join(
			tx.DeleteBucket([]byte("union")),
			tx.DeleteBucket([]byte("key")),
			tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{1}),
		)
	})
	if r, err := bolt.Check(path); err != nil || r.Stats.Sessions != users || r.Damaged != 0 {
		t.Fatalf("as it was: %+v, %v", r, err)
	}
	snap, err := bolt.OpenSnapshot(path, nil) // as `migrate` does
	must(t, err)
	if needs, err := snap.MasterKeys(t.Context()); err != nil || len(needs) != 0 {
		t.Errorf("as it was: needed are %v, %v", needs, err)
	}
	snap.Close()
	for range 2 { // the second time there is nothing to do
		s := open(t, bolt.Config{Path: path})
		for i := range users / 3 {
			ids, err := s.ByUnionID(t.Context(), fmt.Sprint("union", i))
			if err != nil || len(ids) != 2 {
				t.Fatalf("union%d: %v, %v", i, ids, err)
			}
		}
		if _, err := s.Lookup(t.Context(), digest("u", users-1)); err != nil {
			t.Fatal(err)
		}
		if needs, err := s.MasterKeys(t.Context()); err != nil || len(needs) != 0 {
			t.Fatal(needs, err)
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

// An upgrade that died half-way begins anew.
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
	if ids, err := s.ByUnionID(t.Context(), l.UnionID); err != nil || len(ids) != 1 ||
		ids[0] != l.User {
		t.Fatal(ids, err)
	}
	if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
		t.Fatal(err)
	}
}

// The sessions in a file that the first release wrote hold, as used up to an
// hour after they were last seen.
func TestP2_UpgradeRecorded(t *testing.T) {
	f, err := os.Open("testdata/version2.db.gz")
	must(t, err)
	defer f.Close()
	recorded, err := gzip.NewReader(f)
	must(t, err)
	content, err := io.ReadAll(recorded)
	must(t, err)
	path := newPath(t)
	must(t, os.WriteFile(path, content, 0o600))
	must(t, os.WriteFile(path+".schema-1", []byte("of an upgrade before"), 0o600))
	unhex := func(text string) store.Digest {
		b, err := hex.DecodeString(text)
		must(t, err)
		return store.Digest(b)
	}
	digests := []store.Digest{
		unhex("e021ab66085a051c2c3e2d4beda4d3f80bd61af5d40636f9e567ac7ac1922777"),
		unhex("f28d949efcdb9dc1492207ce098b8559d5dab7a92aa6e9198b7f8b386d9a17d8"),
	}
	written := 0
	for range 3 {
		s := open(t, bolt.Config{Path: path})
		for _, d := range digests {
			rec, err := s.Lookup(t.Context(), d)
			if ses := rec.Session; err != nil || ses.Epochs != rec.Current ||
				!ses.UsedUntil.Equal(ses.Created.Add(time.Hour)) {
				t.Errorf("%+v, %v", rec, err)
			}
		}
		if needs, err := s.MasterKeys(t.Context()); err != nil || len(needs) == 0 {
			t.Errorf("needed are %v, %v", needs, err)
		}
		if _, err := s.Identity(t.Context()); err != nil {
			t.Error(err)
		}
		must(t, s.Health(t.Context()))
		if written == 0 { // as with a start that is refused
			must(t, s.Close())
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
				t.Error("opened and closed, the file is another one", err)
			}
		}
		must(t, s.Close())
		if written++; written == 1 {
			s = open(t, bolt.Config{Path: path})
			login(t, s, "new", 1, time.Hour)
			must(t, s.Close())
		}
	}
	edit(t, path, func(tx *bbolt.Tx) error {
		if m := tx.Bucket([]byte("meta")); m.Get([]byte("noted")) != nil ||
			!bytes.Equal(m.Get([]byte("schema")), []byte{3}) {
			t.Errorf("version %v, notes %v", m.Get([]byte("schema")), m.Get([]byte("noted")))
		}
		return nil
	})
	kept, err := filepath.Glob(path + ".schema-*")
	if err != nil || len(kept) != 1 || kept[0] != path+".schema-2" {
		t.Fatalf("kept: %v, %v", kept, err)
	}
	if r, err := bolt.Check(kept[0]); err != nil || r.Stats.Sessions != int64(len(digests)) {
		t.Errorf("the kept file: %+v, %v", r, err)
	}
	edit(t, kept[0], func(tx *bbolt.Tx) error {
		if v := tx.Bucket([]byte("meta")).Get([]byte("schema")); !bytes.Equal(v, []byte{2}) {
			t.Errorf("the kept file has version %v", v)
		}
		return nil
	})
}
