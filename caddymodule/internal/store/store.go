// Package store defines the authoritative record of sessions and users: the contract every engine keeps (Store), the facts it holds (Session, User) and their bytes at rest.
//
// A store records and reports facts. Whether a session is still good (time, idle limit, epochs) is judged in package session, once for all engines. A store never sees a token or a
// session_key in the clear: sessions are named by the digest of their token, keys come sealed.
package store

import (
	"context"
	"io"
	"time"
)

// Store is the authoritative record of sessions and users. It is safe for concurrent use. Every engine passes the suite in package storetest.
//
// A method that could not reach or trust the underlying medium returns an error wrapping ErrUnavailable and has changed nothing as far as it knows; ErrNotFound is returned only when the
// store has positively answered that there is no such record. The two are never mixed up: one logs a user out, the other must not (THREATS.md 23).
type Store interface {
	// Login applies l in one atomic step and returns when it is durable: a session that it reports survives the loss of the process (DESIGN.md P2).
	Login(ctx context.Context, l Login) (LoginResult, error)

	// Lookup returns what is recorded about the session with digest d, or ErrNotFound when the session, its user or one of its epochs is missing.
	Lookup(ctx context.Context, d Digest) (Record, error)

	// User returns the record of one user, or ErrNotFound.
	User(ctx context.Context, id UserID) (User, error)

	// Amend adds to what is known of a user what came to light after the login, in one atomic and durable step. The error is ErrNotFound when there is no such user.
	Amend(ctx context.Context, id UserID, a Amendment) (Amended, error)

	// End removes one session durably. A session that is already gone is not an error.
	End(ctx context.Context, d Digest) error

	// RevokeUser ends every session of a user by moving the user's epoch on. An unknown user is not an error.
	RevokeUser(ctx context.Context, id UserID) error

	// RevokeApp ends every session of a mini program by moving its epoch on.
	RevokeApp(ctx context.Context, appID string) error

	// RevokeAll ends every session by moving the global epoch on.
	RevokeAll(ctx context.Context) error

	// Forget removes all that is known of a user, and ends every session of theirs with it: what a later login finds is nobody. An unknown user is not an error. What names nobody by itself, such as
	// a digest in an index, may stay until it expires; so do copies that were made before.
	Forget(ctx context.Context, id UserID) error

	// ByUnionID returns the users of all mini programs who are known by that unionid, in no particular order. None is not an error; the empty unionid is nobody's.
	ByUnionID(ctx context.Context, unionID string) ([]UserID, error)

	// MasterKeys returns until when sessions need each master key: at least until
	// the last one expires that a Login made under it. RevokeAll ends every need,
	// though a shared store may tell of it for two minutes more.
	MasterKeys(ctx context.Context) (map[MasterKeyID]time.Time, error)

	// Stats returns what the store knows of its own size. It may walk all that is stored: it is for operators, not for requests.
	Stats(ctx context.Context) (Stats, error)
	// Touch moves Session.UsedUntil of the session with digest d on to until. It never blocks and never waits for
	// the medium: the write rides on another commit, and losing it in a crash only makes an idle timeout come early
	// (DESIGN.md 5). A time before the one recorded changes nothing, nor does an unknown session.
	Touch(d Digest, until time.Time)

	// Health returns nil while the store can be expected to take a login, else an error wrapping ErrUnavailable. It is asked before a code is spent (DESIGN.md 5), so it must be cheap.
	Health(ctx context.Context) error

	// Close flushes what Touch left, then releases the medium. Calls that come later return an error wrapping ErrUnavailable.
	Close() error
}

// Backuper is a Store that can be copied while it is used.
type Backuper interface {
	// Backup writes a consistent copy of the store, as it stood at one moment after the call, and returns the number of bytes. It holds up neither logins nor checks, however slowly w
	// takes it. What was written before an error is of no use.
	Backup(ctx context.Context, w io.Writer) (n int64, err error)
}

// Stats is what a store knows of its own size.
type Stats struct {
	Sessions, Users  int64     // records, those included that are over and wait for their removal
	Bytes, FreeBytes int64     // what the medium holds for the store, and how much of it is free for what comes next
	LastExpiry       time.Time // no session lives longer than until then; the zero time when there is none
}

// Login is one answered wx.login: the user's facts as WeChat told them and the session to make.
type Login struct {
	User    UserID
	UnionID string    // empty when WeChat did not tell one; a known one is then kept (WECHAT.md 2.5)
	Key     SealedKey // the session_key of this exchange
	OldTags [][8]byte // tags that the same session_key had under master keys which have since been replaced: a record that bears one of them holds the same key
	Digest  Digest    // names the new session

	MasterKey MasterKeyID // signed the token of the new session

	Created time.Time // start of the session; also "now" for pruning expired ones
	Expires time.Time // absolute end of the session

	// UsedUntil is that of the new session. It is at most MaxTouchInterval after Created.
	UsedUntil time.Time

	// Ends is the session that was presented with the login and ends with it, whoever it belongs to; the zero Digest for none.
	Ends Digest

	// MaxPerUser bounds the live sessions of the user, the new one included: the oldest go. 0 means no bound.
	MaxPerUser int
}

// Session returns the session that l makes, without its epochs.
func (l Login) Session() Session {
	return Session{User: l.User, Created: l.Created, UsedUntil: l.UsedUntil, Expires: l.Expires}
}

// LoginResult tells what a login did beside making the session.
type LoginResult struct {
	UnionID        string   // what is now known; empty when nothing is
	UnionIDChanged bool     // other sessions of the user now show another unionid than before
	Ended          []Digest // sessions that this login ended, by Ends or MaxPerUser
}

// Amendment is what came to light of a user after the login. What is left out stays as it is.
type Amendment struct {
	UnionID string    // empty: no news
	Key     SealedKey // a session_key that replaces the one with the tag KeyWas; Box nil: no news
	KeyWas  [8]byte   // while the current key has another tag, Key is left out: a login in between is newer
	OldTags [][8]byte // tags that Key had under master keys which have since been replaced, as in Login
	Phone   []byte    // telephone number, sealed: only package session can open it; nil: no news
}

// Amended tells what an amendment changed.
type Amended struct {
	UnionIDWas     string // what was known before; empty when nothing was
	UnionIDChanged bool   // sessions of the user now show another unionid than before
	KeySet         bool
}

// Record is a session with what decides whether it still holds.
type Record struct {
	Session Session
	UnionID string // from the user's record; empty when not known
	Phone   []byte // likewise, sealed; nil when none is remembered
	Current Epochs // as they stand now; a session holds only while they equal Session.Epochs
}
