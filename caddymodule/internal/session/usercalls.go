package session

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

// Caller is what everything but a login needs of WeChat. Its errors are
// *weixin.Error. It refuses a Session without a SessionKey with
// weixin.ClassKeyStale.
type Caller interface {
	PhoneNumber(
		_ context.Context, _ weixin.Credentials, code, openID string,
	) (opendata.Phone, error)
	CheckSession(context.Context, weixin.Credentials, weixin.Session) error
	ResetUserSessionKey(
		context.Context, weixin.Credentials, weixin.Session,
	) (weixin.Session, error)
	UserEncryptKey(context.Context, weixin.Credentials, weixin.Session) ([]weixin.UserKey, error)
	PaidUnionID(context.Context, weixin.Credentials, weixin.Payment) (string, error)
	PluginOpenPID(_ context.Context, _ weixin.Credentials, code string) (string, error)
}

// The gate makes the calls below for a user, whose session_key it keeps to
// itself. All need Config.Calls. Their errors wrap ErrUnknownApp,
// ErrUnknownUser or ErrUnavailable, or are a *weixin.Error; with
// weixin.ClassKeyStale the user has to log in again.

// Phone exchanges the code of a getPhoneNumber button for a telephone number
// (docs/wechat.md#phone-code). That it is the user's is the client's word: the
// code names only the mini program. With Config.RememberPhone the gate keeps
// the number and shows it from the next request on.
//
// A number costs money, and its first use spends a code. So the store is asked
// before, and a number that it does not take is returned all the same. Once
// begun, the call goes on without ctx.
func (s *Service) Phone(ctx context.Context, id User, code string) (opendata.Phone, error) {
	const doing = "getting phone number"
	app, err := s.app(ctx, id.AppID)
	if err != nil {
		return opendata.Phone{}, err
	}
	c := s.cfg.Core
	if err := c.uses.begin(); err != nil {
		return opendata.Phone{}, wrap(doing, err)
	}
	defer c.uses.done()
	if ctx.Err() != nil {
		return opendata.Phone{}, wrap(doing, errors.Join(ErrUnavailable, ctx.Err()))
	}
	if s.cfg.RememberPhone {
		err := c.ready(ctx)
		if err == nil {
			_, err = s.user(ctx, id)
		}
		if err != nil {
			return opendata.Phone{}, wrap(doing, err)
		}
	}
	ctx = context.WithoutCancel(ctx)
	p, err := s.cfg.Calls.PhoneNumber(ctx, app, code, id.OpenID)
	if err != nil {
		return opendata.Phone{}, err
	}
	if s.cfg.RememberPhone {
		sealed := s.cfg.Keys.SealPhone(keyring.User(id), p.Number)
		_, _ = s.amend(ctx, id, store.Amendment{Phone: sealed})
	}
	return p, nil
}

// ForgetPhone removes the telephone number that the store keeps of a user, if any. The
// error wraps ErrUnavailable.
func (s *Service) ForgetPhone(ctx context.Context, id User) error {
	_, err := s.amend(ctx, id, store.Amendment{Phone: []byte{}})
	if errors.Is(err, ErrUnknownUser) {
		return nil
	}
	return wrap("forgetting phone number", err)
}

// phone returns the telephone number of an entry. One that does not open is no
// reason to refuse the user.
func (s *Service) phone(e *entry) string {
	box := e.phone()
	if box == "" {
		return ""
	}
	number, err := s.cfg.Keys.OpenPhone(keyring.User(e.user()), []byte(box))
	if err != nil {
		s.badPhone.Do(func() {
			log := s.cfg.Core.log
			log.Warn("kept phone numbers do not open; users are shown without", zap.Error(err))
		})
	}
	return number
}

// CheckSessionKey reports whether WeChat has the user's session_key
// (docs/wechat.md#check-session-key). It does not if there is none.
func (s *Service) CheckSessionKey(ctx context.Context, id User) (valid bool, err error) {
	app, wx, _, err := s.callFor(ctx, id)
	if err != nil {
		return false, wrap("checking session_key", err)
	}
	err = s.cfg.Calls.CheckSession(ctx, app, wx)
	if e, ok := errors.AsType[*weixin.Error](err); ok && e.Class == weixin.ClassKeyStale {
		return false, nil
	}
	return err == nil, err
}

// ResetSessionKey has WeChat replace the user's session_key and keeps the new
// one, unless a login in between has brought another
// (docs/wechat.md#check-session-key). It goes on without ctx, since the old key
// is dead by then. After an error that wraps ErrUnavailable the user may have
// to log in again.
func (s *Service) ResetSessionKey(ctx context.Context, id User) error {
	const doing = "resetting session_key"
	c := s.cfg.Core
	if err := c.uses.begin(); err != nil {
		return wrap(doing, err)
	}
	defer c.uses.done()
	if err := c.ready(ctx); err != nil {
		return wrap(doing, err)
	}
	app, wx, u, err := s.callFor(ctx, id)
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

// replaceKey makes fresh the session_key of a user whose key is was, as u
// shows. It also replaces the same key under another tag, which it gets from a
// gate that signs with another master key.
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
		if u, err = s.user(ctx, u.ID); err != nil {
			return err
		}
	}
}

// EncryptKeys returns the user's latest keys of wx.getUserCryptoManager, newest
// first (docs/wechat.md#user-keys).
func (s *Service) EncryptKeys(ctx context.Context, id User) ([]weixin.UserKey, error) {
	app, wx, _, err := s.callFor(ctx, id)
	if err != nil {
		return nil, wrap("getting encryption keys", err)
	}
	return s.cfg.Calls.UserEncryptKey(ctx, app, wx)
}

// PaidUnionID returns the unionid of a user who has just paid
// (docs/wechat.md#paid-unionid) and binds it to them, as OpenData does. The
// openid is that of id, whatever p says.
func (s *Service) PaidUnionID(
	ctx context.Context, id User, p weixin.Payment,
) (unionID string, err error) {
	const doing = "getting unionid after a payment"
	if err := s.cfg.Core.uses.begin(); err != nil {
		return "", wrap(doing, err)
	}
	defer s.cfg.Core.uses.done()
	app, wx, u, err := s.callFor(ctx, id)
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

// PluginOpenPID exchanges a code of wx.pluginLogin for the id by which a
// plugin, appID, knows the user in the mini program that hosts it
// (docs/wechat.md#plugin-openpid). Sessions have no part in it.
func (s *Service) PluginOpenPID(
	ctx context.Context, appID, code string,
) (openPID string, err error) {
	app, err := s.app(ctx, appID)
	if err != nil {
		return "", err
	}
	return s.cfg.Calls.PluginOpenPID(ctx, app, code)
}

// callFor returns what a call for a user takes. wx has no SessionKey when no
// known one opens.
func (s *Service) callFor(ctx context.Context, id User) (
	app weixin.Credentials, wx weixin.Session, u store.User, err error,
) {
	if app, err = s.app(ctx, id.AppID); err != nil {
		return app, wx, u, err
	}
	if u, err = s.user(ctx, id); err != nil {
		return app, wx, u, err
	}
	key, _ := s.cfg.Keys.OpenSessionKey(keyring.User(id), u.Key.Box)
	return app, weixin.Session{OpenID: id.OpenID, UnionID: u.UnionID, SessionKey: key}, u, nil
}
