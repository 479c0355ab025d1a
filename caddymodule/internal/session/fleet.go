package session

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Rate is a token bucket: Burst at once, and one more each Every.
type Rate = store.Rate

// Shared reports whether other gates may use the same store.
func (c *Core) Shared() bool { return c.shared != nil }

// changed takes a report of a shared store. The change is durable by then, so
// marking the cache is all that is left. The gate's own changes come back here
// and are marked twice.
func (c *Core) changed(ch store.Change) {
	switch ch.What {
	case store.SessionChanged:
		c.cache.void(digestKey(ch.Digest))
	case store.UserChanged:
		c.cache.void(hashKey(ch.User))
	case store.ContactMade:
		c.doubts.add(&c.cache.marks, c.shared.Heard())
		c.revocations.repeatRecent()
	case store.RecordsReplaced:
		c.cache.voidAll()
		c.replaced.Inc()
	default:
		c.cache.voidAll()
	}
}

// doubts are the last losses of contact. What was cached before one may be wrong
// after it, so a check asks the store. When that is gone again, the entry is still as
// good as it was during the loss: until maxStaleness after it. So a second outage soon
// after the first finds no empty cache.
type doubts struct {
	list atomic.Pointer[[]doubt] // oldest first; replaced, never changed
}

type doubt struct {
	before uint64    // concerns the entries that were read before this time of marks
	lost   time.Time // until then every change was reported
}

// maxDoubts bounds the losses of contact that a store which flaps leaves behind.
const maxDoubts = 8

// add notes that contact is made again. One goroutine at a time calls it.
func (ds *doubts) add(m *marks, lost time.Time) {
	var list []doubt
	if old := ds.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if len(list) == maxDoubts {
		raise(&m.gone, list[0].before) // first: what it concerns is not judged by the next
		list = list[1:]
	}
	list = append(list, doubt{m.doubtAll(), lost})
	ds.list.Store(&list)
}

// trusted returns the entry of a session that the store cannot be asked for, or nil.
func (c *Core) trusted(d *store.Digest, now time.Time, maxStaleness time.Duration) *entry {
	var list []doubt
	if all := c.doubts.list.Load(); all != nil { // before the marks, as add changes them in turn
		list = *all
	}
	e := c.cache.getDoubted(d)
	if e == nil {
		return nil
	}
	for _, one := range list {
		if e.readAt < one.before {
			if maxStaleness > 0 && now.Sub(one.lost) <= maxStaleness {
				return e
			}
			return nil
		}
	}
	if c.believes(now, maxStaleness) && c.cache.fresh(e) {
		return e // another check has just read it, and this one was late
	}
	return nil
}

// disproved ends what is still cached of a session that the store says is over: refused
// once, it does not come back with the next outage.
func (c *Core) disproved(d store.Digest) {
	if c.cache.getDoubted(&d) != nil {
		c.cache.void(digestKey(d))
	}
}

// believes reports whether cached sessions are valid at the time now. The
// caller takes that time before the call and reads the marks after it: by then
// each change that the store has reported is marked.
func (c *Core) believes(now time.Time, maxStaleness time.Duration) bool {
	return c.shared == nil || maxStaleness > 0 && now.Sub(c.shared.Heard()) <= maxStaleness
}

// spendTimeout is short, since a login spends before the gate reads its body.
const spendTimeout = lookupTimeout

// Spend takes one token from the bucket of a key that all gates share, and
// returns how long an empty bucket stays empty. The answer is 0 when the store
// does not answer, since the login is about to fail for that, and when no other
// gate shares the store.
func (c *Core) Spend(ctx context.Context, key string, r Rate) time.Duration {
	if c.shared == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, spendTimeout)
	defer cancel()
	wait, err := c.shared.Spend(ctx, key, r)
	if err != nil {
		return 0 // says nothing about an outage: a full disk still lets an empty bucket be read
	}
	return wait
}
