package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// Exchanger is what a login needs of WeChat. Its errors are *weixin.Error.
type Exchanger interface {
	Code2Session(ctx context.Context, app weixin.Credentials, code string) (weixin.Session, error)
}

// Config is what one configuration of the gate says about sessions. Core, WeChat, Apps, Keys and TTL are required, and Calls by the methods that say so.
type Config struct {
	Core   *Core
	WeChat Exchanger
	Calls  Caller
	Apps   []weixin.Credentials
	Keys   *keyring.Ring

	// MaxSessions bounds the sessions in the cache; 0 keeps the bound as it is.
	MaxSessions int64

	// MaxStaleness bounds how long a Service believes the cache without hearing from a
	// store.Shared; 0: it never does. It has no meaning for other stores.
	MaxStaleness time.Duration

	TTL        time.Duration // absolute life of a session
	Idle       time.Duration // 0: no idle timeout; after a shorter one than before, a session may live up to an hour longer, once
	MaxPerUser int           // live sessions of one user; 0: no limit
	Replay     time.Duration // how long a finished login is answered again to the same client; 0: never

	RememberPhone bool          // Phone keeps the number, and an Identity shows it; if not, a number that was kept before is not shown
	DataMaxAge    time.Duration // open data that WeChat made longer ago is refused; 0: none is. Data from the future always is

	// UnionIDBound, if set, is told of each unionid that came to light otherwise than by a login and is bound to the user now: the first one, or another than before. It is for the audit log.
	UnionIDBound func(id store.UserID, changed bool)
}

// Service logs users in and tells who a token belongs to. It is safe for concurrent use.
type Service struct {
	cfg        Config
	apps       map[string]weixin.Credentials
	touchEvery int64 // milliseconds: touchInterval

	badPhone sync.Once // the first telephone number that does not open is logged
}

// New returns a Service of cfg.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg, apps: make(map[string]weixin.Credentials, len(cfg.Apps)), touchEvery: touchInterval(cfg.TTL, cfg.Idle).Milliseconds()}
	for _, a := range cfg.Apps {
		s.apps[a.ID] = a
	}
	cfg.Core.revocations.allow(cfg.TTL)
	return s
}

// maxTouch is a moment less than the store's longest interval, so that a session
// noted at it differs from those of the first release, of which gates that share
// a store must tell each other.
const maxTouch = store.MaxTouchInterval - time.Millisecond

// touchInterval is how seldom a configuration notes in the store that a session
// is in use (DESIGN.md 5): a twentieth of the timeout that it serves and at most
// once a minute, yet often enough for a timeout of minutes, and within maxTouch.
func touchInterval(ttl, idle time.Duration) time.Duration {
	if idle <= 0 {
		return min(max(time.Minute, ttl/20), maxTouch)
	}
	return min(max(time.Minute, idle/20), idle/4, maxTouch)
}

// Identity is who a token belongs to.
type Identity struct {
	AppID, OpenID string
	UnionID       string    // empty when not known
	Phone         string    // printable ASCII; empty unless one is remembered and Config.RememberPhone is set
	Expires       time.Time // when the session ends at the latest
}

// lookupTimeout bounds what a check waits for the store, so that an outage is answered within DESIGN.md P4's 100 ms.
const lookupTimeout = 90 * time.Millisecond

// Authenticate returns whose token it is. The error wraps ErrInvalid when the token opens nothing and ErrUnavailable when that could not be found out. A token in the cache costs no
// allocation and no call to the store (DESIGN.md P8), but for a remembered telephone number, which is only opened to be shown.
func (s *Service) Authenticate(ctx context.Context, token string) (Identity, error) {
	if !keyring.WellFormed(token) {
		return Identity{}, ErrMalformed
	}
	c, d := s.cfg.Core, digestOf(token)
	if err := c.uses.begin(); err != nil {
		return Identity{}, err
	}
	defer c.uses.done()
	// In this order, each before what it is to judge: a pending revocation is forgotten only after its mark is set, and what was heard of is marked already.
	pending, now := c.revocations.pending.Load(), time.Now()
	if c.believes(now, s.cfg.MaxStaleness) {
		if e := c.cache.get(&d); e != nil {
			now := now.UnixMilli()
			// An idle limit reached by what the cache remembers is not reached yet: the session may have been seen by way of another entry or on another node.
			if id, err := s.admit(e, now, pending); err != ErrExpired || now >= e.expires {
				c.hits.Inc()
				return id, err
			}
		}
	}
	e, err := s.lookup(ctx, token, d)
	if err != nil {
		return Identity{}, err
	}
	return s.admit(e, time.Now().UnixMilli(), pending)
}

// admit judges the time limits of a believed entry and the revocations that the store does not know of yet, and notes the use.
func (s *Service) admit(e *entry, now int64, pending *pendingSet) (Identity, error) {
	if pending != nil && pending.covers(e.digest, e.user(), e.unionID(), e.created) {
		return Identity{}, ErrRevoked
	}
	until := e.usedUntil.Load()
	if now >= e.expires || s.idle(until, now) {
		return Identity{}, ErrExpired
	}
	if next := now + s.touchEvery; now >= until && e.usedUntil.CompareAndSwap(until, next) {
		s.cfg.Core.store.Touch(e.digest, time.UnixMilli(next))
	}
	id := Identity{AppID: e.appID, OpenID: e.openID(), UnionID: e.unionID(), Expires: time.UnixMilli(e.expires)}
	if s.cfg.RememberPhone {
		id.Phone = s.phone(e)
	}
	return id, nil
}

// idle reports whether a session has reached the idle timeout. Its last note is
// one touch interval before usedUntil. A configuration that noted more seldom has
// written a later time, so a shorter timeout ends no session in use.
func (s *Service) idle(usedUntil, now int64) bool {
	return s.cfg.Idle > 0 && now >= usedUntil-s.touchEvery+s.cfg.Idle.Milliseconds()
}

// lookup asks the store, once for all concurrent checks of the same token.
func (s *Service) lookup(ctx context.Context, token string, d store.Digest) (*entry, error) {
	if !s.cfg.Keys.Signed(token) {
		return nil, ErrForged
	}
	c := s.cfg.Core
	c.misses.Inc()
	for {
		answer := c.lookups.DoChan(string(d[:]), func() (any, error) {
			return survive(c, func() (*entry, error) { return c.read(ctx, d, s.cfg.MaxSessions) })
		})
		select {
		case <-ctx.Done():
			c.background(func() { <-answer }) // or Close would take the cache away under it
			return nil, errors.Join(ErrUnavailable, ctx.Err())
		case r := <-answer:
			if r.Err != nil {
				return nil, r.Err
			}
			// The look-up may have been under way before this check began: what it read holds only if nothing was revoked since.
			if e := r.Val.(*entry); c.cache.fresh(e) {
				return e, nil
			}
		}
	}
}

// read fetches one session from the store, judges its epochs and offers it to the cache.
func (c *Core) read(ctx context.Context, d store.Digest, maxSessions int64) (*entry, error) {
	// The first caller's patience must not decide for those who wait with it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
	defer cancel()

	readAt := c.cache.now()
	rec, err := c.store.Lookup(ctx, d)
	switch c.asked(reading, err); {
	case errors.Is(err, store.ErrNotFound):
		return nil, ErrUnknown
	case err != nil:
		return nil, err
	case rec.Session.Epochs != rec.Current:
		return nil, ErrRevoked
	}
	e := newEntry(d, rec, readAt)
	c.cache.resize(maxSessions)
	c.cache.put(e, time.Now())
	return e, nil
}
