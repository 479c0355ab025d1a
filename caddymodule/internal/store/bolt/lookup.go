package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Lookup implements store.Store.
func (s *Store) Lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	return read(ctx, s, func(t *tables) (rec store.Record, err error) {
		ses, ok1 := t.getSession(d)
		if !ok1 {
			return rec, store.ErrNotFound
		}
		u, ok1 := t.getUser(ses.User)
		global, ok2 := t.getEpoch(keyGlobal)
		app, ok3 := t.getEpoch(appKey(ses.User.AppID))
		if !ok1 || !ok2 || !ok3 {
			return rec, store.ErrNotFound
		}
		return store.Record{
			Session: ses,
			UnionID: u.UnionID,
			Proof:   u.Proof,
			Phone:   u.Phone,
			Current: store.Epochs{Global: global, App: app, User: u.Epoch},
		}, nil
	})
}

// User implements store.Store.
func (s *Store) User(ctx context.Context, id store.UserID) (store.User, error) {
	return read(ctx, s, func(t *tables) (store.User, error) {
		u, ok := t.getUser(id)
		if !ok {
			return store.User{}, store.ErrNotFound
		}
		return u, nil
	})
}

// ByUnionID implements store.Store.
func (s *Store) ByUnionID(ctx context.Context, unionID string) ([]store.UserID, error) {
	return read(ctx, s, func(t *tables) ([]store.UserID, error) {
		return t.byUnionID(unionID), nil
	})
}

// byUnionID asks the users' records which rows of the index are true: a row may
// have outlived its user, or the user's unionid.
func (t *tables) byUnionID(unionID string) (ids []store.UserID) {
	if unionID == "" {
		return nil
	}
	prefix := unionPrefix(unionID)
	c := t.bucket(union).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		if len(k) != len(prefix)+16 {
			t.damaged("unionid", k)
			continue
		}
		if u, ok := t.getUserByHash([16]byte(k[len(prefix):])); ok && u.UnionID == unionID {
			ids = append(ids, u.ID)
		}
	}
	return ids
}

// indexUnion moves the row of a user from one unionid to another. The row holds the
// proof. The empty unionid has no rows.
func (t *tables) indexUnion(before, after store.User) error {
	if before.UnionID == after.UnionID && before.Proof == after.Proof {
		return nil
	}
	if before.UnionID != "" && before.UnionID != after.UnionID {
		if err := t.bucket(union).Delete(unionRow(before)); err != nil {
			return err
		}
	}
	if after.UnionID == "" {
		return nil
	}
	var proof []byte
	if after.Proof != (store.Proof{}) {
		proof = after.Proof[:]
	}
	return t.bucket(union).Put(unionRow(after), proof)
}

// unindexUnion removes the row of a user.
func (t *tables) unindexUnion(u store.User) error {
	return t.indexUnion(u, store.User{ID: u.ID})
}

// proofOf reads the proof of a user's unionid.
func (t *tables) proofOf(u store.User) store.Proof {
	if u.UnionID == "" || t.bucket(union) == nil { // of a file of version 1
		return store.Proof{}
	}
	row := t.bucket(union).Get(unionRow(u))
	if len(row) != len(store.Proof{}) {
		return store.Proof{}
	}
	return store.Proof(row)
}

func unionRow(u store.User) []byte {
	h := u.ID.Hash()
	return append(unionPrefix(u.UnionID), h[:]...)
}

// unionPrefix begins the rows of a unionid. Its length does not depend on the
// unionid's, which is WeChat's choice.
func unionPrefix(unionID string) []byte {
	sum := sha256.Sum256([]byte(unionID))
	return append(make([]byte, 0, 32), sum[:16]...)
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
