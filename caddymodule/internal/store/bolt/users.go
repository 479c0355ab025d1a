package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

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

// Amend implements store.Store. After an error that comes from ctx, the change
// may have been made.
func (s *Store) Amend(
	ctx context.Context, id store.UserID, a store.Amendment,
) (store.Amended, error) {
	res, err := write(ctx, s, func(t *tables) (*store.Amended, error) {
		u, ok := t.getUser(id)
		if !ok {
			return nil, nil // an error would fail the other operations of the commit
		}
		before := u
		res := u.Amend(a)
		err := t.indexUnion(before, u)
		return &res, errors.Join(err, t.putUser(u))
	})
	switch {
	case err != nil:
		return store.Amended{}, err
	case res == nil:
		return store.Amended{}, store.ErrNotFound
	}
	return *res, nil
}

// Forget implements store.Store. The epoch goes, too: a new record begins with a
// random one.
func (s *Store) Forget(ctx context.Context, id store.UserID, why store.Reason) error {
	return s.write(ctx, func(t *tables) error {
		if u, ok := t.getUser(id); ok {
			if err := t.deleteSessions(digests(u.Sessions)); err != nil {
				return err
			}
			if err := t.unindexUnion(u); err != nil {
				return err
			}
			t.ended = append(t.ended, u.Forgotten(why, time.Now())...)
		}
		return t.deleteUser(id)
	})
}

func (t *tables) deleteUser(id store.UserID) error {
	h := id.Hash()
	return t.remove(user, h[:])
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
