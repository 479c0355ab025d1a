package storetest

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func testNotFound(t *testing.T, f *fixture) {
	check := func() {
		t.Helper()
		for _, d := range []store.Digest{{}, newDigest()} {
			if _, err := f.Lookup(t.Context(), d); !notFound(err) {
				t.Errorf("session: %v", err)
			}
		}
		for _, id := range []store.UserID{{}, bob, alice2} {
			if _, err := f.User(t.Context(), id); !notFound(err) {
				t.Errorf("user %+v: %v", id, err)
			}
		}
	}
	check()
	f.login(alice)
	check()
}

func testEnd(t *testing.T, f *fixture) {
	gone, _ := f.login(alice, unionID("union"))
	keep, _ := f.login(alice)
	f.must(f.End(t.Context(), gone.Digest, store.EndLogout))
	if _, err := f.Lookup(t.Context(), gone.Digest); !notFound(err) {
		t.Errorf("lookup of an ended session: %v", err)
	}
	f.checkList(alice, keep)
	for _, d := range []store.Digest{gone.Digest, newDigest(), {}} {
		if err := f.End(t.Context(), d, store.EndLogout); err != nil {
			t.Errorf("ending a session that is not there: %v", err)
		}
	}
	f.reopen()
	f.checkAccepted(false, "after a restart", gone)
	f.checkAccepted(true, "after a restart", keep)
	f.must(f.End(t.Context(), keep.Digest, store.EndLogout))
	if u := f.user(alice); u.UnionID != "union" || u.KeyVersion != 1 {
		t.Errorf("the user's facts went with the last session: %+v", u)
	}
}

func testRevokeUser(t *testing.T, f *fixture) {
	revoke := func() error { return f.RevokeUser(t.Context(), alice, store.EndRevoked) }
	checkRevocation(t, f, []store.UserID{alice}, revoke)
	before := f.user(alice)
	f.must(revoke())
	f.checkList(alice)
	after := f.user(alice)
	if after.Epoch == before.Epoch || after.KeyVersion != before.KeyVersion ||
		!sameKey(after.Key, before.Key) {
		t.Errorf("a revocation made %+v of %+v", after, before)
	}
}

func testRevokeApp(t *testing.T, f *fixture) {
	checkRevocation(t, f, []store.UserID{alice, bob}, func() error {
		return f.RevokeApp(t.Context(), alice.AppID)
	})
}

func testRevokeAll(t *testing.T, f *fixture) {
	checkRevocation(t, f, []store.UserID{alice, bob, alice2}, func() error {
		return f.RevokeAll(t.Context())
	})
}

// checkRevocation checks that revoke ends every session of the victims and no
// other. Later logins hold. Restarts and further revocations change nothing.
func checkRevocation(t *testing.T, f *fixture, victims []store.UserID, revoke func() error) {
	everyone := []store.UserID{alice, bob, alice2}
	var held, revoked []store.Login
	login := func() {
		for _, id := range everyone {
			l, _ := f.login(id)
			held = append(held, l)
		}
	}
	check := func(when string) {
		t.Helper()
		f.checkAccepted(true, when, held...)
		f.checkAccepted(false, when+", revoked", revoked...)
	}
	for range 3 {
		login()
		login()
		check("before")
		f.must(revoke())
		held = slices.DeleteFunc(held, func(l store.Login) bool {
			if !slices.Contains(victims, l.User) {
				return false
			}
			revoked = append(revoked, l)
			return true
		})
		check("after")
		login()
		check("after new logins")
		f.reopen()
		check("after a restart")
	}
	for _, id := range everyone {
		if n := len(f.user(id).Sessions); !slices.Contains(victims, id) && n != 9 {
			t.Errorf("%d sessions of %v are listed, want 9", n, id)
		}
	}
}

// Revoking what the store has never seen is no error, and harms no later login.
func testRevokeUnknown(t *testing.T, f *fixture) {
	for range 2 {
		f.must(f.RevokeUser(t.Context(), bob, store.EndRevoked))
		f.must(f.RevokeApp(t.Context(), bob.AppID))
		f.must(f.RevokeAll(t.Context()))
		if _, err := f.User(t.Context(), bob); !notFound(err) {
			t.Errorf("a revocation made a user: %v", err)
		}
		f.reopen()
	}
	l, _ := f.login(bob)
	f.must(f.RevokeUser(t.Context(), alice, store.EndRevoked))
	f.must(f.RevokeApp(t.Context(), alice2.AppID))
	f.checkAccepted(true, "after revoking others", l)
}

// revokeParallel checks that a session which a gate acknowledged before the
// revocation began never holds after it, and that a later login holds, while both
// gates log the user in (P3).
func revokeParallel(t *testing.T, a, b *fixture) {
	for range 5 {
		var mu sync.Mutex
		var acked []store.Login
		var stop atomic.Bool
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for !stop.Load() {
					l := newLogin(alice, maxPerUser(20))
					if _, err := []*fixture{a, b}[i%2].Login(t.Context(), l); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acked = append(acked, l)
					mu.Unlock()
				}
			})
		}
		var before []store.Login
		await(t, "there are sessions", func() bool {
			mu.Lock()
			defer mu.Unlock()
			before = slices.Clone(acked)
			return len(before) >= 32
		})
		a.must(a.RevokeUser(t.Context(), alice, store.EndRevoked))
		b.checkAccepted(false, "after a revocation", before...)
		stop.Store(true)
		wg.Wait()
		l, _ := a.login(alice)
		b.checkAccepted(true, "after a login", l)
	}
}
