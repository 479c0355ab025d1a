// Package storetest is the suite that every store.Store passes. It owns the meaning of the contract's comments as tests; it must not know any engine.
package storetest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Harness is what an engine gives the suite.
type Harness struct {
	// New makes a place for data that nobody has used, and returns what opens a store on it: on the same data each time, after the one before was closed. t owns what has to be cleaned up.
	New func(t *testing.T) Opener
}

// Opener opens the store on its data. The suite closes what it opens.
type Opener func() (store.Store, error)

// Run tests the engine of h against the contract of store.Store.
func Run(t *testing.T, h Harness) {
	for _, tt := range []struct {
		name string
		f    func(*testing.T, *fixture)
	}{
		{"Login/Recorded", testLoginRecorded},
		{"Login/Durable", testLoginDurable},
		{"Login/UnionID", testLoginUnionID},
		{"Login/KeyVersions", testLoginKeyVersions},
		{"Login/MaxPerUser", testLoginMaxPerUser},
		{"Login/MaxPerUserPrunesExpired", testLoginPrunesExpired},
		{"Login/Parallel", testLoginParallel},
		{"Login/Ends", testLoginEnds},
		{"Lookup/NotFound", testLookupNotFound},
		{"User/NotFound", testUserNotFound},
		{"Amend", testAmend},
		{"Amend/NotFound", testAmendNotFound},
		{"Amend/Durable", testAmendDurable},
		{"Amend/UnionID", testAmendUnionID},
		{"Amend/KeyWas", testAmendKeyWas},
		{"Amend/Parallel", testAmendParallel},
		{"Amend/Revoke", testAmendRevoke},
		{"End", testEnd},
		{"RevokeUser", testRevokeUser},
		{"RevokeApp", testRevokeApp},
		{"RevokeAll", testRevokeAll},
		{"Revoke/Unknown", testRevokeUnknown},
		{"Forget", testForget},
		{"Forget/Parallel", testForgetParallel},
		{"ByUnionID", testByUnionID},
		{"MasterKeys", testMasterKeys},
		{"MasterKeys/Revoked", testMasterKeysRevoked},
		{"MasterKeys/Parallel", testMasterKeysParallel},
		{"Stats", testStats},
		{"Touch", testTouch},
		{"Touch/Close", testTouchClose},
		{"Context", testContext},
		{"Close", testClose},
		{"Concurrent", testConcurrent},
		{"Concurrent/Revoke", testConcurrentRevoke},
		{"Model", testModel},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.f(t, newFixture(t, h)) })
	}
}

// fixture is one store under test and the way to open it again.
type fixture struct {
	store.Store
	t    *testing.T
	open Opener
}

func newFixture(t *testing.T, h Harness) *fixture {
	f := &fixture{t: t, open: h.New(t)}
	f.start()
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return f
}

func (f *fixture) start() {
	s, err := f.open()
	if err != nil {
		f.t.Fatalf("opening: %v", err)
	}
	f.Store = s
}

// reopen closes the store and opens it on the same data.
func (f *fixture) reopen() {
	f.t.Helper()
	if err := f.Close(); err != nil {
		f.t.Fatalf("closing: %v", err)
	}
	f.start()
}

// login makes a session that is one hour long and starts now, or as edit says.
func (f *fixture) login(id store.UserID, edit ...func(*store.Login)) (store.Login, store.LoginResult) {
	f.t.Helper()
	l := newLogin(id, edit...)
	res, err := f.Login(f.t.Context(), l)
	if err != nil {
		f.t.Fatalf("login: %v", err)
	}
	return l, res
}

// accepted reports whether the session holds, as package session would judge it now.
func (f *fixture) accepted(d store.Digest) bool {
	f.t.Helper()
	rec, err := f.Lookup(f.t.Context(), d)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		f.t.Fatalf("lookup: %v", err)
	}
	return err == nil && live(rec)
}

func (f *fixture) user(id store.UserID) store.User {
	f.t.Helper()
	u, err := f.User(f.t.Context(), id)
	if err != nil {
		f.t.Fatalf("user: %v", err)
	}
	return u
}

// must fails the test on an error of the call just made.
func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// live is the part of the judgement that the epochs decide. A store may also answer ErrNotFound for a session that they have ended.
func live(rec store.Record) bool { return rec.Current == rec.Session.Epochs }

var (
	alice  = store.UserID{AppID: "wxaaaaaaaaaaaaaaaa", OpenID: "oAlice"}
	bob    = store.UserID{AppID: "wxaaaaaaaaaaaaaaaa", OpenID: "oBob"}
	alice2 = store.UserID{AppID: "wxbbbbbbbbbbbbbbbb", OpenID: "oAlice"} // the same openid in another mini program is another user
)

var digests atomic.Uint64

// newDigest returns a digest that no other call returns.
func newDigest() store.Digest {
	return sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("storetest"), digests.Add(1)))
}

func newLogin(id store.UserID, edit ...func(*store.Login)) store.Login {
	now := time.UnixMilli(time.Now().UnixMilli())
	l := store.Login{User: id, Key: key("k"), Digest: newDigest(), Created: now, Expires: now.Add(time.Hour), UsedUntil: now.Add(touchInterval)}
	for _, e := range edit {
		e(&l)
	}
	return l
}

// touchInterval is how long after its beginning a session is noted as used.
const touchInterval = time.Minute

// key is a sealed session_key that is the same for the same name.
func key(name string) store.SealedKey {
	return store.SealedKey{Tag: [8]byte(fmt.Appendf(nil, "%-8.8s", name)), Box: []byte("box of " + name)}
}

func unionID(s string) func(*store.Login)          { return func(l *store.Login) { l.UnionID = s } }
func withKey(k store.SealedKey) func(*store.Login) { return func(l *store.Login) { l.Key = k } }
func oldTags(names ...string) func(*store.Login) {
	return func(l *store.Login) {
		for _, n := range names {
			l.OldTags = append(l.OldTags, key(n).Tag)
		}
	}
}
func ends(d store.Digest) func(*store.Login) { return func(l *store.Login) { l.Ends = d } }
func maxPerUser(n int) func(*store.Login)    { return func(l *store.Login) { l.MaxPerUser = n } }

// ago moves the whole session into the past.
func ago(d time.Duration) func(*store.Login) {
	return func(l *store.Login) {
		l.Created, l.Expires, l.UsedUntil = l.Created.Add(-d), l.Expires.Add(-d), l.UsedUntil.Add(-d)
	}
}
