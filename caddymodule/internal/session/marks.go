package session

import (
	"sync"
	"sync/atomic"
)

// marks decides whether a cached entry is stale. It replaces deletion, which
// ristretto can neither do synchronously nor order against a late Set
// (docs/stores.md#ristretto-order).
//
// There is one clock. A read of the store takes the time before it begins. A
// change moves the clock on after it is durable, and marks the session or the
// user with the new time. An entry holds only if its read began at or after the
// last mark that concerns it: so an entry that was read before a revocation
// never holds after it, whatever the order in which the cache applies its
// operations.
//
// Memory is bounded without a timer: a shard that is full drops its marks, and
// with them all entries of its own that were read before.
type marks struct {
	clock  atomic.Uint64
	floor  atomic.Uint64 // entries read before it are stale
	gone   atomic.Uint64 // so they are, and not even doubted; at most floor
	shards [markShards]markShard
}

const (
	markShards   = 64
	marksInShard = 1024
)

type markShard struct {
	mu    sync.RWMutex
	floor uint64
	at    map[uint64]uint64
	_     [24]byte // a cache line of its own
}

// now is the time that a read of the store takes before it begins.
func (m *marks) now() uint64 { return m.clock.Load() }

// void marks keys: entries that concern them and were read before are stale.
func (m *marks) void(keys ...uint64) {
	t := m.clock.Add(1)
	for _, k := range keys {
		m.shard(k).mark(k, t, &m.clock)
	}
}

// voidAll makes every entry stale that was read so far.
func (m *marks) voidAll() {
	t := m.doubtAll()
	raise(&m.gone, t)
}

// doubtAll does the same, except that doubted still finds the entries. It returns the
// time before which they were read.
func (m *marks) doubtAll() uint64 {
	t := m.clock.Add(1)
	raise(&m.floor, t)
	return t
}

func raise(v *atomic.Uint64, to uint64) {
	for {
		old := v.Load()
		if old >= to || v.CompareAndSwap(old, to) {
			return
		}
	}
}

// holds reports whether an entry about two keys, read at time t, is not stale.
func (m *marks) holds(a, b, t uint64) bool {
	return t >= m.floor.Load() && m.shard(a).holds(a, t) && m.shard(b).holds(b, t)
}

// doubted is holds, without what doubtAll has marked.
func (m *marks) doubted(a, b, t uint64) bool {
	return t >= m.gone.Load() && m.shard(a).holds(a, t) && m.shard(b).holds(b, t)
}

// shard uses the high bits, since ristretto uses the low ones. The keys are
// digests.
func (m *marks) shard(k uint64) *markShard { return &m.shards[k>>58%markShards] }

func (s *markShard) mark(k, t uint64, clock *atomic.Uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = make(map[uint64]uint64)
	}
	if len(s.at) >= marksInShard {
		// Not t: a mark dropped here may have a later time than the one being
		// set.
		s.floor = clock.Load()
		clear(s.at)
		return
	}
	s.at[k] = max(s.at[k], t)
}

func (s *markShard) holds(k, t uint64) bool {
	s.mu.RLock()
	ok := t >= s.floor && t >= s.at[k]
	s.mu.RUnlock()
	return ok
}
