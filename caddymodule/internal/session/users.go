package session

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// What an operator, or a user by way of one, may see and end. A session goes by the beginning of its digest: enough to find it, no use as a credential.

// The states of a session.
const (
	StateLive    = "live"
	StateIdle    = "idle"    // not used for longer than the idle limit
	StateExpired = "expired" // at the end of its absolute life
	StateRevoked = "revoked" // ended by a revocation, or ended just now
)

// SessionInfo is what may be shown of one session.
type SessionInfo struct {
	ID       string // the first 16 hex digits of the digest
	Created  time.Time
	LastSeen time.Time // noted once an hour, or more often for the sake of an idle timeout
	Expires  time.Time
	State    string
}

// UserInfo is what may be shown of one user.
type UserInfo struct {
	AppID, OpenID string
	UnionID       string // empty when not known
	LastLogin     time.Time
	Sessions      []SessionInfo // oldest first
}

const (
	sessionIDLen    = 16
	minSessionIDLen = 8
)

// User returns what is known of a user. The error wraps store.ErrNotFound when nothing is, and ErrUnavailable when that could not be found out.
func (s *Service) User(ctx context.Context, id store.UserID) (UserInfo, error) {
	u, err := s.user(ctx, id)
	if err != nil {
		return UserInfo{}, wrap("reading user", err)
	}
	info := UserInfo{AppID: u.ID.AppID, OpenID: u.ID.OpenID, UnionID: u.UnionID, LastLogin: u.LastLogin}
	for _, ref := range u.Sessions {
		i, err := s.info(ctx, ref)
		if err != nil {
			return UserInfo{}, wrap("reading user", err)
		}
		info.Sessions = append(info.Sessions, i)
	}
	return info, nil
}

func (s *Service) user(ctx context.Context, id store.UserID) (store.User, error) {
	c := s.cfg.Core
	u, err := c.store.User(ctx, id)
	return u, c.asked(reading, err)
}

// info judges a session as a check would.
func (s *Service) info(ctx context.Context, ref store.SessionRef) (SessionInfo, error) {
	i := SessionInfo{ID: sessionID(ref.Digest), Created: ref.Created, LastSeen: ref.Created, Expires: ref.Expires}
	c := s.cfg.Core
	pending := c.revocations.pending.Load()
	rec, err := c.store.Lookup(ctx, ref.Digest)
	now := time.Now().UnixMilli()
	switch c.asked(reading, err); {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return i, err
	case err == nil:
		i.LastSeen = s.lastSeen(rec.Session, now)
	}
	switch {
	case now >= ref.Expires.UnixMilli():
		i.State = StateExpired
	case err != nil, rec.Session.Epochs != rec.Current, pending.covers(ref.Digest, rec.Session.User, rec.UnionID, rec.Session.Created.UnixMilli()):
		i.State = StateRevoked
	case s.idle(rec.Session.UsedUntil.UnixMilli(), now):
		i.State = StateIdle
	default:
		i.State = StateLive
	}
	return i, nil
}

// lastSeen returns when the session was last noted. A configuration with a longer
// touch interval may have noted it: then the time is too late, but not ahead.
func (s *Service) lastSeen(ses store.Session, now int64) time.Time {
	noted := min(ses.UsedUntil.UnixMilli()-s.touchEvery, now)
	return time.UnixMilli(max(noted, ses.Created.UnixMilli()))
}

// UsersByUnionID returns what is known of everybody with that unionid, in all mini programs. Nobody is not an error.
func (s *Service) UsersByUnionID(ctx context.Context, unionID string) ([]UserInfo, error) {
	ids, err := s.byUnionID(ctx, unionID)
	if err != nil {
		return nil, wrap("finding users", err)
	}
	var users []UserInfo
	for _, id := range ids {
		u, err := s.User(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			continue // gone in the meantime
		}
		if err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, nil
}

func (s *Service) byUnionID(ctx context.Context, unionID string) ([]store.UserID, error) {
	c := s.cfg.Core
	ids, err := c.store.ByUnionID(ctx, unionID)
	return ids, c.asked(reading, err)
}

// EndByID ends the one session of a user whose ID begins with sessionID, of which at least 8 hex digits must be given. The error wraps ErrUnknown when there is no such session or more
// than one. Without a store it is not known which one is meant: then it is not tried again by itself.
func (s *Service) EndByID(ctx context.Context, id store.UserID, sessionID string) error {
	u, err := s.user(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return wrap("ending session", err)
	}
	var found []store.Digest
	prefix := strings.ToLower(sessionID)
	for _, ref := range u.Sessions {
		if strings.HasPrefix(hex.EncodeToString(ref.Digest[:]), prefix) {
			found = append(found, ref.Digest)
		}
	}
	switch {
	case len(prefix) < minSessionIDLen:
		return fmt.Errorf("%w: at least %d digits of its id are needed", ErrUnknown, minSessionIDLen)
	case len(found) == 0:
		return ErrUnknown
	case len(found) > 1:
		return fmt.Errorf("%w: %d sessions have an id that begins so", ErrUnknown, len(found))
	}
	return s.end(ctx, found[0])
}

// RevokeUnionID ends every session of everybody with that unionid, in all mini programs, and returns how many users that were. When one fails the others are revoked all the same; a call
// that returned an error should be repeated.
func (s *Service) RevokeUnionID(ctx context.Context, unionID string) (users int, err error) {
	return s.everybodyWith(ctx, unionID, "revoking unionid", s.RevokeUser)
}

// ForgetUnionID is Forget for everybody with that unionid, in all mini programs; the rest is as with RevokeUnionID.
func (s *Service) ForgetUnionID(ctx context.Context, unionID string) (users int, err error) {
	return s.everybodyWith(ctx, unionID, "forgetting unionid", s.Forget)
}

// everybodyWith ends the sessions of everybody with a unionid by a call for each of them.
func (s *Service) everybodyWith(ctx context.Context, unionID, doing string, end func(context.Context, store.UserID) error) (users int, err error) {
	all := revocation{kind: ofUnionID, unionID: unionID}
	ids, err := s.byUnionID(ctx, unionID)
	if err != nil {
		s.cfg.Core.revocations.record(all, err)
		return 0, wrap(doing, err)
	}
	var failed error
	for _, id := range ids {
		if err := end(ctx, id); err != nil {
			failed = err
			continue
		}
		users++
	}
	if failed == nil {
		s.cfg.Core.revocations.settle(all)
	}
	return users, failed
}
