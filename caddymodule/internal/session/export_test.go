package session

import "github.com/wxgate/wxgate/caddymodule/internal/store"

// What the black-box tests need to see of the inside.
type (
	Entry      = entry
	LossyCache = lossyCache
)

const (
	LookupTimeout = lookupTimeout
	TokenLen      = tokenLen
	Alphabet      = alphabet
)

func DigestOf(token string) store.Digest { return digestOf(token) }

// DigestKey is the 64 bits that the cache knows a session by.
func DigestKey(d store.Digest) uint64 { return digestKey(d) }

// WithDigest returns an entry that differs from e in nothing but the session that it claims to be.
func (e *entry) WithDigest(d store.Digest) *entry {
	c := &entry{digest: d, readAt: e.readAt, userKey: e.userKey, expires: e.expires, appID: e.appID, openID: e.openID, unionID: e.unionID}
	c.lastSeen.Store(e.lastSeen.Load())
	return c
}

// Mint returns a token as a login makes it, of a session that does not exist.
func (r *KeyRing) Mint() string { return r.mint() }

// Open is what the session_key of a user is read with.
func (r *KeyRing) Open(u store.UserID, s store.SealedKey) (string, error) { return r.open(u, s) }

// Seal is what a login does with a session_key.
func (r *KeyRing) Seal(u store.UserID, sessionKey string) store.SealedKey {
	return r.seal(u, sessionKey)
}

// Entries returns the cache below the marks.
func (c *Core) Entries() LossyCache { return c.cache.entries }

// SetEntries puts another cache below the marks and closes the one before.
func (c *Core) SetEntries(l LossyCache) {
	c.cache.entries.Close()
	c.cache.entries = l
}

// SettleCache returns when everything that was put into the cache can be found there.
func (c *Core) SettleCache() {
	if w, ok := c.cache.entries.(interface{ Wait() }); ok {
		w.Wait()
	}
}
