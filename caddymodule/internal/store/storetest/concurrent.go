package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Each of many goroutines sees its own writes at once while the others work, on
// users of their own and on one that all share.
func testConcurrent(t *testing.T, f *fixture) {
	shared := store.UserID{AppID: alice.AppID, OpenID: "oShared"}
	parallel(workers, func(i int) {
		if err := work(t.Context(), f, numbered(i), shared); err != nil {
			t.Error(err)
		}
	})
	if n := len(f.user(shared).Sessions); n != workers {
		t.Errorf("%d sessions of the shared user are listed, want %d", n, workers)
	}
	f.reopen()
	for _, r := range f.user(shared).Sessions {
		if !f.accepted(r.Digest) {
			t.Error("a listed session does not hold")
		}
	}
}

// work logs in and out and returns the first answer that contradicts an earlier
// one.
func work(ctx context.Context, f *fixture, own, shared store.UserID) error {
	holds := func(l store.Login) bool {
		rec, err := f.Lookup(ctx, l.Digest)
		return err == nil && live(rec)
	}
	for range 4 {
		a := newLogin(own)
		if _, err := f.Login(ctx, a); err != nil || !holds(a) {
			return fmt.Errorf("login: %v, or it does not hold", err)
		}
		b := newLogin(own, ends(a))
		res, err := f.Login(ctx, b)
		if err != nil || len(res.Ended) != 0 || !holds(a) || !holds(b) {
			return fmt.Errorf("login that replaces another: %+v, %v", res, err)
		}
		rec, err := f.Lookup(ctx, a.Digest)
		if at := rec.Session.Expires; err != nil || at.After(b.Created.Add(store.Grace)) {
			return fmt.Errorf("the replaced session lives until %v, %v", at, err)
		}
		if err := f.End(ctx, a.Digest, store.EndLogout); err != nil || holds(a) {
			return fmt.Errorf("ending: %v, or the session still holds", err)
		}
		f.Touch(b.Digest, b.Created.Add(time.Second))
		if err := f.RevokeUser(ctx, own, store.EndRevoked); err != nil || holds(b) {
			return fmt.Errorf("revoking: %v, or the session still holds", err)
		}
		if err := f.Health(ctx); err != nil {
			return err
		}
		u, err := f.User(ctx, own)
		if err != nil || len(u.Sessions) != 0 {
			return fmt.Errorf("user after a revocation: %+v, %v", u, err)
		}
	}
	s, gone := newLogin(shared), newLogin(shared)
	_, err1 := f.Login(ctx, s)
	_, err2 := f.Login(ctx, gone)
	err3 := f.End(ctx, gone.Digest, store.EndLogout)
	if err := errors.Join(err1, err2, err3); err != nil || !holds(s) || holds(gone) {
		return fmt.Errorf("shared user: %v", err)
	}
	return nil
}
