package session_test

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// forgetful caches nothing, so that every check goes to the store.
type forgetful struct{}

func (forgetful) Get(uint64) (*session.Entry, bool)                            { return nil, false }
func (forgetful) SetWithTTL(uint64, *session.Entry, int64, time.Duration) bool { return false }
func (forgetful) UpdateMaxCost(int64)                                          {}
func (forgetful) MaxCost() int64                                               { return 0 }
func (forgetful) RemainingCost() int64                                         { return 0 }
func (forgetful) IterValues(func(*session.Entry) bool)                         {}
func (forgetful) Del(uint64)                                                   {}
func (forgetful) Close()                                                       {}

// steadyCache keeps for good what it gets. It has no ticker, unlike ristretto, which
// makes a bubble that lasts for days slow.
type steadyCache struct {
	forgetful
	entries sync.Map
}

func (c *steadyCache) SetWithTTL(key uint64, e *session.Entry, _ int64, _ time.Duration) bool {
	c.entries.Store(key, e)
	return true
}

func (c *steadyCache) Get(key uint64) (*session.Entry, bool) {
	e, ok := c.entries.Load(key)
	if !ok {
		return nil, false
	}
	return e.(*session.Entry), true
}

// steady gives a gate a steadyCache.
func (g *gate) steady() *gate {
	g.core.SetEntries(new(steadyCache))
	return g
}

// faultCache is a cache that does everything wrong: it drops and delays what it
// gets, applies it in another order, forgets, brings back old entries, ignores
// times to live, and mixes up keys.
type faultCache struct {
	forgetful
	mu      sync.Mutex
	rng     *rand.Rand
	now     map[uint64]*session.Entry
	waiting []put
	ever    map[uint64][]*session.Entry
	all     []*session.Entry
}

type put struct {
	key uint64
	e   *session.Entry
}

func newFaultCache(seed uint64) *faultCache {
	return &faultCache{
		rng:  rand.New(rand.NewPCG(seed, 0)),
		now:  make(map[uint64]*session.Entry),
		ever: make(map[uint64][]*session.Entry),
	}
}

func (c *faultCache) SetWithTTL(key uint64, e *session.Entry, _ int64, _ time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ever[key] = append(c.ever[key], e)
	c.all = append(c.all, e)
	switch c.rng.IntN(4) {
	case 0:
		return false
	case 1:
		c.waiting = append(c.waiting, put{key, e})
	default:
		c.now[key] = e
	}
	return true
}

func (c *faultCache) Get(key uint64) (*session.Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) > 0 && c.rng.IntN(3) == 0 {
		i := c.rng.IntN(len(c.waiting))
		p := c.waiting[i]
		c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
		c.now[p.key] = p.e
	}
	switch c.rng.IntN(10) {
	case 0:
		delete(c.now, key)
	case 1, 2, 3:
		if old := c.ever[key]; len(old) > 0 {
			c.now[key] = old[c.rng.IntN(len(old))]
		}
	case 4:
		if len(c.all) > 0 {
			return c.all[c.rng.IntN(len(c.all))], true
		}
	}
	e, ok := c.now[key]
	return e, ok
}

// drop forgets everything at once; late writes and old entries may still come
// back.
func (c *faultCache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.now)
}
