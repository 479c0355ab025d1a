package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
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

// missing returns an error when path leads to another file than the open one,
// or to none: the next start would lose all that is written meanwhile. A path
// that this user may not read proves nothing.
func (s *Store) missing(o *opening, path string) error {
	now, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission), err == nil && os.SameFile(o.info, now):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return fmt.Errorf("%w: %s is another file", errGone, path)
}

// reportMissing makes the committer notice a missing file; it then retries
// until the file is back.
func (s *Store) reportMissing(ctx context.Context) {
	o := s.open.Load()
	if o.fault.Load() == nil && s.missing(o, s.named) != nil {
		_ = s.write(ctx, func(*tables) error { return nil }) // the committer logs the outcome
	}
}

// The file holds free pages whose room on the disk is its own, for the logins that
// are under way when the disk fills up. Health fails as soon as the disk has no
// room for more of them, before a code is spent (docs/stores.md#bbolt-full).
const (
	reserveBytes = 2 << 20
	reserveLow   = reserveBytes / 2 / 4096 // pages: below it, the reserve is made anew

	// relapseWithin is how soon after an outage the next one counts as the same.
	relapseWithin = time.Minute
	maxRelapses   = 5
)

// keepReserve makes the reserve when the file has few free pages. A copy under way
// keeps free pages from being used again, so it waits for its end.
func (s *Store) keepReserve(o *opening) {
	f := o.fault.Load()
	switch {
	case f == nil && o.freePages() >= reserveLow, f != nil && f.kind != low,
		f != nil && time.Since(s.reserveTried) < retryEvery, s.copying.Load():
		return
	}
	s.reserveTried = time.Now()
	err := s.room(f)
	if err == nil {
		err = s.makeReserve(o)
	}
	switch {
	case err == nil:
		s.clear(o, low)
	case isBroken(err):
		s.settle(o, err)
	case f == nil:
		s.fail(o, low, fmt.Errorf("%w: %w", errFull, err))
	}
}

// room returns the fault again while the disk has no room for the reserve. After
// each commit that fails, bbolt walks the whole file.
func (s *Store) room(f *fault) error {
	if f == nil || !errors.Is(f.err, syscall.ENOSPC) {
		return nil
	}
	if free, ok := freeRoom(filepath.Dir(s.path)); ok && free < reserveBytes {
		return f.err
	}
	return nil
}

// makeReserve writes a large row and removes it, which leaves its pages free.
func (s *Store) makeReserve(o *opening) error {
	put := func(tx *bolt.Tx) (rows, error) {
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], rand.Uint64())
		b := make([]byte, reserveBytes)
		_, _ = rand.NewChaCha8(seed).Read(b) // a file system may keep zeros without room
		return rows{}, tx.Bucket(bucketNames[meta]).Put(keyProbe, b)
	}
	remove := func(tx *bolt.Tx) (rows, error) {
		return rows{}, tx.Bucket(bucketNames[meta]).Delete(keyProbe)
	}
	return protect(func() error {
		if err := o.update(put); err != nil {
			return err
		}
		return o.update(remove)
	})
}

// prove returns nil when the disk works again. It takes a write as large as the
// reserve, and more commits each time that an outage follows another: a disk that
// fails now and then must not spend a code each time.
func (s *Store) prove(o *opening, f *fault) error {
	if err := s.missing(o, s.named); err != nil {
		return err
	}
	if err := s.room(f); err != nil {
		return err
	}
	err := s.makeReserve(o)
	for n := 1; err == nil && n < 1<<s.relapses; n++ {
		err = protect(func() error {
			return o.update(func(tx *bolt.Tx) (rows, error) {
				return rows{}, tx.Bucket(bucketNames[meta]).Put(keyProbe, []byte{byte(n)})
			})
		})
	}
	return err
}

// relapse counts outages that follow one another closely. f is the fault before.
func (s *Store) relapse(f *fault, err error) {
	switch {
	case err == nil && f != nil && f.kind == failed:
		s.recovered = time.Now()
	case err == nil, f != nil && f.kind == failed:
	case time.Since(s.recovered) < relapseWithin:
		s.relapses = min(s.relapses+1, maxRelapses)
	default:
		s.relapses = 0
	}
}
