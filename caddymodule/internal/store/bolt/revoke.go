package bolt

import (
	"context"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// End implements store.Store. After an error that comes from ctx, the change may
// have been made; so it is with every write.
func (s *Store) End(ctx context.Context, d store.Digest, why store.Reason) error {
	return s.write(ctx, func(t *tables) error {
		ses, ok := t.getSession(d)
		if !ok {
			return nil
		}
		if err := t.remove(sess, d[:]); err != nil {
			return err
		}
		return t.unlist(ses.User, d, why, time.Now())
	})
}

// RevokeUser implements store.Store. The new epoch ends the sessions. Their rows
// go with it to save room.
func (s *Store) RevokeUser(ctx context.Context, id store.UserID, why store.Reason) error {
	return s.write(ctx, func(t *tables) error {
		u, ok := t.getUser(id)
		if !ok { // an unreadable record ends the sessions, too, and must not come back
			return t.deleteUser(id)
		}
		if err := t.deleteSessions(digests(u.Sessions)); err != nil {
			return err
		}
		u.Revoke(why, time.Now())
		return t.putUser(u)
	})
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

// RevokeApp implements store.Store. The rows of the sessions stay until they
// expire.
func (s *Store) RevokeApp(ctx context.Context, appID string) error {
	if err := checkAppID(appID); err != nil {
		return err
	}
	return s.write(ctx, func(t *tables) error { return t.bumpEpoch(appKey(appID)) })
}

// RevokeAll implements store.Store. The rows of the sessions stay until they
// expire.
func (s *Store) RevokeAll(ctx context.Context) error {
	return s.write(ctx, func(t *tables) error {
		if err := t.freeMasterKeys(); err != nil {
			return err
		}
		return t.bumpEpoch(keyGlobal)
	})
}

func (t *tables) deleteUser(id store.UserID) error {
	h := id.Hash()
	return t.remove(user, h[:])
}

// deleteSessions deletes the rows of sessions and leaves them on the user's list.
func (t *tables) deleteSessions(list []store.Digest) error {
	for _, d := range list {
		if err := t.remove(sess, d[:]); err != nil {
			return err
		}
	}
	return nil
}

func digests(refs []store.SessionRef) []store.Digest {
	list := make([]store.Digest, len(refs))
	for i, r := range refs {
		list[i] = r.Digest
	}
	return list
}
