package bolt

import (
	"context"
	"fmt"

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
