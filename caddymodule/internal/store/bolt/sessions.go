package bolt

import (
	"context"
	"fmt"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Login implements store.Store. When ctx ends while the login waits for its
// commit, the error wraps store.ErrUnavailable. The session may exist then, but
// no client has its token.
func (s *Store) Login(ctx context.Context, l store.Login) (store.LoginResult, error) {
	if err := checkAppID(l.User.AppID); err != nil {
		return store.LoginResult{}, err
	}
	return write(ctx, s, func(t *tables) (store.LoginResult, error) { return t.login(l) })
}

func (t *tables) login(l store.Login) (res store.LoginResult, err error) {
	u, known := t.getUser(l.User)
	if !known {
		u.Epoch = randomEpoch()
	}
	before := u
	ended, expired := u.Admit(l)
	if err := t.shortenPresented(l); err != nil {
		return res, err
	}
	if err := t.deleteSessions(append(expired, ended...)); err != nil {
		return res, err
	}
	res.Ended = ended
	res.UnionID, res.Proof = u.UnionID, u.Proof
	res.UnionIDChanged = known && (u.UnionID != before.UnionID || u.Proof != before.Proof)

	ses := l.Session()
	if ses.Epochs, err = t.ensureEpochs(u); err != nil {
		return res, err
	}
	if err := t.addSession(l.Digest, ses); err != nil {
		return res, err
	}
	if err := t.needMasterKey(l); err != nil {
		return res, err
	}
	if err := t.indexUnion(before, u); err != nil {
		return res, err
	}
	return res, t.putUser(u)
}

// shortenPresented makes the session end soon that the client presented with the
// login. Admit has shortened it on the list of l.User.
func (t *tables) shortenPresented(l store.Login) error {
	ses, ok := t.getSession(l.Ends)
	if !ok {
		return nil
	}
	by := l.EndsBy(ses.Expires)
	if by.Equal(ses.Expires) {
		return nil
	}
	ses.Expires = by
	if err := t.addSession(l.Ends, ses); err != nil {
		return err
	}
	if ses.User == l.User {
		return nil
	}
	other, ok := t.getUser(ses.User)
	if !ok || !other.Shorten(l.Ends, by) {
		return nil
	}
	return t.putUser(other)
}

// addSession writes a session and a new row in exp.
func (t *tables) addSession(d store.Digest, ses store.Session) error {
	if err := t.putSession(d, ses); err != nil {
		return err
	}
	return t.bucket(exp).Put(expKey(ses.Expires, d), nil)
}

// checkAppID refuses an appid that bbolt refuses as a key. Inside a transaction,
// it would fail other logins, too.
func checkAppID(appID string) error {
	if len(appID) > maxAppID {
		return fmt.Errorf("%w: %d bytes, at most %d", errAppID, len(appID), maxAppID)
	}
	return nil
}

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

// lastExpiry returns a time after which no session lives, or the zero time.
func (t *tables) lastExpiry() time.Time {
	k, _ := t.bucket(exp).Cursor().Last()
	at, _, _ := splitExpKey(k)
	return at
}
