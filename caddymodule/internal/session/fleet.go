package session

import (
	"context"
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
		c.cache.voidAll()
		c.revocations.repeatRecent()
	case store.RecordsReplaced:
		c.cache.voidAll()
		c.replaced.Inc()
	default:
		c.cache.voidAll()
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
