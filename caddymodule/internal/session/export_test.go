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
	MaxPending    = maxPending
)

func DigestOf(token string) store.Digest { return digestOf(token) }

// DigestKey is the 64 bits that the cache knows a session by.
func DigestKey(d store.Digest) uint64 { return digestKey(d) }

// WithDigest returns an entry that differs from e in nothing but the session that it claims to be.
func (e *entry) WithDigest(d store.Digest) *entry {
	c := &entry{digest: d, readAt: e.readAt, userKey: e.userKey, created: e.created, expires: e.expires, appID: e.appID, ids: e.ids, openLen: e.openLen, unionEnd: e.unionEnd}
	c.lastSeen.Store(e.lastSeen.Load())
	return c
}

// Mint returns a token as a login makes it, of a session that does not exist.
func (r *KeyRing) Mint() string { return r.mint() }

// KeyIDOf returns what the ring's first key is recorded as.
func KeyIDOf(r *KeyRing) store.KeyID { return r.keys[0].id }

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

// SealPhone is what Phone does with a number that is remembered.
func (r *KeyRing) SealPhone(u store.UserID, number string) []byte { return r.sealPhone(u, number) }

// OpenPhone is what a remembered number is read with.
func (r *KeyRing) OpenPhone(u store.UserID, box []byte) (string, error) { return r.openPhone(u, box) }

// SettleNoting returns when the store has been told how often uses are noted, unless that has to wait.
func (c *Core) SettleNoting() {
	n := &c.noting
	n.mu.Lock()
	want, _ := n.due()
	telling, waits := n.telling, !n.known || n.said.Every > 0 && want.Every > n.said.Every
	n.mu.Unlock()
	if telling != nil && !waits {
		<-telling
	}
}
