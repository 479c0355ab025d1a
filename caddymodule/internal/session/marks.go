package session

import (
	"sync"
	"sync/atomic"
)

// marks decides whether a cached entry may still be believed. It replaces deletion, which ristretto can neither do synchronously nor order against a late Set (STORE.md 1.2).
//
// There is one clock. A read of the store notes the clock before it begins; an invalidation moves the clock on after its change is durable and marks the session or the user with the new
// time. An entry holds only if its read began at or after the last mark that concerns it: whatever order cache operations take effect in, an entry read before a revocation is never
// believed after it.
//
// Memory is bounded without a timer: a shard that is full forgets its marks and instead stops believing everything of its own that was read before.
type marks struct {
	clock  atomic.Uint64
	floor  atomic.Uint64 // entries read before it are void: everybody's revocation
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

// now is noted by a read of the store before it begins.
func (m *marks) now() uint64 { return m.clock.Load() }

// void marks the given keys: entries that concern them and were read before are not believed any more.
func (m *marks) void(keys ...uint64) {
	t := m.clock.Add(1)
	for _, k := range keys {
		m.shard(k).mark(k, t, &m.clock)
	}
}

// voidAll stops believing every entry read so far.
func (m *marks) voidAll() {
	t := m.clock.Add(1)
	for {
		old := m.floor.Load()
		if old >= t || m.floor.CompareAndSwap(old, t) {
			return
		}
	}
}

// holds reports whether an entry about the two keys, read at time t, may be believed.
func (m *marks) holds(a, b, t uint64) bool {
	return t >= m.floor.Load() && m.shard(a).holds(a, t) && m.shard(b).holds(b, t)
}

// shard takes the high bits: the keys are digests, and the cache in front uses the low ones.
func (m *marks) shard(k uint64) *markShard { return &m.shards[k>>58%markShards] }

func (s *markShard) mark(k, t uint64, clock *atomic.Uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = make(map[uint64]uint64)
	}
	if len(s.at) >= marksInShard {
		// Not t: a mark forgotten here may bear a later time than the one being set.
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
