package session

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

// Phone exchanges the code of a getPhoneNumber button for the telephone number of the user (WECHAT.md 6.1). That it is theirs is the client's word: the code names only the mini program.
// With Config.RememberPhone the number is kept, and shown from the next request on. The error wraps ErrUnknownApp, or ErrUnknown when there is no such user, or ErrUnavailable, or is a
// *weixin.Error. It needs Config.Calls.
//
// A number costs money and a code is spent by its first use. So the store is asked before the code is spent, and a number that it does not take after all is returned nevertheless. Once
// begun, the call goes on without the caller.
func (s *Service) Phone(ctx context.Context, id store.UserID, code string) (opendata.Phone, error) {
	const doing = "getting phone number"
	app, ok := s.apps[id.AppID]
	if !ok {
		return opendata.Phone{}, ErrUnknownApp
	}
	if err := s.cfg.Core.uses.begin(); err != nil {
		return opendata.Phone{}, wrap(doing, err)
	}
	defer s.cfg.Core.uses.done()
	if ctx.Err() != nil {
		return opendata.Phone{}, wrap(doing, errors.Join(ErrUnavailable, ctx.Err()))
	}
	if s.cfg.RememberPhone {
		if err := s.readyFor(ctx, id); err != nil {
			return opendata.Phone{}, wrap(doing, err)
		}
	}
	ctx = context.WithoutCancel(ctx)
	p, err := s.cfg.Calls.PhoneNumber(ctx, app, code, id.OpenID)
	if err != nil {
		return opendata.Phone{}, err
	}
	if s.cfg.RememberPhone {
		_, _ = s.amend(ctx, id, store.Amendment{Phone: s.cfg.Keys.SealPhone(keyring.User(id), p.Number)})
	}
	return p, nil
}

// readyFor returns nil while the store can be expected to take an amendment of the user.
func (s *Service) readyFor(ctx context.Context, id store.UserID) error {
	if err := s.cfg.Core.ready(ctx); err != nil {
		return err
	}
	_, err := s.knownUser(ctx, id)
	return err
}

// phone returns the telephone number that an entry holds. One that does not open is none: it is no reason to refuse the user.
func (s *Service) phone(e *entry) string {
	box := e.phone()
	if box == "" {
		return ""
	}
	number, err := s.cfg.Keys.OpenPhone(keyring.User(e.user()), []byte(box))
	if err != nil {
		s.badPhone.Do(func() {
			s.cfg.Core.outage.Log.Warn("a remembered phone number cannot be opened; its user, and others like them, are shown without one", zap.Error(err))
		})
	}
	return number
}
