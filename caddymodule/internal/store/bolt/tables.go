package bolt

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// tables are the buckets inside one transaction, with typed access. Its reads report a damaged row to the log and then as absent; its writes fail only when bbolt does.
type tables struct {
	tx       *bolt.Tx
	buckets  [len(bucketNames)]*bolt.Bucket
	damaged  func(kind string, key []byte)
	restored time.Time // restoredAt
}

func (s *Store) tables(tx *bolt.Tx) *tables {
	return &tables{tx: tx, damaged: s.damaged, restored: s.restored}
}

// bucket opens one of the buckets on its first use: most reads need few, and each costs a search and some memory.
func (t *tables) bucket(i int) *bolt.Bucket {
	if t.buckets[i] == nil {
		t.buckets[i] = t.tx.Bucket(bucketNames[i])
		if i == exp {
			t.buckets[i].FillPercent = 0.95 // its keys only ever come at the right edge
		}
	}
	return t.buckets[i]
}

func (t *tables) getSession(d store.Digest) (store.Session, bool) {
	b := t.bucket(sess).Get(d[:])
	if b == nil {
		return store.Session{}, false
	}
	var s store.Session
	if err := s.UnmarshalBinary(b); err != nil {
		t.damaged("session", d[:])
		return store.Session{}, false
	}
	s.UsedUntil = sinceBackup(s.UsedUntil, t.restored)
	return s, true
}

func (t *tables) putSession(d store.Digest, s store.Session) error {
	b, err := s.AppendBinary(make([]byte, 0, 128))
	if err != nil {
		return err
	}
	return t.bucket(sess).Put(d[:], b)
}

// getUser also refuses a row that names another user than its key: nobody may be taken for somebody else because bytes moved.
func (t *tables) getUser(id store.UserID) (store.User, bool) {
	u, ok := t.getUserByHash(id.Hash())
	return u, ok && u.ID == id
}

func (t *tables) getUserByHash(h [16]byte) (store.User, bool) {
	b := t.bucket(user).Get(h[:])
	if b == nil {
		return store.User{}, false
	}
	var u store.User
	if err := u.UnmarshalBinary(b); err != nil || u.ID.Hash() != h {
		t.damaged("user", h[:])
		return store.User{}, false
	}
	return u, true
}

func (t *tables) putUser(u store.User) error {
	b, err := u.AppendBinary(make([]byte, 0, 512))
	if err != nil {
		return err
	}
	h := u.ID.Hash()
	return t.bucket(user).Put(h[:], b)
}

func (t *tables) getEpoch(key []byte) (uint64, bool) {
	b := t.bucket(epoch).Get(key)
	if b == nil {
		return 0, false
	}
	if len(b) != 8 {
		t.damaged("epoch", key)
		return 0, false
	}
	return binary.LittleEndian.Uint64(b), true
}

func (t *tables) putEpoch(key []byte, e uint64) error {
	return t.bucket(epoch).Put(key, binary.LittleEndian.AppendUint64(nil, e))
}

// ensureEpoch makes the epoch when there is none. It starts at random, so that one made anew matches no session of before.
func (t *tables) ensureEpoch(key []byte) (uint64, error) {
	if e, ok := t.getEpoch(key); ok {
		return e, nil
	}
	e := randomEpoch()
	return e, t.putEpoch(key, e)
}

// bumpEpoch ends all sessions under the epoch. Where there is none, or an unreadable one, no session holds; leaving none keeps it so.
func (t *tables) bumpEpoch(key []byte) error {
	e, ok := t.getEpoch(key)
	if !ok {
		return t.bucket(epoch).Delete(key)
	}
	return t.putEpoch(key, e+1)
}

// unlist takes a session off its user's list.
func (t *tables) unlist(id store.UserID, d store.Digest) error {
	u, ok := t.getUser(id)
	if !ok || !u.Drop(d) {
		return nil
	}
	return t.putUser(u)
}

func randomEpoch() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (Go 1.24)
	return binary.LittleEndian.Uint64(b[:])
}
