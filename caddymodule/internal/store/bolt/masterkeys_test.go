package bolt_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// A file of schema version 2 has no end for the key that the gate signed with
// last. The key is needed until the last session ends that the file had then.
func TestMasterKeys_FileOfVersion2_EndsOpenNeed(t *testing.T) {
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	last := login(t, s, "old", 1, 48*time.Hour)
	login(t, s, "old", 2, time.Hour)
	s.Close()
	signs, replaced := store.MasterKeyID{1}, store.MasterKeyID{2}
	at := time.UnixMilli(last.Created.Add(24 * time.Hour).UnixMilli())
	edit(t, path, func(tx *bbolt.Tx) error { // as the first release left it
		if err := tx.DeleteBucket([]byte("key")); err != nil {
			return err
		}
		keys, err := tx.CreateBucket([]byte("key"))
		if err != nil {
			return err
		}
		if err := keys.Put(signs[:], nil); err != nil {
			return err
		}
		err = keys.Put(replaced[:], binary.LittleEndian.AppendUint64(nil, uint64(at.UnixMilli())))
		return errors.Join(err, tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{2}))
	})
	check := func(got map[store.MasterKeyID]time.Time, err error) {
		t.Helper()
		if err != nil || !got[signs].Equal(last.Expires) || !got[replaced].Equal(at) {
			t.Errorf("needed are %v, %v; the last session ends at %v", got, err, last.Expires)
		}
	}
	snap, err := bolt.OpenSnapshot(path, nil) // as `migrate` does
	must(t, err)
	check(snap.MasterKeys(t.Context()))
	snap.Close()
	for range 2 {
		s = open(t, bolt.Config{Path: path})
		check(s.MasterKeys(t.Context()))
		login(t, s, "new", 1, 96*time.Hour) // under another key
		check(s.MasterKeys(t.Context()))
		s.Close()
	}
}

// Records of needs that have ended go with the next change.
func TestMasterKeys_EndedNeed_IsRemoved(t *testing.T) {
	s := open(t, bolt.Config{Path: newPath(t)})
	ended := store.MasterKeyID{2}
	needs := map[store.MasterKeyID]time.Time{ended: time.Now().Add(-time.Second)}
	must(t, s.NeedMasterKeys(t.Context(), needs))
	login(t, s, "ada", 1, time.Hour)
	got, err := s.MasterKeys(t.Context())
	if _, there := got[ended]; err != nil || there || len(got) != 1 {
		t.Errorf("needed are %v, %v", got, err)
	}
}
