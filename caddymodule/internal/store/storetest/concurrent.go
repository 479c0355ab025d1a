package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const workers = 64

// testConcurrent: each of many goroutines sees its own writes at once while the others work, on users of their own and on one that all share.
func testConcurrent(t *testing.T, f *fixture) {
	shared := store.UserID{AppID: alice.AppID, OpenID: "oShared"}
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			if err := work(t, f, store.UserID{AppID: alice.AppID, OpenID: fmt.Sprint("o", i)}, shared); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
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

// work logs in and out and returns the first answer that contradicts what this goroutine did before.
func work(t *testing.T, f *fixture, own, shared store.UserID) error {
	ctx := t.Context()
	holds := func(d store.Digest) bool {
		rec, err := f.Lookup(ctx, d)
		return err == nil && live(rec)
	}
	for range 4 {
		a, b := newLogin(own), newLogin(own)
		_, err := f.Login(ctx, a)
		if err != nil || !holds(a.Digest) {
			return fmt.Errorf("login: %v, or it does not hold", err)
		}
		b.Ends = a.Digest
		res, err := f.Login(ctx, b)
		if err != nil || !slices.Equal(res.Ended, []store.Digest{a.Digest}) || holds(a.Digest) || !holds(b.Digest) {
			return fmt.Errorf("login that ends another: %+v, %v", res, err)
		}
		f.Touch(b.Digest, b.Created.Add(time.Second))
		if err := f.RevokeUser(ctx, own); err != nil || holds(b.Digest) {
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
	err3 := f.End(ctx, gone.Digest)
	if err := errors.Join(err1, err2, err3); err != nil || !holds(s.Digest) || holds(gone.Digest) {
		return fmt.Errorf("shared user: %v", err)
	}
	return nil
}

// testConcurrentRevoke: a session whose login had returned before the revocation began never holds after it, and one begun after it holds, whatever runs beside (DESIGN.md P3).
func testConcurrentRevoke(t *testing.T, f *fixture) {
	for range 4 {
		var mu sync.Mutex
		var before []store.Digest
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					l := newLogin(alice, maxPerUser(20))
					if _, err := f.Login(t.Context(), l); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					before = append(before, l.Digest)
					mu.Unlock()
				}
			})
		}
		var acked []store.Digest
		await(t, "there are sessions", func() bool {
			mu.Lock()
			defer mu.Unlock()
			acked = slices.Clone(before)
			return len(acked) >= 32
		})
		f.must(f.RevokeUser(t.Context(), alice))
		for _, d := range acked {
			if f.accepted(d) {
				t.Error("a revoked session holds")
			}
		}
		close(stop)
		wg.Wait()
		l, _ := f.login(alice)
		if !f.accepted(l.Digest) {
			t.Error("a login after a revocation does not hold")
		}
	}
}
