package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

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
