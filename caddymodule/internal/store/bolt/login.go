package bolt

import (
	"context"
	"fmt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Login implements store.Store. When ctx ends while the login waits for its commit, the error wraps store.ErrUnavailable and the session may have been made nevertheless; nobody knows its token.
func (s *Store) Login(ctx context.Context, l store.Login) (store.LoginResult, error) {
	if err := checkAppID(l.User.AppID); err != nil {
		return store.LoginResult{}, err
	}
	var res store.LoginResult
	err := s.write(ctx, func(t *tables) (err error) {
		res, err = t.login(l)
		return err
	})
	if err != nil {
		return store.LoginResult{}, err // res may still be written to
	}
	return res, nil
}

func (t *tables) login(l store.Login) (res store.LoginResult, err error) {
	u, known := t.getUser(l.User)
	if !known {
		u.Epoch = randomEpoch()
	}
	if err := t.endPresented(l, &u, &res); err != nil {
		return res, err
	}
	before := u.UnionID
	ended, expired := u.Admit(l)
	for _, ds := range [][]store.Digest{ended, expired} {
		for _, d := range ds {
			if err := t.bucket(sess).Delete(d[:]); err != nil {
				return res, err
			}
		}
	}
	res.Ended = append(res.Ended, ended...)
	res.UnionID = u.UnionID
	res.UnionIDChanged = known && u.UnionID != before

	ses := store.Session{User: l.User, Created: l.Created, UsedUntil: l.UsedUntil, Expires: l.Expires}
	ses.Epochs.User = u.Epoch
	if ses.Epochs.Global, err = t.ensureEpoch(keyGlobal); err != nil {
		return res, err
	}
	if ses.Epochs.App, err = t.ensureEpoch(appKey(l.User.AppID)); err != nil {
		return res, err
	}
	if err := t.putSession(l.Digest, ses); err != nil {
		return res, err
	}
	if err := t.bucket(exp).Put(expKey(l.Expires, l.Digest), nil); err != nil {
		return res, err
	}
	if u.UnionID != before {
		if err := t.indexUnion(u.ID, before, u.UnionID); err != nil {
			return res, err
		}
	}
	if err := t.needMasterKey(l); err != nil {
		return res, err
	}
	return res, t.putUser(u)
}

// endPresented ends the session that was presented with the login. It comes before Admit, so that a session on its way out takes no room.
func (t *tables) endPresented(l store.Login, u *store.User, res *store.LoginResult) error {
	if l.Ends.IsZero() {
		return nil
	}
	old, ok := t.getSession(l.Ends)
	if !ok {
		return nil
	}
	res.Ended = append(res.Ended, l.Ends)
	if err := t.bucket(sess).Delete(l.Ends[:]); err != nil {
		return err
	}
	if old.User == l.User {
		u.Drop(l.Ends) // u is written by the caller
		return nil
	}
	return t.unlist(old.User, l.Ends)
}

// checkAppID refuses what bbolt would refuse as a key: inside a transaction that would fail the logins of others too.
func checkAppID(appID string) error {
	if len(appID) > maxAppID {
		return fmt.Errorf("%w: %d bytes, at most %d", errAppID, len(appID), maxAppID)
	}
	return nil
}
