package store

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Digest names a session: the SHA-256 of its token. No store has the token
// (docs/threats.md#t16).
type Digest [sha256.Size]byte

// IsZero reports whether d names no session.
func (d Digest) IsZero() bool { return d == Digest{} }

// MasterKeyID names a master key and tells nothing of it.
type MasterKeyID [4]byte

// String returns the id in hex.
func (id MasterKeyID) String() string { return hex.EncodeToString(id[:]) }

// UserID names a user: an openid is unique within its mini program only.
type UserID struct{ AppID, OpenID string }

// Hash returns the first 16 bytes of SHA-256(appid 0x00 openid).
func (u UserID) Hash() [16]byte {
	// The buffer has room for real identifiers, and keeps them off the heap.
	var buf [192]byte
	b := append(buf[:0], u.AppID...)
	b = append(b, 0)
	b = append(b, u.OpenID...)
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// Epochs are numbers that revocations change. They start at random, so that a new
// record never matches old sessions; a session holds while its own are equal.
type Epochs struct{ Global, App, User uint64 }

// MaxTouchInterval is the longest interval at which a gate notes that a session
// is in use, whatever its configuration.
const MaxTouchInterval = time.Hour

// Session is the server's side of one 3rd_session token. Times have millisecond
// precision at rest.
//
// A gate notes a use lazily: UsedUntil is the time of the last note plus the
// touch interval of the configuration that made it. The session may have been
// used at any time until then, and not after it. So each configuration judges
// its idle timeout without knowing how often earlier ones noted.
type Session struct {
	User      UserID
	Created   time.Time
	UsedUntil time.Time
	Expires   time.Time // absolute
	Epochs    Epochs    // at the login
}

// SessionRef is an entry of a user's list of sessions.
type SessionRef struct {
	Digest  Digest
	Created time.Time
	Expires time.Time
}

// Proof of a user's unionid is made and checked by package session. The zero Proof
// stands for none: a gate of before has written the unionid, or not a gate.
type Proof [16]byte

// SealedKey is a session_key that only package session can open.
type SealedKey struct {
	Tag [8]byte // keyed digest: equal for equal session_keys under one master key
	Box []byte  // AEAD envelope; nil for no key
}
