package session

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Logout ends the session of a token. A session that is already gone is no
// error. The error wraps ErrInvalid for a token that this gate never made.
func (s *Service) Logout(ctx context.Context, token string) error {
	switch {
	case !keyring.WellFormed(token):
		return ErrMalformed
	case !s.cfg.Keys.Signed(token):
		return ErrForged
	}
	return s.end(ctx, digestOf(token), EndLogout)
}

func (s *Service) end(ctx context.Context, d store.Digest, why Reason) error {
	c, r := s.cfg.Core, revocation{kind: ofSession, digest: d}
	return c.revoke("ending session", r, why, func() error {
		return c.store.End(ctx, d, why)
	})
}

// EndByID ends the one session of a user whose ID begins with prefix, of at
// least 8 hex digits. The error wraps ErrUnknown when there is no such session
// or more than one. The gate does not retry it, since without the store it
// cannot know which one is meant.
func (s *Service) EndByID(ctx context.Context, id User, prefix string, why Reason) error {
	u, err := s.user(ctx, id)
	if err != nil && !errors.Is(err, ErrUnknownUser) {
		return wrap("ending session", err)
	}
	prefix = strings.ToLower(prefix)
	var found []store.Digest
	for _, ref := range u.Sessions {
		if strings.HasPrefix(hex.EncodeToString(ref.Digest[:]), prefix) {
			found = append(found, ref.Digest)
		}
	}
	switch {
	case len(prefix) < minSessionIDLen:
		return fmt.Errorf("%w; give at least %d digits of its id", ErrUnknown, minSessionIDLen)
	case len(found) == 0:
		return ErrUnknown
	case len(found) > 1:
		return fmt.Errorf("%w; %d sessions have an id that begins so", ErrUnknown, len(found))
	}
	return s.end(ctx, found[0], why)
}

// RevokeUser ends every session of a user.
func (s *Service) RevokeUser(ctx context.Context, id User, why Reason) error {
	c := s.cfg.Core
	return c.revoke("revoking user", revocation{kind: ofUser, user: id}, why, func() error {
		return c.store.RevokeUser(ctx, id, why)
	})
}

// Forget removes all that the store knows of a user, their sessions included.
// After an error the gate ends the sessions as RevokeUser does; the caller
// repeats the rest.
func (s *Service) Forget(ctx context.Context, id User, why Reason) error {
	c := s.cfg.Core
	return c.revoke("forgetting user", revocation{kind: ofUser, user: id}, why, func() error {
		return c.store.Forget(ctx, id, why)
	})
}

// RevokeApp ends every session of a mini program.
func (s *Service) RevokeApp(ctx context.Context, appID string) error {
	c, r := s.cfg.Core, revocation{kind: ofApp, user: User{AppID: appID}}
	return c.revoke("revoking mini program", r, EndRevoked, func() error {
		return c.store.RevokeApp(ctx, appID)
	})
}

// RevokeAll ends every session, and with them every need for a master key.
func (s *Service) RevokeAll(ctx context.Context) error {
	c := s.cfg.Core
	return c.revoke("revoking all sessions", revocation{kind: ofAll}, EndRevoked, func() error {
		return c.store.RevokeAll(ctx)
	})
}

// revoke carries a revocation out. The store has it first and the cache is
// marked second: no check that begins after the call returns is answered from
// before it (docs/design.md#p3). An error that wraps ErrUnavailable means that
// it may not be durable, nor known to other gates. This gate refuses all the
// same what was to end, and retries.
func (c *Core) revoke(doing string, r revocation, why Reason, call func() error) error {
	if err := c.uses.begin(); err != nil {
		return wrap(doing, err)
	}
	defer c.uses.done()
	err := c.asked(writing, call())
	c.revocations.record(r, nil, why, err)
	return wrap(doing, err)
}

// RevokeUnionID ends every session of the users with a unionid, in all mini
// programs of its group, and returns how many users that were. When one fails it goes on
// with the others. The caller repeats a call that returned an error.
func (s *Service) RevokeUnionID(
	ctx context.Context, who Person, why Reason,
) (users int, err error) {
	return s.eachWith(ctx, who, "revoking unionid", why, s.RevokeUser)
}

// ForgetUnionID is Forget for the users with a unionid, as RevokeUnionID is
// RevokeUser.
func (s *Service) ForgetUnionID(
	ctx context.Context, who Person, why Reason,
) (users int, err error) {
	return s.eachWith(ctx, who, "forgetting unionid", why, s.Forget)
}

func (s *Service) eachWith(
	ctx context.Context, who Person, doing string, why Reason,
	end func(context.Context, User, Reason) error,
) (users int, err error) {
	c, all := s.cfg.Core, revocation{kind: ofUnionID, person: who}
	ids, err := c.usersOf(ctx, who, s.cfg.Groups)
	if err != nil {
		c.revocations.record(all, s.cfg.Groups, why, err)
		return 0, wrap(doing, err)
	}
	for _, id := range ids {
		if failed := end(ctx, id, why); failed != nil {
			err = failed
			continue
		}
		users++
	}
	if err == nil {
		c.revocations.settle(all)
	}
	return users, err
}
