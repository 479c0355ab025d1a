// Package session turns a wx.login code into a 3rd_session token, and a token
// into an identity.
//
// It owns logins, the cache in front of the store and the judgement whether a
// session still holds. It declares what it needs of WeChat (Exchanger, Caller)
// and works on any store.Store. It does not know HTTP, Caddy, how a request
// carries its token, nor how a store keeps things.
//
// State lives in two places. A Core holds what outlives a configuration: store,
// cache, logins under way. A Service is one configuration's view of it: mini
// programs, limits, master keys.
package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// User names a user of a mini program.
type User = store.UserID

// Exchanger is what a login needs of WeChat. Its errors are *weixin.Error.
type Exchanger interface {
	Code2Session(ctx context.Context, app weixin.Credentials, code string) (weixin.Session, error)
}

// Config is what one configuration of the gate says about sessions. Core,
// WeChat, Apps, Keys and TTL are required, and Calls by the methods that say
// so.
type Config struct {
	Core   *Core
	WeChat Exchanger
	Calls  Caller
	Apps   []weixin.Credentials
	Keys   *keyring.Ring

	// Merchant, if set, returns the credentials of a mini program that is not among
	// Apps. The error is ErrUnknownApp or wraps ErrUnavailable.
	Merchant func(ctx context.Context, appID string) (weixin.Credentials, error)

	// Groups bounds what a unionid means; nil: one group.
	Groups *Groups

	// MaxSessions bounds the sessions in the cache; 0 keeps the bound as it is.
	MaxSessions int64

	// MaxStaleness bounds how long cached sessions stay valid while a
	// store.Shared is unreachable; 0: not at all. It has no meaning for other
	// stores.
	MaxStaleness time.Duration

	TTL time.Duration // from the login to the end of a session, used or not

	// Idle is the idle timeout; 0: none. After a reload with a shorter one a
	// session may live up to an hour longer, once.
	Idle time.Duration

	MaxPerUser int           // live sessions of one user; 0: no limit
	Replay     time.Duration // how long a client gets the answer of its login again; 0: never

	// RememberPhone makes Phone keep the number and Identity show it. Without
	// it Identity does not show a number that was kept before.
	RememberPhone bool

	// DataMaxAge is the age at which open data is refused; 0: never. Data from
	// the future always is.
	DataMaxAge time.Duration

	// UnionIDBound, if set, hears of each unionid that becomes known otherwise
	// than by a login, for the audit log. changed: another one was known
	// before.
	UnionIDBound func(id User, changed bool)
}

// Service logs users in and tells whose a token is. It is safe for concurrent
// use.
type Service struct {
	cfg        Config
	apps       map[string]weixin.Credentials
	touchEvery int64 // milliseconds: touchInterval

	badPhone sync.Once // the first telephone number that does not open is logged
}

// New returns a Service of cfg.
func New(cfg Config) *Service {
	s := &Service{
		cfg:        cfg,
		apps:       make(map[string]weixin.Credentials, len(cfg.Apps)),
		touchEvery: touchInterval(cfg.TTL, cfg.Idle).Milliseconds(),
	}
	for _, a := range cfg.Apps {
		s.apps[a.ID] = a
	}
	cfg.Core.revocations.allow(cfg.TTL)
	return s
}

// app returns the credentials of a mini program. The error is ErrUnknownApp or wraps
// ErrUnavailable.
func (s *Service) app(ctx context.Context, appID string) (weixin.Credentials, error) {
	if app, ok := s.apps[appID]; ok {
		return app, nil
	}
	if s.cfg.Merchant == nil {
		return weixin.Credentials{}, ErrUnknownApp
	}
	return s.cfg.Merchant(ctx, appID)
}

// maxTouch is a moment less than the store's longest interval, so that a session
// noted at it differs from those of the first release, of which gates that share
// a store must tell each other.
const maxTouch = store.MaxTouchInterval - time.Millisecond

// touchInterval is how seldom a configuration notes in the store that a session
// is in use (docs/design.md#idle-timeout): a twentieth of the timeout that it
// serves and at most once a minute, yet often enough for a timeout of minutes,
// and within maxTouch.
func touchInterval(ttl, idle time.Duration) time.Duration {
	if idle <= 0 {
		return min(max(time.Minute, ttl/20), maxTouch)
	}
	return min(max(time.Minute, idle/20), idle/4, maxTouch)
}

// Identity is the user that a token belongs to.
type Identity struct {
	AppID, OpenID string
	UnionID       string    // empty when not known
	Phone         string    // printable ASCII; empty when none is kept, or without RememberPhone
	Expires       time.Time // the session does not live longer
}

// User returns the user without the facts.
func (id Identity) User() User { return User{AppID: id.AppID, OpenID: id.OpenID} }

// lookupTimeout bounds what a check waits for the store, so that the client
// hears of an outage within 100 ms (docs/design.md#p4). A store.Patient has a
// bound of its own.
const lookupTimeout = 90 * time.Millisecond

// patience returns how long a check waits for a look-up, and how long the
// look-up may take.
func (c *Core) patience() (check, lookup time.Duration) {
	if p, ok := c.store.(store.Patient); ok {
		return p.Patience()
	}
	return lookupTimeout, lookupTimeout
}

var errSlow = fmt.Errorf("%w: the look-up takes too long", ErrUnavailable)

// Authenticate returns whose token it is. A cached token costs no allocation
// and no call to the store (docs/design.md#p8), except that opening a kept
// telephone number allocates. The error wraps ErrInvalid when the token opens
// nothing, and ErrUnavailable when the store does not answer.
func (s *Service) Authenticate(ctx context.Context, token string) (Identity, error) {
	e, err := s.authenticate(ctx, token)
	if err != nil {
		return Identity{}, err
	}
	return s.identity(e), nil
}

func (s *Service) authenticate(ctx context.Context, token string) (*entry, error) {
	if !keyring.WellFormed(token) {
		return nil, ErrMalformed
	}
	c, d := s.cfg.Core, digestOf(token)
	if err := c.uses.begin(); err != nil {
		return nil, err
	}
	defer c.uses.done()
	// The order matters. The set of pending revocations is read before the
	// marks, which are set before a revocation leaves it. The time is read
	// before Heard, and that before the marks, which a report sets first.
	pending, now := c.revocations.pending.Load(), time.Now()
	if c.believes(now, s.cfg.MaxStaleness) {
		if e := c.cache.get(&d); e != nil {
			// The cached time of the last use does not decide that a session is
			// idle: it may have been used by way of another entry or at another
			// gate.
			err := s.judge(e, now, pending)
			if err != ErrExpired || c.clock(now).UnixMilli() >= e.expires {
				c.hits.Inc()
				s.lapse(e, err, now)
				return e, err
			}
		}
	}
	e, err := s.lookup(ctx, token, d)
	if errors.Is(err, ErrUnavailable) {
		if was := c.trusted(&d, now, s.cfg.MaxStaleness); was != nil {
			if err := s.judge(was, now, pending); err != ErrExpired {
				return was, err
			}
		}
	}
	if err != nil {
		return nil, err
	}
	now = time.Now()
	err = s.judge(e, now, pending)
	s.lapse(e, err, now)
	return e, err
}

// maxAhead is how far ahead a session may have been made. A clock that jumped made
// one that is further ahead, and it would outlast every limit.
const maxAhead = 24 * time.Hour

// judge applies the time limits and the pending revocations to an entry at a time
// of this process, and notes its use.
func (s *Service) judge(e *entry, at time.Time, pending *pendingSet) error {
	now := s.cfg.Core.clock(at).UnixMilli()
	if pending != nil {
		person := s.person(e.appID, e.unionID())
		if pending.covers(e.digest, e.user(), person, e.created, now) {
			return ErrRevoked
		}
	}
	until := e.usedUntil.Load()
	if e.created > now+maxAhead.Milliseconds() && ClockUnset(time.UnixMilli(now)) {
		return errClockUnset
	}
	if now >= e.expires || e.created > now+maxAhead.Milliseconds() || s.idle(until, now) {
		return ErrExpired
	}
	if next := now + s.touchEvery; now >= until && e.usedUntil.CompareAndSwap(until, next) {
		s.cfg.Core.store.Touch(e.digest, time.UnixMilli(next))
	}
	return nil
}

// identity returns whose session an entry is.
func (s *Service) identity(e *entry) Identity {
	id := Identity{
		AppID: e.appID, OpenID: e.openID(), UnionID: e.unionID(),
		Expires: s.cfg.Core.localTime(e.expires),
	}
	if s.cfg.RememberPhone {
		id.Phone = s.phone(e)
	}
	return id
}

// idle reports whether a session has reached the idle timeout. Its last note is
// one touch interval before usedUntil. A configuration that noted more seldom
// has written a later time, so a shorter timeout ends no session in use.
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
	var late <-chan time.Time
	if check, most := c.patience(); check < most {
		late = time.After(check)
	}
	for {
		answer := c.lookups.DoChan(string(d[:]), func() (any, error) {
			return survive(c, func() (*entry, error) { return s.read(ctx, token, d) })
		})
		select {
		case <-ctx.Done():
			c.background(func() { <-answer }) // it uses the cache
			return nil, errors.Join(ErrUnavailable, ctx.Err())
		case <-late:
			c.background(func() { <-answer })
			return nil, errSlow
		case r := <-answer:
			if r.Err != nil {
				return nil, r.Err
			}
			// The look-up may have begun before this check: its answer holds
			// only if no revocation came in between.
			if e := r.Val.(*entry); c.cache.fresh(e) {
				return e, nil
			}
		}
	}
}

// read fetches the session of a token.
func (s *Service) read(ctx context.Context, token string, d store.Digest) (*entry, error) {
	return s.cfg.Core.read(ctx, d, s.cfg.MaxSessions, func(rec *store.Record) error {
		return s.vouch(token, d, rec)
	})
}

// reread fetches the session of an entry again, whose token is not at hand.
func (s *Service) reread(ctx context.Context, e *entry) (*entry, error) {
	return s.cfg.Core.read(ctx, e.digest, 0, func(rec *store.Record) error {
		return s.vouchAgain(e, rec)
	})
}

// read fetches one session from the store, judges its epochs and, by vouch, its origin,
// and caches it.
func (c *Core) read(
	ctx context.Context, d store.Digest, maxSessions int64, vouch func(*store.Record) error,
) (*entry, error) {
	// Others wait for this look-up, too, so the first caller's deadline does
	// not count.
	_, most := c.patience()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	defer cancel()

	readAt := c.cache.now()
	ctx, end := c.storeCall(ctx, "lookup")
	rec, err := c.store.Lookup(ctx, d)
	end(err)
	switch c.asked(reading, err); {
	case errors.Is(err, store.ErrNotFound):
		c.disproved(d)
		return nil, ErrUnknown
	case err != nil:
		return nil, err
	case rec.Session.Epochs != rec.Current:
		c.disproved(d)
		// The end of a user's sessions is on record. That of a mini program's, or of
		// all, names none of them.
		if ses := rec.Session; ses.Epochs.User == rec.Current.User {
			now := c.clock(time.Now()).UnixMilli()
			c.lapsed(ses.User, d, ses.Created.UnixMilli(), now, EndRevoked)
		}
		return nil, ErrRevoked
	}
	if err := vouch(&rec); err != nil {
		return nil, err
	}
	e := newEntry(d, rec, readAt)
	c.cache.resize(maxSessions)
	c.cache.put(e, c.clock(time.Now()))
	return e, nil
}

// Ticket returns a ticket for a token that Authenticate has just accepted: good for
// one target until ends, and no longer than the session.
func (s *Service) Ticket(token, target string, ends time.Time) string {
	return s.cfg.Keys.SealTicket(token, target, ends)
}

// TicketToken returns the token in a ticket for a target, for Authenticate. The error
// wraps ErrInvalid when the ticket opens nothing.
func (s *Service) TicketToken(ticket, target string) (token string, err error) {
	token, ends, err := s.cfg.Keys.OpenTicket(ticket, target)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrForged, err)
	case !time.Now().Before(ends):
		return "", ErrExpired
	}
	return token, nil
}

// silentUntil ends the time in which a gate believes the record of a session whose
// token names no holder: releases before December 2026 made such tokens. It is part
// of the program since whatever a store says of it could be written by an attacker
// who has the store (docs/stores.md#record-origin).
var silentUntil = time.Date(2027, time.July, 1, 0, 0, 0, 0, time.UTC)

// vouch checks that a gate wrote the record of a token's session (docs/threats.md#t37),
// and hides a unionid that no gate wrote. The error wraps ErrInvalid.
func (s *Service) vouch(token string, d store.Digest, rec *store.Record) error {
	ses := rec.Session
	h := keyring.Holder{
		User: keyring.User(ses.User), Created: ses.Created, Expires: ses.Expires,
	}
	binding := s.cfg.Keys.Binding(token, h)
	if binding == keyring.Other {
		// A login may have shortened the session (store.Grace).
		h.Expires = ses.Created.Add(s.cfg.TTL)
		if ses.Expires.Before(h.Expires) {
			binding = s.cfg.Keys.Binding(token, h)
		}
	}
	switch {
	case binding == keyring.Bound:
	case binding == keyring.Silent && time.Now().Before(silentUntil):
		return nil
	default:
		s.cfg.Core.foreign("session", d)
		return ErrForeign
	}
	if rec.UnionID != "" && !s.proven(ses.User, rec.UnionID, rec.Proof) {
		s.cfg.Core.foreign("unionid", d)
		rec.UnionID = ""
	}
	return nil
}

// vouchAgain is vouch by an entry that vouch let pass: the record may only have been
// shortened, and a unionid that is new must be proven.
func (s *Service) vouchAgain(e *entry, rec *store.Record) error {
	ses := rec.Session
	if ses.User != e.user() || ses.Created.UnixMilli() != e.created ||
		ses.Expires.UnixMilli() > e.expires {
		s.cfg.Core.foreign("session", e.digest)
		return ErrForeign
	}
	if rec.UnionID != "" && rec.UnionID != e.unionID() &&
		!s.proven(ses.User, rec.UnionID, rec.Proof) {
		s.cfg.Core.foreign("unionid", e.digest)
		rec.UnionID = ""
	}
	return nil
}

// foreign counts and logs a record that the store has from elsewhere than a gate.
func (c *Core) foreign(kind string, d store.Digest) {
	c.foreignRecords.Inc()
	c.foreignLog.Do(func() {
		c.log.Error("record in session store is not a gate's; not believed",
			zap.String("kind", kind), zap.String("session", sessionID(d)))
	})
}
