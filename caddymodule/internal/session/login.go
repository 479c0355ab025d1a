package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// LoginRequest is one call of /wx/login.
type LoginRequest struct {
	AppID, Code string
	Presented   string     // the token sent along, or empty; a live one ends with the login and never changes its answer
	Client      netip.Addr // who may be given the same answer again; the zero Addr: nobody

	// Begin takes room for an exchange and end gives it back, which may be long after the client has gone. Not ok: there is no room. Nil: there always is.
	Begin func() (end func(), ok bool)
}

// Login is an answered login.
type Login struct {
	Token   string
	Expires time.Time
	User    store.UserID
	Digest  store.Digest // names the session in logs

	UnionIDBound bool
	Replayed     bool // the answer of an earlier request with the same code
}

// storeTimeout bounds the durable write of a login; the code is spent by then, so it is generous.
const storeTimeout = 10 * time.Second

// Login exchanges a code for a session. The error is ErrUnknownApp, ErrBusy, wraps ErrUnavailable, or is a *weixin.Error. A login that was sent to WeChat is finished whether or not ctx lives on:
// its code is spent, and the client may come back for the answer.
func (s *Service) Login(ctx context.Context, req LoginRequest) (Login, error) {
	app, ok := s.apps[req.AppID]
	if !ok {
		return Login{}, ErrUnknownApp
	}
	c := s.cfg.Core
	if err := c.uses.begin(); err != nil {
		return Login{}, fmt.Errorf("logging in: %w", err)
	}
	defer c.uses.done()
	// Before the code is spent: a store that is down would turn it into nothing (THREATS.md 23).
	if err := c.ready(ctx); err != nil {
		return Login{}, fmt.Errorf("logging in: %w", err)
	}

	f, leads, ok := c.logins.join(flightKey(req.AppID, req.Code), req.Client)
	if !ok {
		return Login{}, &weixin.Error{Op: "exchanging code", Class: weixin.ClassCodeUsed, Reason: "the code is in use by another client"}
	}
	if leads {
		end, ok := req.begin()
		if !ok {
			c.logins.finish(f, Login{}, ErrBusy, 0)
			return Login{}, ErrBusy
		}
		started := c.background(func() {
			defer end()
			out, err := survive(c, func() (Login, error) {
				return s.exchange(context.WithoutCancel(ctx), app, req)
			})
			c.logins.finish(f, out, err, s.cfg.Replay)
		})
		if !started {
			end()
			c.logins.finish(f, Login{}, errClosed, 0)
		}
	}
	select {
	case <-ctx.Done():
		return Login{}, fmt.Errorf("%w: waiting for login: %w", ErrUnavailable, ctx.Err())
	case <-f.done:
		out := f.login
		out.Replayed = !leads
		return out, f.err
	}
}

func (r LoginRequest) begin() (end func(), ok bool) {
	if r.Begin == nil {
		return func() {}, true
	}
	return r.Begin()
}

// exchange spends the code and makes the session durable.
func (s *Service) exchange(ctx context.Context, app weixin.Credentials, req LoginRequest) (Login, error) {
	wx, err := s.cfg.WeChat.Code2Session(ctx, app, req.Code)
	if err != nil {
		return Login{}, err
	}
	token := s.cfg.Keys.Mint()
	now := time.Now()
	l := store.Login{
		User:       store.UserID{AppID: app.ID, OpenID: wx.OpenID},
		UnionID:    wx.UnionID,
		Digest:     digestOf(token),
		MasterKey:  store.MasterKeyID(s.cfg.Keys.Signer()),
		Created:    now,
		Expires:    now.Add(s.cfg.TTL),
		UsedUntil:  now.Add(time.Duration(s.touchEvery) * time.Millisecond),
		MaxPerUser: s.cfg.MaxPerUser,
	}
	owner := keyring.User(l.User)
	l.Key = store.SealedKey(s.cfg.Keys.SealSessionKey(owner, wx.SessionKey))
	l.OldTags = s.cfg.Keys.OldTags(owner, wx.SessionKey)
	if keyring.WellFormed(req.Presented) {
		l.Ends = digestOf(req.Presented)
	}

	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	c := s.cfg.Core
	res, err := c.storeLogin(ctx, l)
	if err != nil {
		return Login{}, fmt.Errorf("storing login: %w", err)
	}
	for _, d := range res.Ended {
		c.cache.void(digestKey(d))
	}
	if !l.Ends.IsZero() {
		c.cache.void(digestKey(l.Ends)) // another gate may have ended it, which this one has not heard of
	}
	if res.UnionIDChanged {
		c.cache.void(userKey(l.User))
	}
	return Login{Token: token, Expires: l.Expires, User: l.User, Digest: l.Digest, UnionIDBound: res.UnionID != ""}, nil
}

// readyTimeout bounds what a call waits to learn whether the store takes writes.
const readyTimeout = time.Second

// ready returns nil while the store takes writes. A call asks it before WeChat spends
// a code or a key, which would be lost with a store that is down (THREATS.md 23).
func (c *Core) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return c.asked(writing, c.store.Health(ctx))
}

// storeLogin makes a login durable. It retries while a shared store is down and time
// is left: the code is spent, and a server that restarts is back in a moment. A
// repeated store.Login makes no second session.
func (c *Core) storeLogin(ctx context.Context, l store.Login) (store.LoginResult, error) {
	for {
		res, err := c.store.Login(ctx, l)
		if c.asked(writing, err) == nil {
			return res, nil
		}
		// The login may have taken effect all the same.
		c.cache.void(digestKey(l.Ends), userKey(l.User))
		if c.shared == nil || !errors.Is(err, store.ErrUnavailable) {
			return res, err
		}
		select {
		case <-time.After(retryFirst):
		case <-ctx.Done():
			return res, err
		case <-c.closing.Done():
			return res, err
		}
	}
}
