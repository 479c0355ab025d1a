package bolt

import (
	"context"
	"slices"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// A user's record outlives the sessions, since it holds the unionid and the session_key; a user who has not come for half a year is forgotten, as a new one logs in. The epoch goes too: that of
// a record made anew starts at random, so no session of before holds again.
const (
	userKept  = 180 * 24 * time.Hour // since the last login
	userRound = 24 * time.Hour       // pause between two looks at all users
	userScan  = 1000                 // records looked at in one go
)

// userSweep is how far the look at all users has come. There is no index by last login: it would cost every login a page write, to find in time what has half a year of it.
type userSweep struct {
	from []byte    // the first key that was not looked at
	next time.Time // start of the next round
}

// sweepUsers looks at the next userScan users and removes those whose time has come.
func (s *Store) sweepUsers(ctx context.Context, u *userSweep, now time.Time) {
	if now.Before(u.next) {
		return
	}
	var stale [][16]byte
	var from []byte
	err := s.read(ctx, func(t *tables) error {
		stale, from = t.staleUsers(u.from, now)
		return nil
	})
	if err == nil && len(stale) > 0 {
		err = s.write(ctx, func(t *tables) error { return t.forget(stale, now) })
	}
	if err != nil {
		return // the next tick tries again
	}
	if u.from = from; from == nil {
		u.next = now.Add(userRound)
	}
}

// staleUsers returns up to sweepBatch of the users from a key on who are to be forgotten, and the key to go on from, or nil when all have been looked at.
func (t *tables) staleUsers(from []byte, now time.Time) (stale [][16]byte, next []byte) {
	c := t.bucket(user).Cursor()
	seen := 0
	for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
		if seen == userScan || len(stale) == sweepBatch {
			return stale, slices.Clone(k)
		}
		seen++
		if len(k) != 16 {
			t.damaged("user", k)
			continue
		}
		if u, ok := t.getUserByHash([16]byte(k)); ok && forgettable(u, now) {
			stale = append(stale, [16]byte(k))
		}
	}
	return stale, nil
}

func forgettable(u store.User, now time.Time) bool {
	return now.Sub(u.LastLogin) > userKept && !slices.ContainsFunc(u.Sessions, func(r store.SessionRef) bool { return r.Expires.After(now) })
}

// forget removes those of the users who have not logged in since they were found.
func (t *tables) forget(stale [][16]byte, now time.Time) error {
	for _, h := range stale {
		u, ok := t.getUserByHash(h)
		if !ok || !forgettable(u, now) {
			continue
		}
		if err := t.indexUnion(u.ID, u.UnionID, ""); err != nil {
			return err
		}
		if err := t.bucket(user).Delete(h[:]); err != nil {
			return err
		}
	}
	return nil
}
