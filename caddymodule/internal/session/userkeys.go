package session

import (
	"context"
	"errors"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

// Caller is what everything but a login needs of WeChat; *weixin.Client is one. Its errors are *weixin.Error. It gets a Session without a SessionKey where none is known, and refuses it with
// weixin.ClassKeyStale.
type Caller interface {
	PhoneNumber(ctx context.Context, app weixin.Credentials, code, openID string) (opendata.Phone, error)
	CheckSession(ctx context.Context, app weixin.Credentials, s weixin.Session) error
	ResetUserSessionKey(ctx context.Context, app weixin.Credentials, s weixin.Session) (weixin.Session, error)
	UserEncryptKey(ctx context.Context, app weixin.Credentials, s weixin.Session) ([]weixin.UserKey, error)
	PaidUnionID(ctx context.Context, app weixin.Credentials, p weixin.Payment) (string, error)
	PluginOpenPID(ctx context.Context, app weixin.Credentials, code string) (string, error)
}

// The calls below are made in the name of a user, whose session_key the gate keeps to itself: it signs with the current one. All need Config.Calls. Their errors wrap ErrUnknownApp, or
// ErrUnknown when there is no such user, or ErrUnavailable, or are a *weixin.Error; one of weixin.ClassKeyStale means that the user has to log in again.

// CheckSessionKey reports whether the user's session_key is the one that WeChat has (WECHAT.md 4). It is not if there is none.
func (s *Service) CheckSessionKey(ctx context.Context, id store.UserID) (valid bool, err error) {
	app, wx, _, err := s.caller(ctx, id)
	if err != nil {
		return false, wrap("checking session_key", err)
	}
	err = s.cfg.Calls.CheckSession(ctx, app, wx)
	if e, ok := errors.AsType[*weixin.Error](err); ok && e.Class == weixin.ClassKeyStale {
		return false, nil
	}
	return err == nil, err
}

// ResetSessionKey has WeChat replace the user's session_key (WECHAT.md 4) and keeps the new one, unless a login that came in between has brought one. It goes on without the caller: the old
// key is dead by then. With an error that wraps ErrUnavailable after all, the user has to log in again.
func (s *Service) ResetSessionKey(ctx context.Context, id store.UserID) error {
	const doing = "resetting session_key"
	if err := s.cfg.Core.uses.begin(); err != nil {
		return wrap(doing, err)
	}
	defer s.cfg.Core.uses.done()
	if err := s.cfg.Core.ready(ctx); err != nil {
		return wrap(doing, err)
	}
	app, wx, u, err := s.caller(ctx, id)
	if err != nil {
		return wrap(doing, err)
	}
	ctx = context.WithoutCancel(ctx)
	fresh, err := s.cfg.Calls.ResetUserSessionKey(ctx, app, wx)
	if err != nil {
		return err
	}
	return wrap(doing, s.replaceKey(ctx, u, wx.SessionKey, fresh.SessionKey))
}

// replaceKey makes fresh the session_key of a user whose key is was, as u shows. The same key may meanwhile get another tag, from a gate with another first key in its ring: it is replaced
// nevertheless.
func (s *Service) replaceKey(ctx context.Context, u store.User, was, fresh string) error {
	ring, owner := s.cfg.Keys, keyring.User(u.ID)
	for {
		if now, err := ring.OpenSessionKey(owner, u.Key.Box); err != nil || now != was {
			return nil
		}
		res, err := s.amend(ctx, u.ID, store.Amendment{
			Key:     store.SealedKey(ring.SealSessionKey(owner, fresh)),
			OldTags: ring.OldTags(owner, fresh),
			KeyWas:  u.Key.Tag,
		})
		if err != nil || res.KeySet {
			return err
		}
		if u, err = s.knownUser(ctx, u.ID); err != nil {
			return err
		}
	}
}

// EncryptKeys returns the user's latest keys of wx.getUserCryptoManager, newest first (WECHAT.md 7.3).
func (s *Service) EncryptKeys(ctx context.Context, id store.UserID) ([]weixin.UserKey, error) {
	app, wx, _, err := s.caller(ctx, id)
	if err != nil {
		return nil, wrap("getting encryption keys", err)
	}
	return s.cfg.Calls.UserEncryptKey(ctx, app, wx)
}

// PaidUnionID returns the unionid of a user who has just paid (WECHAT.md 7.1) and binds it to them, as OpenData does. p.OpenID is the user's whatever it says.
func (s *Service) PaidUnionID(ctx context.Context, id store.UserID, p weixin.Payment) (unionID string, err error) {
	const doing = "getting unionid after a payment"
	if err := s.cfg.Core.uses.begin(); err != nil {
		return "", wrap(doing, err)
	}
	defer s.cfg.Core.uses.done()
	app, wx, u, err := s.caller(ctx, id)
	if err != nil {
		return "", wrap(doing, err)
	}
	p.OpenID = wx.OpenID
	if unionID, err = s.cfg.Calls.PaidUnionID(ctx, app, p); err != nil {
		return "", err
	}
	if err := s.bind(ctx, u, unionID); err != nil {
		return "", wrap(doing, err)
	}
	return unionID, nil
}

// PluginOpenPID exchanges a code of wx.pluginLogin for the id by which a plugin, appID, knows the user in the mini program that hosts it (WECHAT.md 7.2). It has nothing to do with sessions.
func (s *Service) PluginOpenPID(ctx context.Context, appID, code string) (openPID string, err error) {
	app, ok := s.apps[appID]
	if !ok {
		return "", ErrUnknownApp
	}
	return s.cfg.Calls.PluginOpenPID(ctx, app, code)
}

// caller returns what a call in the name of a user takes. wx has no SessionKey when none is known that opens.
func (s *Service) caller(ctx context.Context, id store.UserID) (app weixin.Credentials, wx weixin.Session, u store.User, err error) {
	app, ok := s.apps[id.AppID]
	if !ok {
		return app, wx, u, ErrUnknownApp
	}
	if u, err = s.knownUser(ctx, id); err != nil {
		return app, wx, u, err
	}
	key, _ := s.cfg.Keys.OpenSessionKey(keyring.User(id), u.Key.Box)
	return app, weixin.Session{OpenID: id.OpenID, UnionID: u.UnionID, SessionKey: key}, u, nil
}
