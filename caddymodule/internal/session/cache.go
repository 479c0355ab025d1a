package session

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// cacheTTL bounds the life of a cached entry, to return memory to idle gates.
// Revocation never waits for it.
const cacheTTL = 10 * time.Minute

// entry is a cached session: what a check needs and nothing secret. Only
// usedUntil changes after put.
type entry struct {
	digest    store.Digest
	readAt    uint64 // clock of marks when the read behind it began
	userKey   uint64
	created   int64 // Unix milliseconds, as all times here
	expires   int64
	appID     string
	ids       string       // openid, unionid and sealed phone number, in one piece to save memory
	usedUntil atomic.Int64 // as last sent to the store
	openLen   uint32       // where in ids the unionid begins
	unionEnd  uint32       // where in ids it ends
}

func (e *entry) user() User {
	return User{AppID: e.appID, OpenID: e.openID()}
}

func (e *entry) openID() string  { return e.ids[:e.openLen] }
func (e *entry) unionID() string { return e.ids[e.openLen:e.unionEnd] }
func (e *entry) phone() string   { return e.ids[e.unionEnd:] } // empty when none is kept

// newEntry shares the appid between all entries.
func newEntry(d store.Digest, rec store.Record, readAt uint64) *entry {
	s := rec.Session
	e := &entry{
		digest:   d,
		readAt:   readAt,
		userKey:  userKey(s.User),
		created:  s.Created.UnixMilli(),
		expires:  s.Expires.UnixMilli(),
		appID:    unique.Make(s.User.AppID).Value(),
		ids:      s.User.OpenID + rec.UnionID + string(rec.Phone),
		openLen:  uint32(len(s.User.OpenID)),
		unionEnd: uint32(len(s.User.OpenID) + len(rec.UnionID)),
	}
	e.usedUntil.Store(s.UsedUntil.UnixMilli())
	return e
}

// digestOf names the session of a well-formed token in the store and the cache.
func digestOf(token string) store.Digest {
	// On the stack: a cached check must not allocate (docs/design.md#p8).
	var buf [keyring.TokenLen]byte
	copy(buf[:], token)
	return sha256.Sum256(buf[:])
}

func digestKey(d store.Digest) uint64 { return binary.LittleEndian.Uint64(d[:8]) }

func userKey(u User) uint64 { return hashKey(u.Hash()) }

// hashKey is userKey of the user whose hash is h.
func hashKey(h [16]byte) uint64 { return binary.LittleEndian.Uint64(h[:8]) }

// lossyCache is the part of ristretto in use. It may forget, drop and delay
// what it gets.
type lossyCache interface {
	Get(key uint64) (*entry, bool)
	SetWithTTL(key uint64, e *entry, cost int64, ttl time.Duration) bool
	UpdateMaxCost(n int64)
	MaxCost() int64
	RemainingCost() int64
	IterValues(f func(e *entry) (stop bool))
	Del(key uint64)
	Close()
}

// cache makes ristretto safe. It compares the full digest on each hit, since
// ristretto does not check its uint64 keys for collisions
// (docs/threats.md#t17), and marks decide which entries are stale.
type cache struct {
	marks
	entries lossyCache
}

func newCache(maxSessions int64) (*cache, error) {
	c, err := ristretto.NewCache(&ristretto.Config[uint64, *entry]{
		// Twice the entries, not ten times as advised: counters only steer the
		// eviction of a full cache, and this one is sized never to be full. Ten
		// times costs 50 MB.
		NumCounters: 2 * maxSessions,
		MaxCost:     maxSessions,
		BufferItems: 64,
		// Otherwise every entry counts 56 times over
		// (docs/stores.md#ristretto-set).
		IgnoreInternalCost: true,
	})
	if err != nil {
		return nil, fmt.Errorf("making session cache: %w", err)
	}
	return &cache{entries: c}, nil
}

// resize bounds the number of entries, unless n is 0. Configurations share the
// cache, and the one that fills it decides.
func (c *cache) resize(n int64) {
	if n > 0 && c.entries.MaxCost() != n {
		c.entries.UpdateMaxCost(n)
	}
}

// trim removes entries until the cache keeps its bound: ristretto enforces a lower
// one only where it admits new entries.
func (c *cache) trim() {
	over := -c.entries.RemainingCost()
	if over <= 0 {
		return
	}
	keys := make([]uint64, 0, over)
	c.entries.IterValues(func(e *entry) bool {
		keys = append(keys, digestKey(e.digest))
		return int64(len(keys)) >= over
	})
	for _, k := range keys { // after the walk, which holds locks
		c.entries.Del(k)
	}
}

// get returns the entry of d unless it is stale or missing. It judges no time
// limit and does not allocate.
func (c *cache) get(d *store.Digest) *entry {
	e, ok := c.entries.Get(digestKey(*d))
	if !ok || e.digest != *d || !c.fresh(e) {
		return nil
	}
	return e
}

// getDoubted is get, with entries that are stale for doubtAll alone.
func (c *cache) getDoubted(d *store.Digest) *entry {
	e, ok := c.entries.Get(digestKey(*d))
	if !ok || e.digest != *d || !c.doubted(digestKey(e.digest), e.userKey, e.readAt) {
		return nil
	}
	return e
}

// fresh reports whether e was read after the last revocation or change that
// concerns it.
func (c *cache) fresh(e *entry) bool {
	return c.holds(digestKey(e.digest), e.userKey, e.readAt)
}

// put offers e to the cache until it expires or cacheTTL has passed.
func (c *cache) put(e *entry, now time.Time) {
	// Spread by a tenth, so that sessions made together do not all end in one
	// sweep (docs/stores.md#ristretto-ttl).
	ttl := cacheTTL - rand.N(cacheTTL/10)
	if left := time.UnixMilli(e.expires).Sub(now); left < ttl {
		ttl = left
	}
	if ttl > 0 {
		c.entries.SetWithTTL(digestKey(e.digest), e, 1, ttl)
	}
}

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
