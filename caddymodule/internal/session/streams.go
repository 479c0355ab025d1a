package session

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// sweepEvery is how often the streams are looked at: within the second that P3 leaves
// after a revocation, and seldom enough to cost nothing.
const sweepEvery = 200 * time.Millisecond

// answerTime is what a request has to end by itself after its session has. An app may end
// the session of the request that it answers, as when a user closes the account.
const answerTime = 400 * time.Millisecond

// unheardEvery is how often the sessions of all streams are read from a store that does
// not report revocations any more.
const unheardEvery = 5 * time.Second

// maxRereads bounds the look-ups at a time of sessions with open streams, after a
// store was away and each of them may have ended.
const maxRereads = 64

// Stream is a request under a session that may go on for long: a WebSocket, an event
// stream, a download. OpenStream begins it and Done ends it; in between End is called
// once if the session ends (docs/design.md#p10). A Stream may be used again after Done.
type Stream struct {
	// End closes the connection of the request. It must not block, and not call Done.
	End func()

	service    *Service
	entry      *entry
	shard      *streamShard
	prev, next *Stream
	long       bool      // a sweep has seen it
	ending     time.Time // when its session was found to have ended
	over       bool      // End was called
}

// streams lists the open streams. A request costs two short locks and no allocation.
// No cause of an end has to find its streams: a sweep judges them all like requests, so
// that whatever refuses the next request of a session also closes its streams.
type streams struct {
	shards [64]streamShard
	start  sync.Once // of the sweeps
	long   atomic.Int64
	opened Gauge
	closed Counter
}

type streamShard struct {
	mu    sync.Mutex
	first *Stream
	_     [40]byte // a cache line of its own
}

// OpenStream is Authenticate for a request that may go on for long, and begins st when
// the token is valid. The caller must call Done then, before it reuses the connection.
func (s *Service) OpenStream(ctx context.Context, token string, st *Stream) (Identity, error) {
	e, err := s.authenticate(ctx, token)
	if err != nil {
		return Identity{}, err
	}
	all := &s.cfg.Core.streams
	all.start.Do(func() { s.cfg.Core.background(s.cfg.Core.sweep) })
	st.service, st.entry, st.long, st.ending, st.over = s, e, false, time.Time{}, false
	st.shard = all.shard(e)
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	st.prev, st.next = nil, st.shard.first
	if st.next != nil {
		st.next.prev = st
	}
	st.shard.first = st
	return s.identity(e), nil
}

// Done ends a stream that OpenStream has begun. End is not called any more.
func (st *Stream) Done() {
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	if st.prev != nil {
		st.prev.next = st.next
	} else {
		st.shard.first = st.next
	}
	if st.next != nil {
		st.next.prev = st.prev
	}
	if st.long {
		st.service.cfg.Core.streams.count(-1)
	}
	st.entry = nil
}

func (s *streams) count(n int64) {
	s.long.Add(n)
	s.opened.Add(n)
}

// sweep judges the streams until Close.
func (c *Core) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	unheard := time.Now()
	for {
		select {
		case <-c.closing.Done():
			return
		case <-tick.C:
		}
		// The order is that of Authenticate.
		pending, now := c.revocations.pending.Load(), time.Now()
		all := now.Sub(unheard) >= unheardEvery
		if all {
			unheard = now
		}
		var stale []staleEntry
		for i := range c.streams.shards {
			stale = c.streams.shards[i].sweep(c, pending, now, all, stale)
		}
		c.reread(stale)
	}
}

// sweep ends the streams whose session ended an answerTime ago, and adds to stale the
// entries that may have changed in the store; with all, also those that the store may
// have been silent about.
func (s *streamShard) sweep(
	c *Core, pending *pendingSet, now time.Time, all bool, stale []staleEntry,
) []staleEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := s.first; st != nil; st = st.next {
		if !st.long {
			st.long = true
			c.streams.count(1)
		}
		if st.over || !st.ending.IsZero() {
			if !st.over && now.Sub(st.ending) >= answerTime {
				st.end(c)
			}
			continue
		}
		service := st.service
		switch err := service.judge(st.entry, now, pending); {
		// The time of the last use does not decide: an open stream is a use.
		case err == ErrRevoked, c.clock(now).UnixMilli() >= st.entry.expires:
			st.ending = now
		case !c.cache.fresh(st.entry), all && !c.believes(now, service.cfg.MaxStaleness):
			stale = append(stale, staleEntry{st.entry, service})
		}
	}
	return stale
}

// staleEntry is what a stream knows of its session, to be read again by its service.
type staleEntry struct {
	*entry
	service *Service
}

// reread asks the store for sessions with open streams. It ends the streams of those
// that are gone; a store that does not answer ends none, since an outage logs nobody
// out, and is asked for one session only until it answers.
func (c *Core) reread(stale []staleEntry) {
	var reads sync.WaitGroup
	defer reads.Wait()
	slots := make(chan struct{}, maxRereads)
	for _, e := range stale {
		slots <- struct{}{}
		if c.outage.isDown() && len(slots) > 1 || c.closing.Err() != nil {
			return
		}
		reads.Go(func() {
			defer func() { <-slots }()
			read, err, _ := c.lookups.Do(string(e.digest[:]), func() (any, error) {
				return survive(c, func() (*entry, error) {
					return e.service.reread(c.closing, e.entry)
				})
			})
			switch {
			case err == nil:
				c.streams.replace(e.entry, read.(*entry))
			case errors.Is(err, ErrUnknown), errors.Is(err, ErrRevoked), errors.Is(err, ErrForeign):
				c.streams.endAll(e.entry)
			}
		})
	}
}

func (s *streams) shard(e *entry) *streamShard {
	return &s.shards[int(e.digest[8])%len(s.shards)] // the cache uses the first eight bytes
}

// replace gives the streams of a session what the store says now.
func (s *streams) replace(old, now *entry) {
	shard := s.shard(old)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for st := shard.first; st != nil; st = st.next {
		if st.entry == old {
			st.entry = now
		}
	}
}

// endAll lets the next sweeps end the streams of a session.
func (s *streams) endAll(e *entry) {
	shard := s.shard(e)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for st := shard.first; st != nil; st = st.next {
		if st.entry == e && st.ending.IsZero() {
			st.ending = time.Now()
		}
	}
}

// end closes a stream, with the lock of its shard held.
func (st *Stream) end(c *Core) {
	st.over = true
	c.streams.closed.Inc()
	st.End()
}
