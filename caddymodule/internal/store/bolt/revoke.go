package bolt

import (
	"context"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// End implements store.Store. As with every write here, an error that comes from ctx leaves open whether the change was made.
func (s *Store) End(ctx context.Context, d store.Digest) error {
	return s.write(ctx, func(t *tables) error {
		ses, ok := t.getSession(d)
		if !ok {
			return nil
		}
		if err := t.bucket(sess).Delete(d[:]); err != nil {
			return err
		}
		return t.unlist(ses.User, d)
	})
}

// RevokeUser implements store.Store. The epoch is what ends the sessions; their rows go with it to save room.
func (s *Store) RevokeUser(ctx context.Context, id store.UserID) error {
	return s.write(ctx, func(t *tables) error {
		u, ok := t.getUser(id)
		if !ok {
			// No session holds without the record. One that cannot be read goes, lest it ever be read again.
			h := id.Hash()
			return t.bucket(user).Delete(h[:])
		}
		if err := t.deleteSessions(u); err != nil {
			return err
		}
		u.Epoch++
		u.Sessions = nil
		return t.putUser(u)
	})
}

// deleteSessions deletes the rows of a user's sessions, and leaves them listed.
func (t *tables) deleteSessions(u store.User) error {
	for _, ref := range u.Sessions {
		if err := t.bucket(sess).Delete(ref.Digest[:]); err != nil {
			return err
		}
	}
	return nil
}

// Forget implements store.Store. The epoch goes, too: that of a record made anew starts at random.
func (s *Store) Forget(ctx context.Context, id store.UserID) error {
	return s.write(ctx, func(t *tables) error {
		if u, ok := t.getUser(id); ok {
			if err := t.deleteSessions(u); err != nil {
				return err
			}
			if err := t.indexUnion(id, u.UnionID, ""); err != nil {
				return err
			}
		}
		h := id.Hash()
		return t.bucket(user).Delete(h[:]) // one that cannot be read as well
	})
}

// RevokeApp implements store.Store. The rows of the ended sessions stay until they expire.
func (s *Store) RevokeApp(ctx context.Context, appID string) error {
	if err := checkAppID(appID); err != nil {
		return err
	}
	return s.write(ctx, func(t *tables) error { return t.bumpEpoch(appKey(appID)) })
}

// RevokeAll implements store.Store. The rows of the ended sessions stay until they expire.
func (s *Store) RevokeAll(ctx context.Context) error {
	return s.write(ctx, func(t *tables) error {
		if err := t.freeMasterKeys(); err != nil {
			return err
		}
		return t.bumpEpoch(keyGlobal)
	})
}
