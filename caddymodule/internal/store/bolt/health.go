package bolt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// fault is why the store cannot be written to, or should not.
type fault struct {
	err  error
	kind faultKind
}

type faultKind uint8

const (
	low    faultKind = iota // commits succeed, but the disk has no room for the reserve
	failed                  // the last commit failed
	broken                  // only Reopen makes memory and file trustworthy again
)

func isBroken(err error) bool { return isPanic(err) || errors.Is(err, errOverwritten) }

// settle records the outcome of a transaction.
func (s *Store) settle(o *opening, err error) {
	switch {
	case err == nil:
		s.clear(o, failed)
	case isBroken(err):
		s.fail(o, broken, fmt.Errorf("%w: %w", errBroken, err))
	default:
		s.fail(o, failed, err)
	}
	s.tell()
}

// fail records a fault, unless there is a worse one.
func (s *Store) fail(o *opening, kind faultKind, err error) {
	f := &fault{err: err, kind: kind}
	for old := o.fault.Load(); old == nil || old.kind <= kind; old = o.fault.Load() {
		if o.fault.CompareAndSwap(old, f) {
			return
		}
	}
}

// clear ends a fault of the kind.
func (s *Store) clear(o *opening, kind faultKind) {
	if f := o.fault.Load(); f != nil && f.kind == kind {
		o.fault.CompareAndSwap(f, nil)
	}
}

// Health implements store.Store. It reports the outcome of the last commit, a
// stuck commit, and a missing file. After a failure the committer retries every
// second, so Health recovers without a login that fails first.
func (s *Store) Health(ctx context.Context) error {
	const doing = "checking session store"
	if ctx.Err() != nil {
		return unavailable(doing, context.Cause(ctx))
	}
	select {
	case <-s.closing:
		return unavailable(doing, errClosed)
	default:
	}
	if err := s.trouble(); err != nil {
		return unavailable(doing, err)
	}
	return nil
}

// trouble returns why a login should not be tried, or nil.
func (s *Store) trouble() error {
	o := s.open.Load()
	if f := o.fault.Load(); f != nil {
		return f.err
	}
	if err := s.missing(o, s.named); err != nil {
		return err
	}
	if start := s.committing.Load(); start != nil {
		if d := time.Since(*start); d > stallAfter {
			return fmt.Errorf("%w: a commit has been running for %s",
				errSlow, d.Round(time.Second))
		}
	}
	return nil
}

// steadyFor is how long a store has to work again before the log says so, when it
// had come back just before.
const steadyFor = 10 * time.Second

// told is what the log says of the store.
type told struct {
	down time.Time // begin of the outage; zero for none
	good time.Time // since when the store works again; zero while it does not
	back time.Time // end of the outage before
}

// tell logs the begin and the end of an outage, one line each. Outages that follow
// one another closely are one.
func (s *Store) tell() {
	s.telling.Lock()
	defer s.telling.Unlock()
	t, now, err := &s.told, time.Now(), s.trouble()
	switch {
	case err != nil && t.down.IsZero():
		*t = told{down: now, back: t.back}
		s.log.Error("session store is unavailable", zap.Error(err))
	case err != nil:
		t.good = time.Time{}
	case t.down.IsZero():
	default:
		if t.good.IsZero() {
			t.good = now
		}
		if t.down.Sub(t.back) < relapseWithin && now.Sub(t.good) < steadyFor {
			return
		}
		s.log.Info("session store is back", zap.Duration("down_for", t.good.Sub(t.down)))
		*t = told{back: now}
	}
}

// tellLoop notices a disk that hangs and a file that is gone, also while no request
// asks for the store.
func (s *Store) tellLoop(ctx context.Context, every time.Duration) {
	defer close(s.silent)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.tell()
		}
	}
}

// LogsOutages implements store.SelfReporting.
func (s *Store) LogsOutages() {}
