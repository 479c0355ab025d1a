package store

import (
	"context"
	"time"
)

// Shared is a Store that several gates use at the same time, each with a cache of
// its own.
//
// A Shared opens while its server is down: a gate that starts during an outage
// serves all that needs no store, and recovers.
type Shared interface {
	Store

	// Watch makes the store report each change, of any gate, that may make a Record
	// wrong. The gate calls it once, before any other method. The store calls report
	// until Close, from any goroutine; report returns at once.
	Watch(report func(Change))

	// Heard returns a time of this process's clock. Every change that any gate had
	// acknowledged before has been reported here. It is the zero time at first. After
	// a loss of contact it moves on only when ContactMade was reported. Every check
	// calls it, so it only loads a word.
	Heard() time.Time

	// Spend takes one from the bucket of a key, which all gates share. An empty
	// bucket stays empty, and wait, which is positive then, is the time until it has
	// one again.
	Spend(ctx context.Context, key string, r Rate) (wait time.Duration, err error)
}

// Patient is a Store whose operator says how long a check waits for it.
type Patient interface {
	// Patience returns how long a check waits for Lookup, and how long Lookup may
	// take. The second is longer: the client's retry finds the answer in the cache.
	Patience() (check, lookup time.Duration)
}

// Rate is a token bucket: Burst at once, and one more each Every.
type Rate struct {
	Every time.Duration
	Burst int
}

// Change is a report of a Shared store.
type Change struct {
	What   ChangeKind
	Digest Digest   // of SessionChanged
	User   [16]byte // of UserChanged: UserID.Hash
}

// ChangeKind is the kind of a Change.
type ChangeKind uint8

// The kinds of changes.
const (
	SessionChanged ChangeKind = iota + 1 // a session has ended
	UserChanged                          // a user's epoch, unionid or telephone number
	AllChanged                           // an epoch of many users, or reports may be lost

	// ContactMade is AllChanged after a loss of contact. A server that crashed or
	// was replaced may have lost what it acknowledged just before, too.
	ContactMade
)
