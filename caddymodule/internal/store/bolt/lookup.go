package bolt

import (
	"context"
	"errors"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Lookup implements store.Store.
func (s *Store) Lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	var rec store.Record
	err := s.read(ctx, func(t *tables) error {
		ses, ok := t.getSession(d)
		if !ok {
			return store.ErrNotFound
		}
		u, ok := t.getUser(ses.User)
		if !ok {
			return store.ErrNotFound
		}
		global, ok := t.getEpoch(keyGlobal)
		if !ok {
			return store.ErrNotFound
		}
		app, ok := t.getEpoch(appKey(ses.User.AppID))
		if !ok {
			return store.ErrNotFound
		}
		rec = store.Record{Session: ses, UnionID: u.UnionID, Phone: u.Phone, Current: store.Epochs{Global: global, App: app, User: u.Epoch}}
		return nil
	})
	return rec, err
}

// User implements store.Store.
func (s *Store) User(ctx context.Context, id store.UserID) (store.User, error) {
	var u store.User
	err := s.read(ctx, func(t *tables) error {
		var ok bool
		if u, ok = t.getUser(id); !ok {
			return store.ErrNotFound
		}
		return nil
	})
	return u, err
}

// read runs f in a read transaction. Readers neither wait for the committer nor make it wait, and go on when the store cannot be written to.
func (s *Store) read(ctx context.Context, f func(*tables) error) error {
	const doing = "reading session store"
	if err := ctx.Err(); err != nil {
		return unavailable(doing, context.Cause(ctx))
	}
	if s.blind.Load() {
		return unavailable(doing, errBlind)
	}
	begun := false
	err := protect(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			begun = true
			return f(s.tables(tx))
		})
	})
	switch {
	case err == nil, errors.Is(err, store.ErrNotFound):
		return err
	case errors.As(err, new(panicError)):
		if !begun {
			s.blind.Store(true) // bbolt has died with its locks taken: whoever came next would wait for ever
		}
		s.settle(err)
	}
	return unavailable(doing, err)
}
