package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// ByUnionID implements store.Store.
func (s *Store) ByUnionID(ctx context.Context, unionID string) ([]store.UserID, error) {
	var ids []store.UserID
	err := s.read(ctx, func(t *tables) error {
		ids = t.byUnionID(unionID)
		return nil
	})
	return ids, err
}

// byUnionID asks the users' records which of the index's rows are true: a row may have outlived its user, or what was known of it.
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

// indexUnion moves the user's row from one unionid to another; the empty one has no rows.
func (t *tables) indexUnion(id store.UserID, from, to string) error {
	h := id.Hash()
	if from != "" {
		if err := t.bucket(union).Delete(append(unionPrefix(from), h[:]...)); err != nil {
			return err
		}
	}
	if to == "" {
		return nil
	}
	return t.bucket(union).Put(append(unionPrefix(to), h[:]...), nil)
}

// unionPrefix begins the rows of a unionid. It has the same length for every unionid, however long WeChat may make them.
func unionPrefix(unionID string) []byte {
	sum := sha256.Sum256([]byte(unionID))
	return append(make([]byte, 0, 32), sum[:16]...)
}
