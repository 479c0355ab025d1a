// Package store defines the authoritative record of sessions and users: the
// contract of every engine (Store), the facts it keeps (Session, User) and their
// bytes at rest.
//
// A store records and reports. Package session judges whether a session still
// holds, once for all engines. A store sees neither tokens nor session_keys in
// the clear: it knows a session by the digest of its token, and sealed keys.
package store

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrNotFound means that the store has answered and holds no such record.
var ErrNotFound = errors.New("no such record")

// ErrUnavailable means that the store could not be asked, or could not make a
// change durable. It says nothing about any session.
var ErrUnavailable = errors.New("session store unavailable")

// ErrDamaged means that the bytes of a record were changed at rest.
var ErrDamaged = errors.New("damaged record")

// Store is the authoritative record of sessions and users. It is safe for
// concurrent use. Every engine passes the suite in package storetest.
//
// A method that cannot reach or trust its medium returns an error that wraps
// ErrUnavailable. It returns ErrNotFound only when the store has answered. The
// first must log out no user, the second does (docs/threats.md#t23). After
// ErrUnavailable the change may have been made.
type Store interface {
	// Login applies l in one atomic step and returns when it is durable (P2).
	Login(ctx context.Context, l Login) (LoginResult, error)

	// Lookup returns the session with digest d. The error is ErrNotFound when the
	// session, its user or one of its epochs is missing.
	Lookup(ctx context.Context, d Digest) (Record, error)

	// User returns the record of a user, or ErrNotFound.
	User(ctx context.Context, id UserID) (User, error)

	// Amend adds facts of a user that come to light after the login, in one atomic
	// and durable step. The error is ErrNotFound for an unknown user.
	Amend(ctx context.Context, id UserID, a Amendment) (Amended, error)

	// End removes one session durably, if it is there.
	End(ctx context.Context, d Digest, why Reason) error

	// RevokeUser ends every session of a user, if there is one, by a new epoch.
	RevokeUser(ctx context.Context, id UserID, why Reason) error

	// RevokeApp ends every session of a mini program by a new epoch.
	RevokeApp(ctx context.Context, appID string) error

	// RevokeAll ends every session by a new global epoch.
	RevokeAll(ctx context.Context) error

	// Forget removes the record of a user, if there is one, and ends every session
	// with it. What names no user by itself, such as a digest in an index, may stay
	// until it expires. Copies of the store stay as they are.
	Forget(ctx context.Context, id UserID, why Reason) error

	// ByUnionID returns the users of all mini programs with that unionid, in any
	// order. No user has the empty one.
	ByUnionID(ctx context.Context, unionID string) ([]UserID, error)

	// MasterKeys returns until when sessions need each master key: at least until
	// the last one expires that a Login made under it. RevokeAll ends every need,
	// though a shared store may tell of it for two minutes more.
	MasterKeys(ctx context.Context) (map[MasterKeyID]time.Time, error)

	// Fact returns a value that no user owns, such as a key that gates share, by its
	// name; nil when there is none.
	Fact(ctx context.Context, name string) ([]byte, error)

	// SetFact makes value the fact of a name, in one atomic and durable step, if it
	// still is was; nil was means none. It returns the value on record then: another
	// one means that another gate came first.
	SetFact(ctx context.Context, name string, was, value []byte) ([]byte, error)

	// Stats returns the size of the store. It may read all of it: it is for
	// operators, not for requests.
	Stats(ctx context.Context) (Stats, error)

	// Touch moves Session.UsedUntil on, if the session is there and the time is
	// later. It does not wait for the medium: the write rides on another commit, and
	// a crash that loses it only makes the idle timeout come early.
	Touch(d Digest, until time.Time)

	// Health returns nil while the store is likely to take a login, else an error
	// that wraps ErrUnavailable. The gate asks before it spends a code, so it is
	// cheap.
	Health(ctx context.Context) error

	// Close writes the touches and releases the medium. Later calls return an error
	// that wraps ErrUnavailable.
	Close() error
}

// Reopener is a Store that a fault of its medium can break for good.
type Reopener interface {
	// Reopen opens a broken store again, after checking it, and reports whether it
	// did. The records may be older ones, or none. A store that works stays as it is.
	Reopen() (bool, error)
}

// SelfReporting is a Store that logs the begin and the end of its outages, also
// while no request asks for it.
type SelfReporting interface{ LogsOutages() }

// Counting is a Store that keeps count: its Stats reads no records, so metrics may
// ask for it.
type Counting interface{ KeepsCount() }

// Backuper is a Store that the gate can copy while it runs.
type Backuper interface {
	// Backup writes a consistent copy of the store, as it stands at one moment of
	// the call, and returns the number of bytes. Logins and checks go on, however
	// slow w is. After an error the copy is of no use.
	Backup(ctx context.Context, w io.Writer) (n int64, err error)
}

// Stats is the size of a store.
type Stats struct {
	Sessions, Users  int64     // records, with those that have ended and wait for removal
	Bytes, FreeBytes int64     // that the medium holds for the store, and the free part of it
	LastExpiry       time.Time // no session lives longer; the zero time when there is none
	LastBackup       time.Time // made by Backup; the zero time when none is on record
}

// Login is an answer to wx.login: the facts of the user, and the session to make.
type Login struct {
	User    UserID
	UnionID string    // empty: unknown to WeChat's answer, so the store keeps its own
	Proof   Proof     // of UnionID; the store keeps the two together
	Key     SealedKey // the session_key of this answer
	OldTags [][8]byte // tags of the same session_key under older master keys

	Digest    Digest      // names the new session
	MasterKey MasterKeyID // signed its token
	Created   time.Time   // also "now" for expired sessions
	Expires   time.Time
	UsedUntil time.Time // at most MaxTouchInterval after Created

	// Ends is the session that the client presented, of any user; zero for none. It
	// holds for Grace yet.
	Ends Digest

	// MaxPerUser bounds the user's live sessions; 0: none. The oldest go, but none
	// younger than Grace while there are at most twice as many.
	MaxPerUser int
}

// Grace is how long requests under way go on with a session that a login replaces.
const Grace = time.Minute

// EndsBy returns when a session ends that l.Ends names and that would last until
// expires.
func (l Login) EndsBy(expires time.Time) time.Time {
	if by := l.Created.Add(Grace); by.Before(expires) {
		return by
	}
	return expires
}

// Session returns the session that l makes, without its epochs.
func (l Login) Session() Session {
	return Session{User: l.User, Created: l.Created, UsedUntil: l.UsedUntil, Expires: l.Expires}
}

// maxNeedAhead bounds how much longer than its last session a master key counts
// as needed.
const maxNeedAhead = time.Hour

// MasterKeyNeed returns until when sessions need l.MasterKey, given the time on
// record. An engine records the result before the session lives. The time lies a
// twentieth of the session's life ahead of its end, an hour at most, so that few
// logins change the record.
func (l Login) MasterKeyNeed(recorded time.Time) time.Time {
	if !recorded.Before(l.Expires) {
		return recorded
	}
	ahead := min(l.Expires.Sub(l.Created)/20, maxNeedAhead)
	return time.UnixMilli(l.Expires.Add(ahead).UnixMilli() + 1)
}

// LoginResult tells the side effects of a login.
type LoginResult struct {
	UnionID        string   // now on record; empty when unknown
	Proof          Proof    // of UnionID
	UnionIDChanged bool     // the user's other sessions show another unionid or proof than before
	Ended          []Digest // sessions that MaxPerUser ended
}

// Amendment holds new facts of a user. Empty fields change nothing.
type Amendment struct {
	UnionID string
	Proof   Proof     // of UnionID
	Key     SealedKey // replaces the session_key with the tag KeyWas
	KeyWas  [8]byte   // another tag on record means that a login was newer: Key is void
	OldTags [][8]byte // as in Login
	Phone   []byte    // telephone number, sealed by package session; empty and not nil: none
	End     End       // how a session was found to have ended
}

// Amended tells what an amendment changed.
type Amended struct {
	UnionIDWas     string // before the amendment
	UnionIDChanged bool   // or its proof
	KeySet         bool
}

// Record is a session and the facts that decide whether it holds.
type Record struct {
	Session Session
	UnionID string // of the user; empty when unknown
	Proof   Proof  // of UnionID
	Phone   []byte // of the user, sealed; nil when unknown
	Current Epochs // the session holds only while they equal Session.Epochs
}
