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

// Contacted is a Store at the other end of a connection.
type Contacted interface {
	// Contact returns the state of the connection. It asks nothing.
	Contact() Contact
}

// Contact is the state of the connection to a store.
type Contact struct {
	Up          bool      // takes logins
	Since       time.Time // it is so
	LastSuccess time.Time
	LastError   error     // without a secret; nil when there was none
	LastErrorAt time.Time // zero when there was none

	// ClockAhead is how far the clock of this machine is ahead of the server's.
	ClockAhead time.Duration
}

// Clocked is a Store whose server has a clock that all gates share.
type Clocked interface {
	// Clock returns the last reading of it; nil before the first. Every check calls
	// it, so it only loads a word.
	Clock() *Clock
}

// Clock is one reading of a server's clock.
type Clock struct{ Server, Local time.Time }

// maxClockError is how far apart two clocks count as equal: a reading is not more
// exact than the network.
const maxClockError = time.Second

// At returns the server's time at a time of this process, which may be wrong about
// the time of day. It returns now itself while the two clocks count as equal.
func (c *Clock) At(now time.Time) time.Time {
	if c == nil {
		return now
	}
	server := c.Server.Add(now.Sub(c.Local)) // by the monotonic clock
	if ahead := now.Round(0).Sub(server); ahead.Abs() <= maxClockError {
		return now
	}
	return server
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

	// RecordsReplaced is AllChanged after which the sessions of before are gone: the
	// store was emptied, or another one is in its place.
	RecordsReplaced
)
