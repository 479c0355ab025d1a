package session

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// The states of a session.
const (
	StateLive    = "live"
	StateIdle    = "idle"    // not used for longer than the idle timeout
	StateExpired = "expired" // at the end of its absolute life
	StateRevoked = "revoked" // ended by a revocation, or ended just now
)

// SessionInfo is what an operator sees of one session.
type SessionInfo struct {
	ID       string // the first 16 hex digits of the digest
	Created  time.Time
	LastSeen time.Time // noted once an hour, or more often for an idle timeout
	Expires  time.Time
	State    string
}

// UserInfo is what an operator sees of one user.
type UserInfo struct {
	AppID, OpenID string
	UnionID       string // empty when not known
	LastLogin     time.Time
	Sessions      []SessionInfo // oldest first
	Ends          []EndInfo     // of sessions that have ended: the last few, newest first
}

// EndInfo is what an operator sees of a session that has ended.
type EndInfo struct {
	ID             string
	Created, Ended time.Time
	Reason         string
}

const (
	IDLen           = 16 // digits of a SessionInfo.ID
	minSessionIDLen = 8
)

// sessionID is what operators and logs call a session: enough to find it,
// useless as a credential.
func sessionID(d store.Digest) string { return hex.EncodeToString(d[:IDLen/2]) }

// User returns what is known of a user. The error wraps ErrUnknownUser when the
// store has no record, and ErrUnavailable when it does not answer.
func (s *Service) User(ctx context.Context, id User) (UserInfo, error) {
	const doing = "reading user"
	u, err := s.user(ctx, id)
	if err != nil {
		return UserInfo{}, wrap(doing, err)
	}
	info := UserInfo{AppID: id.AppID, OpenID: id.OpenID, UnionID: u.UnionID, LastLogin: u.LastLogin}
	for _, ref := range u.Sessions {
		i, err := s.info(ctx, ref)
		if err != nil {
			return UserInfo{}, wrap(doing, err)
		}
		info.Sessions = append(info.Sessions, i)
	}
	for _, e := range slices.Backward(u.Ends) {
		info.Ends = append(info.Ends, EndInfo{
			ID: e.Session.String(), Created: e.Created, Ended: e.At, Reason: e.Reason.String(),
		})
	}
	return info, nil
}

// maxOwn bounds the sessions that a user sees: each costs a question to the store.
const maxOwn = 50

// OwnSessions returns the live sessions of a user, the newest first and at most 50. The
// error wraps ErrInvalid when there is none, as after a log-out, and ErrUnavailable
// when the store does not answer.
func (s *Service) OwnSessions(ctx context.Context, id User) (list []SessionInfo, err error) {
	const doing = "listing sessions of user"
	u, err := s.user(ctx, id)
	if errors.Is(err, ErrUnknownUser) {
		return nil, ErrUnknown // forgotten since the check
	}
	if err != nil {
		return nil, wrap(doing, err)
	}
	for _, ref := range slices.Backward(u.Sessions) {
		i, err := s.info(ctx, ref)
		if err != nil {
			return nil, wrap(doing, err)
		}
		if i.State == StateLive {
			list = append(list, i)
		}
		if len(list) == maxOwn {
			break
		}
	}
	if len(list) == 0 {
		return nil, ErrUnknown
	}
	return list, nil
}

// IDOf returns the ID of a token's session.
func IDOf(token string) string { return sessionID(digestOf(token)) }

func (s *Service) user(ctx context.Context, id User) (store.User, error) {
	c := s.cfg.Core
	u, err := c.store.User(ctx, id)
	if errors.Is(c.asked(reading, err), store.ErrNotFound) {
		err = ErrUnknownUser
	}
	return u, err
}

// info judges a session as a check does.
func (s *Service) info(ctx context.Context, ref store.SessionRef) (SessionInfo, error) {
	i := SessionInfo{
		ID: sessionID(ref.Digest), Created: ref.Created, LastSeen: ref.Created,
		Expires: ref.Expires,
	}
	c := s.cfg.Core
	pending := c.revocations.pending.Load()
	rec, err := c.store.Lookup(ctx, ref.Digest)
	now := c.clock(time.Now()).UnixMilli()
	switch c.asked(reading, err); {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return i, err
	case err == nil:
		i.LastSeen = s.lastSeen(rec.Session, now)
	}
	ses := rec.Session
	switch {
	case now >= ref.Expires.UnixMilli():
		i.State = StateExpired
	case err != nil, ses.Epochs != rec.Current,
		pending.covers(ref.Digest, ses.User, s.person(ses.User.AppID, rec.UnionID),
			ses.Created.UnixMilli(), now):
		i.State = StateRevoked
	case s.idle(ses.UsedUntil.UnixMilli(), now):
		i.State = StateIdle
	default:
		i.State = StateLive
	}
	return i, nil
}

// lastSeen returns when the session was last noted. A configuration with a
// longer touch interval may have noted it: then the time is too late, but not
// ahead.
func (s *Service) lastSeen(ses store.Session, now int64) time.Time {
	noted := min(ses.UsedUntil.UnixMilli()-s.touchEvery, now)
	return time.UnixMilli(max(noted, ses.Created.UnixMilli()))
}

// errFound ends a dump early.
var errFound = errors.New("found")

// KnowsApp reports whether the store may have a user of a mini program, configured or
// not. It may read all users. The error wraps ErrUnavailable.
func (s *Service) KnowsApp(ctx context.Context, appID string) (bool, error) {
	c := s.cfg.Core
	d, ok := c.store.(store.Dumper)
	if !ok {
		return true, nil
	}
	err := d.Dump(ctx, func(it store.Item) error {
		if it.User.ID.AppID == appID {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, wrap("looking for users of a mini program", c.asked(reading, err))
}

// Live counts users and their live sessions.
type Live struct {
	Known           int // users, also those without a live session
	Users, Sessions int // live sessions, and the users who have one
}

// CountLive counts in one mini program, or in all when appID is empty. It reads every
// user. The error wraps ErrUnavailable, also when ctx ends first.
func (s *Service) CountLive(ctx context.Context, appID string) (n Live, err error) {
	c := s.cfg.Core
	d, ok := c.store.(store.Dumper)
	if !ok {
		return n, wrap("counting sessions", ErrUnavailable)
	}
	counted := make(map[User]bool) // a dump may tell of a user twice
	now := c.clock(time.Now()).UnixMilli()
	err = d.Dump(ctx, func(it store.Item) error {
		if appID != "" && it.User.ID.AppID != appID || counted[it.User.ID] {
			return ctx.Err()
		}
		counted[it.User.ID] = true
		n.Known++
		live := 0
		for _, ses := range it.Sessions {
			if !s.idle(ses.UsedUntil.UnixMilli(), now) {
				live++
			}
		}
		if n.Sessions += live; live > 0 {
			n.Users++
		}
		return ctx.Err()
	})
	if ctx.Err() != nil {
		err = errors.Join(ErrUnavailable, ctx.Err())
	}
	return n, wrap("counting sessions", err)
}

// Stats is what an operator sees of the sessions as a whole.
type Stats struct {
	Store        store.Stats
	StoreDown    bool      // the last call that asked the store failed
	CacheEntries int64     // sessions in the cache
	CacheMax     int64     // sessions that the cache may hold
	LoginsKept   int       // logins under way, and those that are replayed
	Heard        time.Time // the last sign of life of a shared store; zero for other stores
	Pending      int       // pending revocations

	// Contact is the state of the connection to the store; zero for a store without
	// one.
	Contact store.Contact
}

// Stats counts what there is. It may take seconds. With an error, which wraps
// ErrUnavailable, all but Stats.Store is nevertheless valid.
func (s *Service) Stats(ctx context.Context) (Stats, error) {
	c := s.cfg.Core
	counted, err := c.store.Stats(ctx)
	c.asked(reading, err)
	c.cache.resize(s.cfg.MaxSessions)
	st := s.Local()
	st.Store = counted
	return st, wrap("counting sessions", err)
}

// Local is Stats without what only the store knows.
func (s *Service) Local() Stats {
	c := s.cfg.Core
	limit := c.cache.entries.MaxCost()
	st := Stats{
		StoreDown:    c.outage.isDown(),
		CacheEntries: max(0, limit-c.cache.entries.RemainingCost()),
		CacheMax:     limit,
		LoginsKept:   c.logins.len(),
		Pending:      c.revocations.len(),
	}
	if c.shared != nil {
		st.Heard = c.shared.Heard()
	}
	if far, ok := c.store.(store.Contacted); ok {
		st.Contact = far.Contact()
	}
	return st
}

// Resize bounds the cache as this configuration says, and gives the memory of what no
// longer fits back. Until then the configuration that fills the cache decides.
func (s *Service) Resize() {
	c := s.cfg.Core
	c.cache.resize(s.cfg.MaxSessions)
	c.background(c.cache.trim)
}

// Ready returns an error that wraps ErrUnavailable unless the store is likely to take
// a login, and whether it has ever answered. It is cheap. It ends and begins outages,
// so that one without traffic is noticed.
func (s *Service) Ready(ctx context.Context) (answered bool, err error) {
	c := s.cfg.Core
	if err := c.uses.begin(); err != nil {
		return true, err
	}
	defer c.uses.done()
	err = c.ready(ctx)
	return c.answered.Load(), err
}

// StoreIdentity returns which records the store holds. It is the zero value when the
// store cannot tell.
func (s *Service) StoreIdentity(ctx context.Context) (store.Identity, error) {
	st, ok := s.cfg.Core.store.(store.Identified)
	if !ok {
		return store.Identity{}, nil
	}
	id, err := st.Identity(ctx)
	return id, wrap("asking for the identity of the store", err)
}

// Counts returns the size of a store that keeps count. It is not ok for others, and
// while the store does not answer.
func (s *Service) Counts(ctx context.Context) (st store.Stats, ok bool) {
	if _, ok := s.cfg.Core.store.(store.Counting); !ok {
		return st, false
	}
	st, err := s.cfg.Core.store.Stats(ctx)
	return st, err == nil
}

// KeysEvery is how often a gate that shares its store calls CheckMasterKeys.
const KeysEvery = time.Minute

// MasterKeys returns until when sessions need each master key. A time in the
// past means that no session needs it.
func (s *Service) MasterKeys(ctx context.Context) (map[keyring.ID]time.Time, error) {
	c := s.cfg.Core
	recorded, err := c.store.MasterKeys(ctx)
	if c.asked(reading, err) != nil {
		return nil, wrap("listing master keys", err)
	}
	needs := make(map[keyring.ID]time.Time, len(recorded))
	for id, until := range recorded {
		needs[keyring.ID(id)] = until
	}
	return needs, nil
}

// CheckMasterKeys returns an error when the key ring lacks a master key that
// live sessions need, since their users would be logged out. It only reads. A
// gate calls it before its first request; where gates share the store, it calls
// it from time to time, since another gate may sign with another key.
//
// The error wraps ErrKeyMissing and names the keys and the cures, or wraps
// ErrUnavailable.
func (s *Service) CheckMasterKeys(ctx context.Context) error {
	needs, err := s.MasterKeys(ctx)
	if err != nil {
		return wrap("checking key ring", err)
	}
	var missing []string
	for id, until := range needs {
		if until.After(time.Now()) && !s.cfg.Keys.Has(id) {
			at := until.UTC().Format(time.RFC3339)
			missing = append(missing, fmt.Sprintf("%s (needed until %s)", id, at))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("checking key ring: %w: %s; put it back behind the new one in seal_key; "+
		"to be rid of it at once, put it back and revoke all sessions; "+
		"if it is lost, move the session store away, which logs every user out",
		ErrKeyMissing, strings.Join(missing, ", "))
}

// Backup writes a consistent copy of the store to w and returns its size in
// bytes. The error is ErrNoBackup when the store has its own tools for that.
func (s *Service) Backup(ctx context.Context, w io.Writer) (int64, error) {
	b, ok := s.cfg.Core.store.(store.Backuper)
	if !ok {
		return 0, ErrNoBackup
	}
	n, err := b.Backup(ctx, w)
	return n, wrap("backing up sessions", err)
}
