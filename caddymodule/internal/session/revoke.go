package session

import (
	"context"
	"fmt"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Logout ends the session of a token. A session that is already gone is no error. The
// error wraps ErrInvalid for a token that this gate never made.
func (s *Service) Logout(ctx context.Context, token string) error {
	switch {
	case !keyring.WellFormed(token):
		return ErrMalformed
	case !s.cfg.Keys.Signed(token):
		return ErrForged
	}
	return s.end(ctx, digestOf(token))
}

func (s *Service) end(ctx context.Context, d store.Digest) error {
	c := s.cfg.Core
	return c.revoke("ending session", revocation{kind: ofSession, digest: d}, func() error {
		return c.store.End(ctx, d)
	})
}

// RevokeUser ends every session of a user.
func (s *Service) RevokeUser(ctx context.Context, id store.UserID) error {
	c := s.cfg.Core
	return c.revoke("revoking user", revocation{kind: ofUser, user: id}, func() error {
		return c.store.RevokeUser(ctx, id)
	})
}

// Forget removes all that the store knows of a user, their sessions included. After an
// error the gate ends the sessions as RevokeUser does; the caller repeats the rest.
func (s *Service) Forget(ctx context.Context, id store.UserID) error {
	c := s.cfg.Core
	return c.revoke("forgetting user", revocation{kind: ofUser, user: id}, func() error {
		return c.store.Forget(ctx, id)
	})
}

// RevokeApp ends every session of a mini program.
func (s *Service) RevokeApp(ctx context.Context, appID string) error {
	c, app := s.cfg.Core, store.UserID{AppID: appID}
	return c.revoke("revoking mini program", revocation{kind: ofApp, user: app}, func() error {
		return c.store.RevokeApp(ctx, appID)
	})
}

// RevokeAll ends every session, and with them every need for a master key.
func (s *Service) RevokeAll(ctx context.Context) error {
	c := s.cfg.Core
	return c.revoke("revoking everybody", revocation{kind: ofAll}, func() error {
		return c.store.RevokeAll(ctx)
	})
}

// revoke carries a revocation out. The store has it first and the cache is marked
// second: no check that begins after the call returns is answered from before it
// (docs/design.md#p3). An error that wraps ErrUnavailable means that it may not be
// durable, nor known to other gates. This gate refuses all the same what was to end,
// and retries.
func (c *Core) revoke(doing string, r revocation, call func() error) error {
	if err := c.uses.begin(); err != nil {
		return wrap(doing, err)
	}
	defer c.uses.done()
	err := c.asked(writing, call())
	c.revocations.record(r, err)
	return wrap(doing, err)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
