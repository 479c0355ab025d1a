package redis

import (
	"context"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Amend implements store.Store. As with every write here, an error leaves open whether the change was made. Should an answer of the engine be lost and the record change again before the
// second try, the change is made once but not told.
func (s *Store) Amend(ctx context.Context, id store.UserID, a store.Amendment) (store.Amended, error) {
	var res store.Amended
	err := s.write(ctx, func(ctx context.Context, db db) (err error) {
		res, err = db.amend(ctx, id, a)
		return err
	})
	if err != nil {
		return store.Amended{}, err
	}
	return res, nil
}

// amend tries until nobody has changed the record since it was read.
func (db db) amend(ctx context.Context, id store.UserID, a store.Amendment) (store.Amended, error) {
	h := id.Hash()
	record, err := text(db.c.Do(ctx, db.get(db.keys.user(h))))
	if err != nil {
		return store.Amended{}, err
	}
	for {
		u, ok := db.parseUser(id, h, record)
		if !ok {
			return store.Amended{}, store.ErrNotFound
		}
		before := u
		res := u.Amend(a)
		next, err := userRecord(u)
		if err != nil || next == record {
			return res, err
		}
		if err := db.index(ctx, before, u); err != nil {
			return res, err
		}
		now, done, err := db.swap(ctx, swap{user: h, old: record, new: next, until: userUntil(u), tell: res.UnionIDChanged || a.Phone != nil})
		if done || err != nil {
			return res, err
		}
		record = now
	}
}
