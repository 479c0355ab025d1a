package limit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxBuckets is how many keys have a bucket of their own at a time, in each of two generations. A key that is forgotten starts with a full bucket.
const maxBuckets = 1 << 14

// generations stand in for a list by age: when the young one is full it becomes the old one, and whoever still comes is carried over.
type generations[K comparable] struct{ young, old map[K]*rate.Limiter }

// find returns the bucket of a key, or nil.
func (g *generations[K]) find(key K) *rate.Limiter {
	if b := g.young[key]; b != nil {
		return b
	}
	return g.old[key]
}

// get returns the bucket of a key, made full at a rate if there is none.
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

// Buckets is a token bucket for each key, all of one rate. It is safe for concurrent use, and its memory is bounded for any number of keys.
type Buckets[K comparable] struct {
	rate Rate
	mu   sync.Mutex
	kept generations[K]
}

// NewBuckets returns full buckets of a rate, which is not the zero Rate.
func NewBuckets[K comparable](r Rate) *Buckets[K] { return &Buckets[K]{rate: r} }

// Rate returns the rate of each bucket.
func (b *Buckets[K]) Rate() Rate { return b.rate }

// Take takes one from the bucket of a key or tells how long until there is one, at least a second.
func (b *Buckets[K]) Take(key K) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return take(b.kept.get(key, b.rate), time.Now())
}

// Look is Take that takes nothing.
func (b *Buckets[K]) Look(key K) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket, now := b.kept.find(key), time.Now()
	if bucket == nil || delay(bucket, now) <= 0 {
		return 0, true
	}
	return max(delay(bucket, now), time.Second), false
}

// Spend takes one from the bucket of a key, on credit if it is empty, so that what several calls find out at the same time is counted in full.
func (b *Buckets[K]) Spend(key K) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept.get(key, b.rate).ReserveN(time.Now(), 1)
}

// take takes one from a bucket or tells how long until there is one.
func take(b *rate.Limiter, now time.Time) (time.Duration, bool) {
	if b.AllowN(now, 1) {
		return 0, true
	}
	return max(delay(b, now), time.Second), false
}

// delay tells how long until a bucket holds one.
func delay(b *rate.Limiter, now time.Time) time.Duration {
	r := b.ReserveN(now, 1)
	defer r.CancelAt(now)
	return r.DelayFrom(now)
}
