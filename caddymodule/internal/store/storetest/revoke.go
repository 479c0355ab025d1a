package storetest

import (
	"errors"
	"slices"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func testLookupNotFound(t *testing.T, f *fixture) {
	for _, d := range []store.Digest{{}, newDigest()} {
		if _, err := f.Lookup(t.Context(), d); !errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUnavailable) {
			t.Errorf("empty store: %v", err)
		}
	}
	f.login(alice)
	if _, err := f.Lookup(t.Context(), newDigest()); !errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("unknown session: %v", err)
	}
}

func testUserNotFound(t *testing.T, f *fixture) {
	f.login(alice)
	for _, id := range []store.UserID{{}, bob, alice2} {
		if _, err := f.User(t.Context(), id); !errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%+v: %v", id, err)
		}
	}
}

func testEnd(t *testing.T, f *fixture) {
	gone, _ := f.login(alice, unionID("union"))
	keep, _ := f.login(alice)
	f.must(f.End(t.Context(), gone.Digest))
	if _, err := f.Lookup(t.Context(), gone.Digest); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("lookup of an ended session: %v", err)
	}
	checkList(t, f, alice, []store.Digest{keep.Digest})
	for _, d := range []store.Digest{gone.Digest, newDigest(), {}} {
		if err := f.End(t.Context(), d); err != nil {
			t.Errorf("ending a session that is not there: %v", err)
		}
	}
	f.reopen()
	if f.accepted(gone.Digest) || !f.accepted(keep.Digest) {
		t.Error("a restart changed what holds")
	}
	f.must(f.End(t.Context(), keep.Digest))
	if u := f.user(alice); u.UnionID != "union" || u.KeyVersion != 1 {
		t.Errorf("the user's facts went with the last session: %+v", u)
	}
}

func testRevokeUser(t *testing.T, f *fixture) {
	checkRevocation(t, f, []store.UserID{alice}, func() error { return f.RevokeUser(t.Context(), alice) })
	before := f.user(alice)
	f.must(f.RevokeUser(t.Context(), alice))
	checkList(t, f, alice, nil)
	if after := f.user(alice); after.Epoch == before.Epoch || after.KeyVersion != before.KeyVersion || !sameKey(after.Key, before.Key) {
		t.Errorf("a revocation made %+v of %+v", after, before)
	}
}

func testRevokeApp(t *testing.T, f *fixture) {
	checkRevocation(t, f, []store.UserID{alice, bob}, func() error { return f.RevokeApp(t.Context(), alice.AppID) })
}

func testRevokeAll(t *testing.T, f *fixture) {
	checkRevocation(t, f, []store.UserID{alice, bob, alice2}, func() error { return f.RevokeAll(t.Context()) })
}

// checkRevocation: revoke ends every session of the victims, those of all others go on, later logins hold, and all that survives a restart and further revocations.
func checkRevocation(t *testing.T, f *fixture, victims []store.UserID, revoke func() error) {
	everyone := []store.UserID{alice, bob, alice2}
	owner := make(map[store.Digest]store.UserID)
	revoked := make(map[store.Digest]bool)
	login := func() {
		for _, id := range everyone {
			l, _ := f.login(id)
			owner[l.Digest] = id
		}
	}
	check := func(when string) {
		t.Helper()
		for d, id := range owner {
			if got := f.accepted(d); got == revoked[d] {
				t.Errorf("%s: session of %v accepted: %v", when, id, got)
			}
		}
	}
	for range 3 {
		login()
		login()
		check("before")
		f.must(revoke())
		for d, id := range owner {
			if slices.Contains(victims, id) {
				revoked[d] = true
			}
		}
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

// testRevokeUnknown: revoking what has never been seen is no error, also in an empty store, and harms no later login.
func testRevokeUnknown(t *testing.T, f *fixture) {
	for range 2 {
		f.must(f.RevokeUser(t.Context(), bob))
		f.must(f.RevokeApp(t.Context(), bob.AppID))
		f.must(f.RevokeAll(t.Context()))
		if _, err := f.User(t.Context(), bob); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a revocation made a user: %v", err)
		}
		f.reopen()
	}
	l, _ := f.login(bob)
	f.must(f.RevokeUser(t.Context(), alice))
	f.must(f.RevokeApp(t.Context(), alice2.AppID))
	if !f.accepted(l.Digest) {
		t.Error("revoking an unknown user or mini program ended the session of another")
	}
}
