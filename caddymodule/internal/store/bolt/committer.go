package bolt

import (
	"context"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	maxBatch = 512  // operations in one commit
	queueLen = 1024 // operations that wait for the committer; more wait outside

	// retryEvery is the pause after a failed commit. After one, bbolt walks the
	// whole file to find the free pages, so operations are not tried one by one.
	retryEvery = time.Second

	// maxWait bounds the wait of a caller whose context has no deadline.
	maxWait = 10 * time.Second
)

// operation is one write that waits for its commit. An error of apply fails the
// whole batch, so apply must not fail for a reason of its own.
type operation struct {
	ctx   context.Context
	apply func(*tables) error
	done  chan error // buffered: the committer waits for no caller
	late  bool       // ctx ended before the commit; not applied
	ended []store.Ended
}

// write runs f in a transaction and returns its result when it is durable.
func write[T any](ctx context.Context, s *Store, f func(*tables) (T, error)) (T, error) {
	var res, none T
	err := s.write(ctx, func(t *tables) (err error) {
		res, err = f(t)
		return err
	})
	if err != nil {
		return none, err // the committer may still write to res
	}
	return res, nil
}

// write queues f and waits until it is durable.
func (s *Store) write(ctx context.Context, f func(*tables) error) error {
	const doing = "writing session store"
	if f := s.open.Load().fault.Load(); f != nil && f.kind == broken {
		return unavailable(doing, f.err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxWait, errSlow)
	defer cancel()
	o := &operation{ctx: ctx, apply: f, done: make(chan error, 1)}
	if ctx.Err() != nil {
		return unavailable(doing, context.Cause(ctx))
	}
	select {
	case s.queue <- o:
	case <-ctx.Done():
		return unavailable(doing, context.Cause(ctx))
	case <-s.stopped:
		return unavailable(doing, errClosed)
	}
	if err := s.await(o); err != nil {
		return unavailable(doing, err)
	}
	s.TellEnds(o.ended)
	return nil
}

// await returns the outcome of o. Close may have overtaken o on its way into the
// queue, so await asks once more when the committer has stopped.
func (s *Store) await(o *operation) error {
	select {
	case err := <-o.done:
		return err
	case <-o.ctx.Done():
		return context.Cause(o.ctx)
	case <-s.stopped:
		select {
		case err := <-o.done:
			return err
		default:
			return errClosed
		}
	}
}

// Touch implements store.Store.
func (s *Store) Touch(d store.Digest, until time.Time) { s.touches.Add(d, until) }

// commitLoop is the only writer. It ends after Close, when no work is left.
func (s *Store) commitLoop() {
	defer close(s.stopped)
	s.commit(nil) // makes the reserve
	timer := time.NewTimer(s.touchEvery)
	timer.Stop()
	batch := make([]*operation, 0, maxBatch)
	for {
		queue := s.queue
		switch f := s.open.Load().fault.Load(); {
		case f == nil, f.kind == broken:
		case f.kind == failed:
			queue = nil // all wait for the retry
			fallthrough
		default:
			timer.Reset(retryEvery)
		}
		select {
		case o := <-queue:
			batch = append(batch[:0], o)
		case <-timer.C:
			batch = batch[:0]
		case <-s.touches.Arrived():
			timer.Reset(s.touchEvery)
			continue
		case <-s.closing:
			s.drain(batch)
			return
		}
		s.commit(s.gather(batch))
		clear(batch[:cap(batch)])
	}
}

// gather adds the queue to the batch.
func (s *Store) gather(batch []*operation) []*operation {
	for len(batch) < maxBatch {
		select {
		case o := <-s.queue:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// drain commits all that is left, with at least one commit for the touches.
func (s *Store) drain(batch []*operation) {
	for {
		batch = s.gather(batch[:0])
		s.commit(batch)
		if len(batch) < maxBatch {
			return
		}
	}
}

// commit makes the batch and the touches durable and answers the callers.
func (s *Store) commit(batch []*operation) {
	s.writing.Lock()
	defer s.writing.Unlock()
	o := s.open.Load()
	f := o.fault.Load()
	used := s.touches.Take()
	start := time.Now()
	s.committing.Store(&start)
	err := s.attempt(o, f, batch, used)
	for _, op := range batch {
		if op.late {
			op.done <- context.Cause(op.ctx)
		} else {
			op.done <- err
		}
	}
	if err == nil && !o.old.Load() {
		s.keepReserve(o)
	}
	s.committing.Store(nil)
	s.tell()
}

// attempt makes one commit. After a failure it first tries whether the disk takes
// as much as the reserve: a small write may find room where the next login does
// not.
func (s *Store) attempt(
	o *opening, f *fault, batch []*operation, used map[store.Digest]time.Time,
) (err error) {
	switch {
	case f != nil && f.kind == broken:
		return f.err
	case f != nil && f.kind == failed:
		err = s.prove(o, f)
	}
	if err == nil {
		begun := time.Now()
		err = s.transact(o, batch, used)
		if s.observe != nil {
			s.observe(time.Since(begun))
		}
	}
	s.relapse(f, err)
	s.settle(o, err)
	if err != nil {
		// An outage must not bring the idle timeout of sessions in use.
		for d, until := range used {
			s.touches.Add(d, until)
		}
	}
	return err
}

// transact makes one commit. It fails while the file is not at its path, even if
// the write succeeds: the next start would not find it. So at most one commit is
// made to a file that is gone.
func (s *Store) transact(
	o *opening, batch []*operation, used map[store.Digest]time.Time,
) error {
	if len(batch) == 0 && len(used) == 0 {
		return nil
	}
	err := protect(func() error {
		if o.old.Load() {
			if err := o.bringUp(); err != nil {
				return err
			}
		}
		return o.update(func(tx *bolt.Tx) (rows, error) {
			t := s.tables(o, tx)
			err := t.apply(batch, used)
			return t.changed, err
		})
	})
	if err != nil {
		return err
	}
	return s.missing(o, s.named)
}

// apply makes the changes of one commit. It leaves out operations whose caller
// has stopped waiting.
func (t *tables) apply(batch []*operation, used map[store.Digest]time.Time) error {
	for _, o := range batch {
		if o.ctx.Err() != nil {
			o.late = true
			continue
		}
		t.ended = nil
		if err := o.apply(t); err != nil {
			return err
		}
		o.ended = t.ended
	}
	return t.touch(used)
}

// touch moves Session.UsedUntil on. The expiry of a session is absolute, so its
// row in exp stays.
func (t *tables) touch(used map[store.Digest]time.Time) error {
	for d, until := range used {
		ses, ok := t.getSession(d)
		if !ok || !until.After(ses.UsedUntil) {
			continue
		}
		ses.UsedUntil = until
		if err := t.putSession(d, ses); err != nil {
			return err
		}
	}
	return nil
}
