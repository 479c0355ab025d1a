package bolt

import (
	"context"
	"slices"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// sweepBatch bounds the expired sessions that one transaction removes, so that a
// login never waits long behind them (docs/stores.md#bbolt-settings).
const sweepBatch = 100

// A user's record outlives the sessions, since it holds the unionid and the
// session_key. The gate forgets a user half a year after the last login. A new
// record begins with a random epoch, so no session of before holds again.
const (
	userKept  = 180 * 24 * time.Hour // since the last login
	userRound = 24 * time.Hour       // pause between two rounds over all users
	userScan  = 1000                 // records read in one transaction
)

// acceptedAfter is when a configuration whose store is still open counts as accepted:
// a refused one gives its store back sooner.
const acceptedAfter = 10 * time.Second

// sweepLoop removes expired sessions and stale users until ctx ends. It searches
// in a read transaction, which costs nothing while there is nothing to remove.
func (s *Store) sweepLoop(ctx context.Context, every time.Duration) {
	defer close(s.swept)
	var users userSweep
	tick := time.NewTicker(every)
	defer tick.Stop()
	for opened := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.open.Load().old.Load() {
			if time.Since(opened) < acceptedAfter {
				continue
			}
			// An error is the outage that the committer tells.
			_ = s.write(ctx, func(*tables) error { return nil })
		}
		s.reportMissing(ctx)
		for s.sweepSome(ctx, time.Now()) {
		}
		s.sweepUsers(ctx, &users, time.Now())
	}
}

// sweepSome removes up to sweepBatch expired sessions and reports whether there
// may be more. After a failure, which the committer logs, the next tick retries.
func (s *Store) sweepSome(ctx context.Context, now time.Time) bool {
	var due [][]byte
	err := s.read(ctx, func(t *tables) error {
		due = t.due(now)
		return nil
	})
	if err != nil || len(due) == 0 {
		return false
	}
	err = s.write(ctx, func(t *tables) error { return t.sweep(due, now) })
	return err == nil && len(due) == sweepBatch
}

// due copies the first keys of exp that have expired, and all damaged ones among
// them.
func (t *tables) due(now time.Time) [][]byte {
	var keys [][]byte
	c := t.bucket(exp).Cursor()
	for k, _ := c.First(); k != nil && len(keys) < sweepBatch; k, _ = c.Next() {
		if at, _, ok := splitExpKey(k); ok && at.After(now) {
			break
		}
		keys = append(keys, slices.Clone(k))
	}
	return keys
}

// sweep removes rows of exp and their sessions. The session's own expiry counts:
// a later one gets a new row.
func (t *tables) sweep(keys [][]byte, now time.Time) error {
	for _, k := range keys {
		if err := t.bucket(exp).Delete(k); err != nil {
			return err
		}
		_, d, ok := splitExpKey(k)
		if !ok {
			t.damaged("expiry", k)
			continue
		}
		if err := t.expire(d, now); err != nil {
			return err
		}
	}
	return nil
}

func (t *tables) expire(d store.Digest, now time.Time) error {
	ses, ok := t.getSession(d)
	if ok && ses.Expires.After(now) {
		return t.bucket(exp).Put(expKey(ses.Expires, d), nil)
	}
	if ok {
		if err := t.unlist(ses.User, d, store.EndExpired, ses.Expires); err != nil {
			return err
		}
	}
	return t.remove(sess, d[:])
}

// userSweep is the progress of a round over all users. An index by last login
// would cost each login a page write.
type userSweep struct {
	from []byte    // the next key to read
	next time.Time // start of the next round
}

// sweepUsers reads the next userScan users and removes the stale ones. After a
// failure the next tick retries.
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
		err = s.write(ctx, func(t *tables) error { return t.removeStale(stale, now) })
	}
	if err != nil {
		return
	}
	if u.from = from; from == nil {
		u.next = now.Add(userRound)
	}
}

// staleUsers returns up to sweepBatch stale users from a key on, and the key to
// go on from; nil at the end.
func (t *tables) staleUsers(from []byte, now time.Time) (stale [][16]byte, next []byte) {
	c := t.bucket(user).Cursor()
	read := 0
	for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
		if read == userScan || len(stale) == sweepBatch {
			return stale, slices.Clone(k)
		}
		read++
		if u, ok := t.getUserByKey(k); ok && isStale(u, now) {
			stale = append(stale, [16]byte(k))
		}
	}
	return stale, nil
}

func isStale(u store.User, now time.Time) bool {
	lives := func(r store.SessionRef) bool { return r.Expires.After(now) }
	return now.Sub(u.LastLogin) > userKept && !slices.ContainsFunc(u.Sessions, lives)
}

// removeStale removes the users who have not logged in since the search.
func (t *tables) removeStale(stale [][16]byte, now time.Time) error {
	for _, h := range stale {
		u, ok := t.getUserByHash(h)
		if !ok || !isStale(u, now) {
			continue
		}
		if err := t.unindexUnion(u); err != nil {
			return err
		}
		if err := t.remove(user, h[:]); err != nil {
			return err
		}
	}
	return nil
}
