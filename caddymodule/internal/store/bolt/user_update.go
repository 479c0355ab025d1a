package bolt

import (
	"context"
	"errors"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

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
