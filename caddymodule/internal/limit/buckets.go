package limit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxBuckets is the number of buckets in each of two generations. An evicted
// key starts with a full bucket again.
const maxBuckets = 1 << 14

// generations evicts the buckets that are idle for longest: a full young
// generation becomes the old one, and a key that comes again moves to the young
// one.
type generations[K comparable] struct{ young, old map[K]*rate.Limiter }

// find returns the bucket of a key, or nil.
func (g *generations[K]) find(key K) *rate.Limiter {
	if b := g.young[key]; b != nil {
		return b
	}
	return g.old[key]
}

// get returns the bucket of a key, a new full one if there is none.
func (g *generations[K]) get(key K, r Rate) *rate.Limiter {
	if b := g.young[key]; b != nil {
		return b
	}
	b := g.old[key]
	if b == nil {
		b = rate.NewLimiter(r.limit(), r.Events)
	}
	if g.young == nil || len(g.young) >= maxBuckets {
		g.old, g.young = g.young, make(map[K]*rate.Limiter)
	}
	g.young[key] = b
	return b
}

// update replaces every bucket.
func (g *generations[K]) update(replace func(K, *rate.Limiter) *rate.Limiter) {
	for _, generation := range []map[K]*rate.Limiter{g.young, g.old} {
		for key, b := range generation {
			generation[key] = replace(key, b)
		}
	}
}

// Buckets is a token bucket for each key, all of one rate. It is safe for
// concurrent use. Its memory has a bound for any number of keys.
type Buckets[K comparable] struct {
	rate Rate
	mu   sync.Mutex
	kept generations[K]
}

// NewBuckets returns full buckets of a rate other than the zero Rate.
func NewBuckets[K comparable](r Rate) *Buckets[K] { return &Buckets[K]{rate: r} }

// Rate returns the rate of each bucket.
func (b *Buckets[K]) Rate() Rate { return b.rate }

// Take takes one event from the bucket of a key. If the bucket is empty, the
// caller should wait, at least a second.
func (b *Buckets[K]) Take(key K) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return take(b.kept.get(key, b.rate), time.Now())
}

// Give returns an event that Take took, to a bucket that is not full.
func (b *Buckets[K]) Give(key K) {
	b.mu.Lock()
	defer b.mu.Unlock()
	give(b.kept.get(key, b.rate), time.Now())
}

// give returns one event to a bucket. A bucket caps itself when it is next read.
func give(b *rate.Limiter, now time.Time) { b.ReserveN(now, -1) }

// take takes one event from a bucket or returns the wait for it.
func take(b *rate.Limiter, now time.Time) (time.Duration, bool) {
	if b.AllowN(now, 1) {
		return 0, true
	}
	return max(delay(b, now), time.Second), false
}

// delay returns the wait until a bucket holds an event.
func delay(b *rate.Limiter, now time.Time) time.Duration {
	r := b.ReserveN(now, 1)
	defer r.CancelAt(now)
	return r.DelayFrom(now)
}
