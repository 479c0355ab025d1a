package bolt

import (
	"context"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// sweepBatch bounds the expired sessions that one transaction removes, so that a login never waits long behind them (STORE.md 2.4).
const sweepBatch = 100

// sweepLoop removes expired sessions, and users who are long gone, until ctx ends. It looks with a read transaction, which costs nothing while there is nothing to do, and removes through the committer's queue.
func (s *Store) sweepLoop(ctx context.Context, every time.Duration) {
	defer close(s.swept)
	var users userSweep
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.watch(ctx)
		for s.sweepSome(ctx, time.Now()) {
		}
		s.sweepUsers(ctx, &users, time.Now())
	}
}

// sweepSome removes up to sweepBatch sessions that have expired by now and reports whether there may be more.
func (s *Store) sweepSome(ctx context.Context, now time.Time) bool {
	var due [][]byte
	err := s.read(ctx, func(t *tables) error {
		due = t.due(now)
		return nil
	})
	if err != nil || len(due) == 0 {
		return false
	}
	// A failure has been logged by the committer; the next tick tries again.
	err = s.write(ctx, func(t *tables) error { return t.sweep(due, now) })
	return err == nil && len(due) == sweepBatch
}

// due returns copies of the first keys of exp whose time has come, and of any that are not ours.
func (t *tables) due(now time.Time) [][]byte {
	var keys [][]byte
	c := t.bucket(exp).Cursor()
	for k, _ := c.First(); k != nil && len(keys) < sweepBatch; k, _ = c.Next() {
		if at, _, ok := splitExpKey(k); ok && at.After(now) {
			break
		}
		keys = append(keys, append([]byte(nil), k...))
	}
	return keys
}

// sweep removes the sessions that the given rows of exp stand for. What the session's own row says counts: one with a later expiry is entered anew.
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
		if err := t.unlist(ses.User, d); err != nil {
			return err
		}
	}
	return t.bucket(sess).Delete(d[:])
}
