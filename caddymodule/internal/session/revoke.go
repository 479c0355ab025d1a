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
	err := c.store.End(ctx, d)
	return c.revoked("ending session", revocation{kind: ofSession, digest: d}, err)
}

// RevokeUser ends every session of a user.
func (s *Service) RevokeUser(ctx context.Context, id store.UserID) error {
	c := s.cfg.Core
	err := c.store.RevokeUser(ctx, id)
	return c.revoked("revoking user", revocation{kind: ofUser, user: id}, err)
}

// Forget removes all that the store knows of a user, their sessions included. After an
// error the gate ends the sessions as RevokeUser does; the caller repeats the rest.
func (s *Service) Forget(ctx context.Context, id store.UserID) error {
	c := s.cfg.Core
	err := c.store.Forget(ctx, id)
	return c.revoked("forgetting user", revocation{kind: ofUser, user: id}, err)
}

// RevokeApp ends every session of a mini program.
func (s *Service) RevokeApp(ctx context.Context, appID string) error {
	c := s.cfg.Core
	err := c.store.RevokeApp(ctx, appID)
	return c.revoked("revoking mini program", revocation{kind: ofApp, user: store.UserID{AppID: appID}}, err)
}

// RevokeAll ends every session, and with them every need for a master key.
func (s *Service) RevokeAll(ctx context.Context) error {
	c := s.cfg.Core
	return c.revoked("revoking everybody", revocation{kind: ofAll}, c.store.RevokeAll(ctx))
}

// revoked takes the outcome of a revocation. The store has it first and the cache is
// marked second: no check that begins after the call returns is answered from before
// it (docs/design.md#p3). An error that wraps ErrUnavailable means that it may not be
// durable, nor known to other gates. This gate refuses all the same what was to end,
// and retries.
func (c *Core) revoked(doing string, r revocation, err error) error {
	c.revocations.record(r, c.asked(writing, err))
	return wrap(doing, err)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
