package session

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Reason says why sessions end.
type Reason = store.Reason

// The reasons that callers give; those of the gate itself are in package store.
const (
	EndLogout    = store.EndLogout    // the user logged out
	EndRevoked   = store.EndRevoked   // the operator ended it
	EndByApp     = store.EndByApp     // the app ended it
	EndBlocked   = store.EndBlocked   // the operator blocked the user
	EndForgotten = store.EndForgotten // the operator or the app had the user forgotten
	EndCancelled = store.EndCancelled // WeChat said that the user cancelled the account
	EndWithdrawn = store.EndWithdrawn // WeChat said that the user withdrew consent
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

// ended logs how a session ended, once for all gates that share the store.
func (c *Core) ended(e store.Ended) {
	c.audit.Info("session ended", zap.String("appid", e.User.AppID),
		zap.String("openid", e.User.OpenID), zap.Stringer("session", e.Session),
		zap.Stringer("reason", e.Reason), zap.Time("at", e.At))
}

// lapses are the sessions that were found to have ended when a client presented their
// token. Each is put on record once: by this process, and by the record itself for all
// gates.
type lapses struct {
	mu    sync.Mutex
	known map[store.Digest]bool
	now   int // being put on record
}

const (
	maxLapses  = 1 << 12 // known ones; more begin anew, which costs a write each
	maxWriting = 16      // at the same time; more come with their next request
)

// lapse puts on record why a judgement found a session to be over, if time ended it.
func (s *Service) lapse(e *entry, judged error, at time.Time) {
	if judged != ErrExpired {
		return
	}
	switch now, until := s.cfg.Core.clock(at).UnixMilli(), e.usedUntil.Load(); {
	case now >= e.expires:
		s.cfg.Core.lapsed(e.user(), e.digest, e.created, e.expires, store.EndExpired)
	case s.idle(until, now):
		ended := until - s.touchEvery + s.cfg.Idle.Milliseconds()
		s.cfg.Core.lapsed(e.user(), e.digest, e.created, ended, store.EndIdle)
	}
}

// lapsed puts the end of a session on record, in the background.
func (c *Core) lapsed(u User, d store.Digest, created, at int64, why Reason) {
	l := &c.lapses
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[d] || l.now >= maxWriting {
		return
	}
	if l.known == nil || len(l.known) >= maxLapses {
		l.known = make(map[store.Digest]bool)
	}
	e := store.End{
		Session: d.ID(), Created: time.UnixMilli(created), At: time.UnixMilli(at), Reason: why,
	}
	if c.background(func() { c.record(u, d, e) }) {
		l.known[d] = true
		l.now++
	}
}

func (c *Core) record(u User, d store.Digest, e store.End) {
	ctx, cancel := context.WithTimeout(c.closing, storeTimeout)
	defer cancel()
	_, err := survive(c, func() (store.Amended, error) {
		return c.store.Amend(ctx, u, store.Amendment{End: e})
	})
	c.lapses.mu.Lock()
	defer c.lapses.mu.Unlock()
	c.lapses.now--
	if errors.Is(err, ErrUnavailable) {
		delete(c.lapses.known, d)
	}
}
