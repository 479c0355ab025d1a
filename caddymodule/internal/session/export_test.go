package session

import (
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// What the black-box tests need to see of the inside.
type (
	Entry      = entry
	LossyCache = lossyCache
)

const (
	MaxPending    = maxPending
	ClosePatience = closePatience
)

// SetSilentUntil changes the time until when a gate believes records of sessions with
// old tokens, for one test.
func SetSilentUntil(t *testing.T, at time.Time) {
	was := silentUntil
	t.Cleanup(func() { silentUntil = was })
	silentUntil = at
}

func DigestOf(token string) store.Digest { return digestOf(token) }

// DigestKey is the 64 bits that the cache knows a session by.
func DigestKey(d store.Digest) uint64 { return digestKey(d) }

// WithDigest returns an entry that differs from e only in its digest.
func (e *entry) WithDigest(d store.Digest) *entry {
	c := &entry{
		digest: d, readAt: e.readAt, userKey: e.userKey, created: e.created, expires: e.expires,
		appID: e.appID, ids: e.ids, openLen: e.openLen, unionEnd: e.unionEnd,
	}
	c.usedUntil.Store(e.usedUntil.Load())
	return c
}

// Entries returns the cache below the marks.
func (c *Core) Entries() LossyCache { return c.cache.entries }

// SetEntries puts another cache below the marks and closes the one before.
func (c *Core) SetEntries(l LossyCache) {
	c.cache.entries.Close()
	c.cache.entries = l
}

// Streams returns how many requests of valid sessions have gone on for a while.
func (c *Core) Streams() int64 { return c.streams.long.Load() }

// SettleCache returns when everything that was put into the cache can be found
// there.
func (c *Core) SettleCache() {
	if w, ok := c.cache.entries.(interface{ Wait() }); ok {
		w.Wait()
	}
}
