// Package storetest is the suite that every store.Store passes: the comments of
// the contract as tests. It knows no engine.
package storetest

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Harness is an engine under test.
type Harness struct {
	// New makes a new place for data and returns what opens a store on it. t owns
	// the clean-up.
	New func(t *testing.T) Opener
}

// Opener opens the store on its data, each time after the one before was closed.
// The suite closes what it opens.
type Opener func() (store.Store, error)

// Run tests the engine of h against the contract of store.Store.
func Run(t *testing.T, h Harness) {
	for _, tt := range []struct {
		name string
		f    func(*testing.T, *fixture)
	}{
		{"Login/Recorded", testLoginRecorded},
		{"Login/UnionID", testLoginUnionID},
		{"Login/Proof", testLoginProof},
		{"Login/KeyVersions", testLoginKeyVersions},
		{"Login/MaxPerUser", testLoginMaxPerUser},
		{"Login/MaxPerUserYoung", testLoginMaxPerUserYoung},
		{"Login/MaxPerUserPrunesExpired", testLoginPrunesExpired},
		{"Login/Parallel", testLoginParallel},
		{"Login/Ends", testLoginEnds},
		{"NotFound", testNotFound},
		{"Amend", testAmend},
		{"Amend/NotFound", testAmendNotFound},
		{"Amend/Durable", testAmendDurable},
		{"Amend/UnionID", testAmendUnionID},
		{"Amend/KeyWas", testAmendKeyWas},
		{"Amend/Parallel", func(t *testing.T, f *fixture) { amendParallel(t, f, f) }},
		{"Amend/Revoke", testAmendRevoke},
		{"End", testEnd},
		{"RevokeUser", testRevokeUser},
		{"RevokeApp", testRevokeApp},
		{"RevokeAll", testRevokeAll},
		{"Ends", testEnds},
		{"Revoke/Unknown", testRevokeUnknown},
		{"Forget", testForget},
		{"Forget/Parallel", testForgetParallel},
		{"ByUnionID", testByUnionID},
		{"MasterKeys", testMasterKeys},
		{"MasterKeys/Revoked", testMasterKeysRevoked},
		{"MasterKeys/Parallel", func(t *testing.T, f *fixture) { needsParallel(t, f, f) }},
		{"Fact", testFact},
		{"Fact/Parallel", func(t *testing.T, f *fixture) { factParallel(t, f, f) }},
		{"Stats", testStats},
		{"Identity", func(t *testing.T, f *fixture) { testIdentity(t, f, h) }},
		{"Touch", testTouch},
		{"Context", testContext},
		{"Close", testClose},
		{"Concurrent", testConcurrent},
		{"Concurrent/Revoke", func(t *testing.T, f *fixture) { revokeParallel(t, f, f) }},
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
func (f *fixture) login(
	id store.UserID, edit ...func(*store.Login),
) (store.Login, store.LoginResult) {
	f.t.Helper()
	l := newLogin(id, edit...)
	res, err := f.Login(f.t.Context(), l)
	if err != nil {
		f.t.Fatalf("login: %v", err)
	}
	return l, res
}

// lookup returns the record of a session that must be there.
func (f *fixture) lookup(d store.Digest) store.Record {
	f.t.Helper()
	rec, err := f.Lookup(f.t.Context(), d)
	f.must(err)
	return rec
}

// accepted reports whether the session holds, by the judgement of package session.
func (f *fixture) accepted(d store.Digest) bool {
	f.t.Helper()
	rec, err := f.Lookup(f.t.Context(), d)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		f.t.Fatalf("lookup: %v", err)
	}
	return err == nil && live(rec)
}

// checkAccepted checks that sessions hold, or that they do not.
func (f *fixture) checkAccepted(want bool, when string, logins ...store.Login) {
	f.t.Helper()
	for i, l := range logins {
		if got := f.accepted(l.Digest); got != want {
			f.t.Errorf("%s: session %d, of %v, holds: %v", when, i, l.User, got)
		}
	}
}

func (f *fixture) user(id store.UserID) store.User {
	f.t.Helper()
	u, err := f.User(f.t.Context(), id)
	if err != nil {
		f.t.Fatalf("user: %v", err)
	}
	return u
}

// checkList checks the user's list, without expired sessions.
func (f *fixture) checkList(id store.UserID, want ...store.Login) {
	f.t.Helper()
	var got []store.SessionRef
	for _, r := range f.user(id).Sessions {
		if r.Expires.After(time.Now()) {
			got = append(got, r)
		}
	}
	if !slices.EqualFunc(got, want, func(r store.SessionRef, l store.Login) bool {
		return r.Digest == l.Digest && r.Created.Equal(l.Created) && r.Expires.Equal(l.Expires)
	}) {
		f.t.Errorf("listed %+v, want %+v", got, want)
	}
}

// must fails the test on an error of the call just made.
func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// live is the part of the judgement that the epochs decide. A store may also
// answer ErrNotFound for a session that they have ended.
func live(rec store.Record) bool { return rec.Current == rec.Session.Epochs }

// notFound reports whether the store has answered that there is no record.
func notFound(err error) bool {
	return errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrUnavailable)
}

var (
	alice = store.UserID{AppID: "wxaaaaaaaaaaaaaaaa", OpenID: "oAlice"}
	bob   = store.UserID{AppID: "wxaaaaaaaaaaaaaaaa", OpenID: "oBob"}

	// alice2 has alice's openid in another mini program, so it is another user.
	alice2 = store.UserID{AppID: "wxbbbbbbbbbbbbbbbb", OpenID: "oAlice"}
)

// numbered returns one of many users.
func numbered(i int) store.UserID {
	return store.UserID{AppID: alice.AppID, OpenID: fmt.Sprint("o", i)}
}

var digests atomic.Uint64

// newDigest returns a digest that no other call returns.
func newDigest() store.Digest {
	n := binary.LittleEndian.AppendUint64([]byte("storetest"), digests.Add(1))
	return sha256.Sum256(n)
}

func newLogin(id store.UserID, edit ...func(*store.Login)) store.Login {
	now := time.UnixMilli(time.Now().UnixMilli())
	l := store.Login{
		User: id, Key: key("k"), Digest: newDigest(),
		Created: now, Expires: now.Add(time.Hour), UsedUntil: now.Add(time.Minute),
	}
	for _, e := range edit {
		e(&l)
	}
	return l
}

// key is the sealed session_key of a name.
func key(name string) store.SealedKey {
	tag := [8]byte(fmt.Appendf(nil, "%-8.8s", name))
	return store.SealedKey{Tag: tag, Box: []byte("box of " + name)}
}

func sameKey(a, b store.SealedKey) bool { return a.Tag == b.Tag && slices.Equal(a.Box, b.Box) }

func unionID(s string) func(*store.Login)          { return func(l *store.Login) { l.UnionID = s } }
func withKey(k store.SealedKey) func(*store.Login) { return func(l *store.Login) { l.Key = k } }
func ends(l store.Login) func(*store.Login) {
	return func(next *store.Login) { next.Ends = l.Digest }
}
func maxPerUser(n int) func(*store.Login) { return func(l *store.Login) { l.MaxPerUser = n } }

// ago moves the whole session into the past.
func ago(d time.Duration) func(*store.Login) {
	return func(l *store.Login) {
		l.Created, l.Expires = l.Created.Add(-d), l.Expires.Add(-d)
		l.UsedUntil = l.UsedUntil.Add(-d)
	}
}

func digestsOf(refs []store.SessionRef) (ds []store.Digest) {
	for _, r := range refs {
		ds = append(ds, r.Digest)
	}
	return ds
}

// workers is how many goroutines call a store at the same time.
const workers = 64

// parallel runs f n times at the same time.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// await waits until ok, and fails the test after 20 seconds.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for patience := time.After(20 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
