package store

import (
	"crypto/sha256"
	"slices"
	"time"
)

// Digest names a session: the SHA-256 of its token. The token itself is never stored (THREATS.md 16).
type Digest [sha256.Size]byte

// IsZero reports whether d names no session.
func (d Digest) IsZero() bool { return d == Digest{} }

// UserID names a user: an openid is only unique within its mini program.
type UserID struct{ AppID, OpenID string }

// Hash returns the fixed-size key of the user: the first 16 bytes of SHA-256(appid 0x00 openid).
func (u UserID) Hash() [16]byte {
	// Both parts together fit the stack buffer for every identifier seen in practice (WECHAT.md 2.2), which keeps the digest free of allocation.
	var buf [192]byte
	b := append(buf[:0], u.AppID...)
	b = append(b, 0)
	b = append(b, u.OpenID...)
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// Epochs are the generations that revocation moves on. They are compared for equality only and start at random values, so that a record made anew never matches old sessions.
type Epochs struct{ Global, App, User uint64 }

// MaxTouchInterval is the longest interval at which a gate notes that a session
// is in use, whatever its configuration.
const MaxTouchInterval = time.Hour

// Session is the server's side of one 3rd_session token. Times have millisecond
// precision at rest.
//
// A gate notes a use lazily: UsedUntil is the time of the last note plus the
// touch interval of the configuration that made it. The session may have been
// used at any time until then, and not after it. So each configuration can judge
// its idle timeout without knowing how often earlier ones noted.
type Session struct {
	User      UserID
	Created   time.Time
	UsedUntil time.Time
	Expires   time.Time // absolute
	Epochs    Epochs    // as they stood at the login
}

// SessionRef is a session as its user's record lists it.
type SessionRef struct {
	Digest  Digest
	Created time.Time
	Expires time.Time
}

// SealedKey is a session_key under the key ring: only package session can open it.
type SealedKey struct {
	Tag [8]byte // keyed digest of the session_key: tells whether two boxes hold the same key
	Box []byte  // AEAD envelope; nil when there is no key
}

// User is what is known of one user of one mini program. All sessions of the user share it.
type User struct {
	ID         UserID
	UnionID    string
	Epoch      uint64
	KeyVersion uint64    // number of times the session_key was seen to change
	Key        SealedKey // current
	PrevKey    SealedKey // the one before: data encrypted shortly before a login still opens with it (WECHAT.md 2.6)
	Phone      []byte    // telephone number as session has sealed it; nil when none is remembered
	LastLogin  time.Time
	Sessions   []SessionRef // oldest first; serves limits, listing and clean-up, never the judgement of a session
}

// Admit applies login l to the user and returns the digests of the sessions that MaxPerUser ends and of those found expired. It is the one place that decides who goes; engines call it
// inside their transaction.
func (u *User) Admit(l Login) (ended, expired []Digest) {
	u.ID = l.User
	if l.UnionID != "" {
		u.UnionID = l.UnionID
	}
	u.setKey(l.Key, l.OldTags)
	u.LastLogin = l.Created

	live := u.Sessions[:0:0]
	for _, s := range u.Sessions {
		if s.Expires.After(l.Created) {
			live = append(live, s)
		} else {
			expired = append(expired, s.Digest)
		}
	}
	live = append(live, SessionRef{Digest: l.Digest, Created: l.Created, Expires: l.Expires})
	if over := len(live) - l.MaxPerUser; l.MaxPerUser > 0 && over > 0 {
		for _, s := range live[:over] {
			ended = append(ended, s.Digest)
		}
		live = live[over:]
	}
	u.Sessions = live
	return ended, expired
}

// Amend applies an amendment to the user. Like Admit, it is called by engines inside their transaction.
func (u *User) Amend(a Amendment) Amended {
	res := Amended{UnionIDWas: u.UnionID}
	if a.UnionID != "" && a.UnionID != u.UnionID {
		u.UnionID, res.UnionIDChanged = a.UnionID, true
	}
	if a.Key.Box != nil && u.Key.Tag == a.KeyWas {
		u.setKey(a.Key, a.OldTags)
		res.KeySet = true
	}
	if a.Phone != nil {
		u.Phone = a.Phone
	}
	return res
}

// setKey makes k the current session_key. The same key seen again replaces only the tag and the envelope, so that an old sealing key fades out without a login losing its predecessor.
func (u *User) setKey(k SealedKey, oldTags [][8]byte) {
	same := u.Key.Box != nil && (u.Key.Tag == k.Tag || slices.Contains(oldTags, u.Key.Tag))
	if !same {
		if u.Key.Box != nil {
			u.PrevKey = u.Key
		}
		u.KeyVersion++
	}
	u.Key = k
}

// Drop takes the session with digest d off the user's list and reports whether it was there.
func (u *User) Drop(d Digest) bool {
	for i, s := range u.Sessions {
		if s.Digest == d {
			u.Sessions = append(u.Sessions[:i:i], u.Sessions[i+1:]...)
			return true
		}
	}
	return false
}
