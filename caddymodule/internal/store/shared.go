package store

import (
	"context"
	"time"
)

// Shared is a Store that several gates use at the same time, each with a cache of its own.
//
// Opening one succeeds while its server is down: a gate that starts during an outage serves all that needs no store, and recovers by itself.
type Shared interface {
	Store

	// Watch makes the store report each change, whichever gate makes it, by which a Record that Lookup returned may have become wrong. It is called once, before any other method. report
	// is called until Close, from any goroutine, and returns at once.
	Watch(report func(Change))

	// Heard returns a time of this process's clock such that every change which was acknowledged, on whatever gate, before it has been reported here; the zero time when nothing was heard
	// yet. After a loss of contact it does not move on before ContactMade was reported. It only loads a word: it is asked by every check.
	Heard() time.Time

	// Spend takes one from the bucket of a key, which all gates share. When it is empty, nothing is taken and wait, which is then positive, is how long until it is not.
	Spend(ctx context.Context, key string, r Rate) (wait time.Duration, err error)
}

// Rate is a token bucket: Burst at once, and one more each Every.
type Rate struct {
	Every time.Duration
	Burst int
}

// Change is what a Shared store reports: an ended session, a user whose epoch or unionid has changed, or anything at all.
type Change struct {
	What   ChangeKind
	Digest Digest   // of SessionChanged
	User   [16]byte // of UserChanged: UserID.Hash
}

// ChangeKind tells what a Change is about.
type ChangeKind uint8

// The kinds of changes.
const (
	SessionChanged ChangeKind = iota + 1
	UserChanged
	AllChanged  // an epoch of a mini program or of everybody has moved on, or reports may have been lost
	ContactMade // likewise, since there was no contact; what was acknowledged just before may have been lost, too, with a server that crashed or was replaced
)
