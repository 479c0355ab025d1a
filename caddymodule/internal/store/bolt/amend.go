package bolt

import (
	"context"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Amend implements store.Store. As with every write here, an error that comes from ctx leaves open whether the change was made.
func (s *Store) Amend(ctx context.Context, id store.UserID, a store.Amendment) (store.Amended, error) {
	var res store.Amended
	var known bool
	err := s.write(ctx, func(t *tables) (err error) {
		res, known, err = t.amend(id, a)
		return err
	})
	if err != nil {
		return store.Amended{}, err // res may still be written to
	}
	if !known {
		return store.Amended{}, store.ErrNotFound
	}
	return res, nil
}

// amend reports an unknown user beside the error, which would fail the operations of others too.
func (t *tables) amend(id store.UserID, a store.Amendment) (res store.Amended, known bool, err error) {
	u, known := t.getUser(id)
	if !known {
		return res, false, nil
	}
	res = u.Amend(a)
	if res.UnionIDChanged {
		if err := t.indexUnion(id, res.UnionIDWas, u.UnionID); err != nil {
			return res, true, err
		}
	}
	return res, true, t.putUser(u)
}
