package bolt

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// tables gives typed access to the buckets inside one transaction. Its reads log
// a damaged row and report it as absent. Its writes fail only when bbolt does.
type tables struct {
	tx       *bolt.Tx
	opening  *opening // nil while the store is being opened or checked
	changed  rows     // by put and remove
	ended    []store.Ended
	buckets  [len(bucketNames)]*bolt.Bucket
	damaged  func(kind string, key []byte)
	restored time.Time // restoredAt
}

func (s *Store) tables(o *opening, tx *bolt.Tx) *tables {
	return &tables{tx: tx, opening: o, damaged: s.damaged, restored: o.restored}
}

// put writes a row of sess or user and counts a new one.
func (t *tables) put(bucket int, key, value []byte) error {
	b := t.bucket(bucket)
	if b.Get(key) == nil {
		t.count(bucket, 1)
	}
	return b.Put(key, value)
}

// remove removes a row of sess or user, if it is there, and counts that.
func (t *tables) remove(bucket int, key []byte) error {
	b := t.bucket(bucket)
	if b.Get(key) != nil {
		t.count(bucket, -1)
	}
	return b.Delete(key)
}

func (t *tables) count(bucket int, n int64) {
	switch bucket {
	case sess:
		t.changed.sessions += n
	case user:
		t.changed.users += n
	}
}

// bucket opens a bucket on its first use: most reads need few, and each costs a
// search and some memory.
func (t *tables) bucket(i int) *bolt.Bucket {
	if t.buckets[i] == nil {
		t.buckets[i] = t.tx.Bucket(bucketNames[i])
		if i == exp {
			t.buckets[i].FillPercent = 0.95 // new keys come at the right edge only
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
	return t.put(sess, d[:], b)
}

// getUser refuses a row that names another user than its key does.
func (t *tables) getUser(id store.UserID) (store.User, bool) {
	u, ok := t.getUserByHash(id.Hash())
	return u, ok && u.ID == id
}

// getUserByKey reads a row of the bucket user by its key.
func (t *tables) getUserByKey(k []byte) (store.User, bool) {
	if len(k) != len(store.UserID{}.Hash()) {
		t.damaged("user", k)
		return store.User{}, false
	}
	return t.getUserByHash([16]byte(k))
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
	u.Proof = t.proofOf(u)
	return u, true
}

func (t *tables) putUser(u store.User) error {
	b, err := u.AppendBinary(make([]byte, 0, 512))
	if err != nil {
		return err
	}
	t.ended = append(t.ended, u.TakeEnds()...)
	h := u.ID.Hash()
	return t.put(user, h[:], b)
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

// ensureEpoch makes the epoch if it is missing.
func (t *tables) ensureEpoch(key []byte) (uint64, error) {
	if e, ok := t.getEpoch(key); ok {
		return e, nil
	}
	e := randomEpoch()
	return e, t.putEpoch(key, e)
}

// bumpEpoch ends all sessions under the epoch. A missing or unreadable epoch has
// ended them already, and stays missing.
func (t *tables) bumpEpoch(key []byte) error {
	e, ok := t.getEpoch(key)
	if !ok {
		return t.bucket(epoch).Delete(key)
	}
	return t.putEpoch(key, e+1)
}

// ensureEpochs returns the epochs of a new session of the user.
func (t *tables) ensureEpochs(u store.User) (e store.Epochs, err error) {
	e.User = u.Epoch
	if e.Global, err = t.ensureEpoch(keyGlobal); err != nil {
		return e, err
	}
	e.App, err = t.ensureEpoch(appKey(u.ID.AppID))
	return e, err
}

// unlist removes a session from its user's list and notes its end there.
func (t *tables) unlist(
	id store.UserID, d store.Digest, why store.Reason, at time.Time,
) error {
	u, ok := t.getUser(id)
	if !ok || !u.EndSession(d, why, at) {
		return nil
	}
	return t.putUser(u)
}

// randomEpoch is the first value of an epoch: one made anew matches no session
// of before.
func randomEpoch() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// read runs f in a read transaction and returns its result.
func read[T any](ctx context.Context, s *Store, f func(*tables) (T, error)) (res T, err error) {
	err = s.read(ctx, func(t *tables) error {
		res, err = f(t)
		return err
	})
	return res, err
}

// read runs f in a read transaction. Readers and the committer do not wait for
// each other, and reads go on when the store cannot be written to.
func (s *Store) read(ctx context.Context, f func(*tables) error) error {
	const doing = "reading session store"
	if err := ctx.Err(); err != nil {
		return unavailable(doing, context.Cause(ctx))
	}
	o := s.open.Load()
	err := o.view(func(tx *bolt.Tx) error { return f(s.tables(o, tx)) })
	switch {
	case err == nil, errors.Is(err, store.ErrNotFound):
		return err
	case isPanic(err), errors.Is(err, errOverwritten):
		s.settle(o, err)
	}
	return unavailable(doing, err)
}
