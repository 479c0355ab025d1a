package session

import (
	"context"
	"fmt"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Every revocation is made durable first and marked in the cache second: when the call returns, no check that begins later is answered from before it (DESIGN.md P3). An error wrapping
// ErrUnavailable means that it may not be durable, and not known to other gates; this gate refuses all the same what was to end, and goes on trying (pending.go).

// Logout ends the session of a token. One that is already gone is not an error; a token that was never one of ours is, and wraps ErrInvalid.
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
	err := c.asked(writing, c.store.End(ctx, d))
	c.revoked(revocation{kind: ofSession, digest: d}, err)
	return wrap("ending session", err)
}

// RevokeUser ends every session of a user.
func (s *Service) RevokeUser(ctx context.Context, id store.UserID) error {
	c := s.cfg.Core
	err := c.asked(writing, c.store.RevokeUser(ctx, id))
	c.revoked(revocation{kind: ofUser, user: id}, err)
	return wrap("revoking user", err)
}

// Forget removes all that the store knows of a user, and ends every session of theirs with it. When it fails the sessions are ended as by RevokeUser; the rest has to be asked for again.
func (s *Service) Forget(ctx context.Context, id store.UserID) error {
	c := s.cfg.Core
	err := c.asked(writing, c.store.Forget(ctx, id))
	c.revoked(revocation{kind: ofUser, user: id}, err)
	return wrap("forgetting user", err)
}

// RevokeApp ends every session of a mini program.
func (s *Service) RevokeApp(ctx context.Context, appID string) error {
	c := s.cfg.Core
	err := c.asked(writing, c.store.RevokeApp(ctx, appID))
	c.revoked(revocation{kind: ofApp, user: store.UserID{AppID: appID}}, err)
	return wrap("revoking mini program", err)
}

// RevokeAll ends every session. Master keys that the first one of the ring has replaced may be dropped from then on, unless the error wraps ErrKeysKept.
func (s *Service) RevokeAll(ctx context.Context) error {
	c := s.cfg.Core
	err := c.asked(writing, c.store.RevokeAll(ctx))
	c.revoked(revocation{kind: ofAll}, err)
	if err != nil {
		return wrap("revoking everybody", err)
	}
	if err := s.freeKeys(ctx); err != nil {
		return fmt.Errorf("%w: %v", ErrKeysKept, err) // not for want of a store: what was asked for is done
	}
	return nil
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
