package bolt

import (
	"context"
	"encoding/binary"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	maxBatch = 512  // operations in one commit
	queueLen = 1024 // operations waiting for the next ones; more wait outside, as long as their contexts let them

	// retryEvery is the pause after a failed commit. A failed one makes bbolt walk the whole file to find the free pages again, so operations are not tried one by one.
	retryEvery = time.Second

	// maxWait bounds the wait of a caller whose context has no deadline.
	maxWait = 10 * time.Second
)

// operation is one write waiting for its commit. apply must not fail for a reason of its own: an error fails all operations of the batch.
type operation struct {
	ctx   context.Context
	apply func(*tables) error
	done  chan error // buffered: the committer waits for nobody
	late  bool       // ctx ended before the commit; not applied
}

// write queues f and waits until it is durable.
func (s *Store) write(ctx context.Context, f func(*tables) error) error {
	const doing = "writing session store"
	if f := s.fault.Load(); f != nil && f.final {
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
	err := s.await(o)
	if err != nil {
		return unavailable(doing, err)
	}
	return nil
}

// await returns the outcome of o. Close may have overtaken it on its way into the queue, so its outcome is asked for once more when the committer has stopped.
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

// commitLoop is the only writer. It ends when Close was called and nothing is left to do.
func (s *Store) commitLoop() {
	defer close(s.stopped)
	timer := time.NewTimer(s.touchEvery)
	timer.Stop()
	batch := make([]*operation, 0, maxBatch)
	for {
		queue := s.queue
		if f := s.fault.Load(); f != nil && !f.final {
			queue = nil // all wait for the next try
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

// gather adds what is queued to the batch.
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

// drain commits everything that is left, with at least one commit for the touches.
func (s *Store) drain(batch []*operation) {
	for {
		batch = s.gather(batch[:0])
		s.commit(batch)
		if len(batch) < maxBatch {
			return
		}
	}
}

// commit makes the batch durable, with the touches that have come in, and tells those who wait.
func (s *Store) commit(batch []*operation) {
	seen := s.touches.Take()
	f := s.fault.Load()
	if len(batch) == 0 && len(seen) == 0 && f == nil {
		return
	}
	var err error
	if f != nil && f.final {
		err = f.err
	} else {
		start := time.Now()
		s.committing.Store(&start)
		err = s.transact(batch, seen, f != nil)
		s.committing.Store(nil)
		s.settle(err)
		if err != nil {
			// The sessions were in use all the same: forgotten, their idle limit would come during the outage and log them out.
			for d, t := range seen {
				s.touches.Add(d, t)
			}
		}
	}
	for _, o := range batch {
		if o.late {
			o.done <- context.Cause(o.ctx)
		} else {
			o.done <- err
		}
	}
}

// transact makes the changes of one commit durable. While the file is not at its path, nothing is kept, however well it is written: those who wait are told so, and what they ask for is done at most
// by the commit that finds out.
func (s *Store) transact(batch []*operation, seen map[store.Digest]time.Time, probe bool) error {
	if probe {
		if err := s.missing(s.named); err != nil {
			return err
		}
	}
	err := protect(func() error {
		return s.db.Update(func(tx *bolt.Tx) error { return s.tables(tx).apply(batch, seen, probe) })
	})
	if err != nil {
		return err
	}
	return s.missing(s.named)
}

// apply makes the changes of one commit. An operation whose caller has stopped waiting is left out.
func (t *tables) apply(batch []*operation, seen map[store.Digest]time.Time, probe bool) error {
	for _, o := range batch {
		if o.ctx.Err() != nil {
			o.late = true
			continue
		}
		if err := o.apply(t); err != nil {
			return err
		}
	}
	if probe {
		if err := t.probe(); err != nil {
			return err
		}
	}
	return t.touch(seen)
}

// probe writes something, since a transaction that changes nothing needs no room on the disk and proves nothing.
func (t *tables) probe() error {
	return t.bucket(meta).Put(keyProbe, binary.LittleEndian.AppendUint64(nil, uint64(time.Now().UnixMilli())))
}
