package store

import (
	"encoding/hex"
	"time"
)

// MasterKeyID names a master key of a key ring. It tells nothing of the key.
type MasterKeyID [4]byte

// String returns the id in hex.
func (id MasterKeyID) String() string { return hex.EncodeToString(id[:]) }

// maxNeedAhead bounds how much longer than its last session a master key counts
// as needed.
const maxNeedAhead = time.Hour

// MasterKeyNeed returns until when l.MasterKey is needed, given the time on
// record. An engine records the result before the session lives. The time lies
// ahead of the session by a twentieth of its life, an hour at most, so that
// only a few logins change the record.
func (l Login) MasterKeyNeed(recorded time.Time) time.Time {
	if !recorded.Before(l.Expires) {
		return recorded
	}
	ahead := min(l.Expires.Sub(l.Created)/20, maxNeedAhead)
	return time.UnixMilli(l.Expires.Add(ahead).UnixMilli() + 1)
}
