package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func (f *fixture) usedUntil(d store.Digest) time.Time {
	f.t.Helper()
	rec, err := f.Lookup(f.t.Context(), d)
	f.must(err)
	return rec.Session.UsedUntil
}

// testTouch: times only move forward from that of the login on, whatever order the touches come in, and touching what is
// not there does no harm.
func testTouch(t *testing.T, f *fixture) {
	l, _ := f.login(alice)
	gone, _ := f.login(alice)
	f.must(f.End(t.Context(), gone.Digest))
	at := func(minutes int) time.Time { return l.Created.Add(time.Duration(minutes) * time.Minute) }
	for _, step := range []struct{ touch, want int }{{0, 1}, {1, 1}, {5, 5}, {3, 5}, {5, 5}, {-10, 5}, {9, 9}} {
		f.Touch(l.Digest, at(step.touch))
		f.Touch(gone.Digest, at(step.touch))
		f.Touch(newDigest(), at(step.touch))
		f.Touch(store.Digest{}, at(step.touch))
		f.reopen() // flushes
		if got := f.usedUntil(l.Digest); !got.Equal(at(step.want)) {
			t.Fatalf("touched until minute %d: used until %v, want minute %d", step.touch, got.Sub(l.Created), step.want)
		}
	}
	f.Touch(l.Digest, at(12))
	f.Touch(l.Digest, at(11))
	f.reopen()
	if got := f.usedUntil(l.Digest); !got.Equal(at(12)) {
		t.Errorf("an older touch overtook a newer one: %v", got.Sub(l.Created))
	}
	if f.accepted(gone.Digest) {
		t.Error("a touch brought an ended session back")
	}
	rec, err := f.Lookup(t.Context(), l.Digest)
	f.must(err)
	if !rec.Session.Created.Equal(l.Created) || !rec.Session.Expires.Equal(l.Expires) {
		t.Errorf("a touch changed more than UsedUntil: %+v", rec.Session)
	}
}

// testTouchClose: what was touched before Close is there afterwards, without any other write.
func testTouchClose(t *testing.T, f *fixture) {
	var all []store.Login
	for range 20 {
		l, _ := f.login(alice)
		all = append(all, l)
	}
	for _, l := range all {
		f.Touch(l.Digest, l.UsedUntil.Add(time.Minute))
	}
	f.reopen()
	for _, l := range all {
		if got := f.usedUntil(l.Digest); !got.Equal(l.UsedUntil.Add(time.Minute)) {
			t.Fatalf("used until %v after the start", got.Sub(l.Created))
		}
	}
}

// calls are all methods that answer with an error, by name.
func calls(s store.Store, d store.Digest) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Login":      func(ctx context.Context) error { _, err := s.Login(ctx, newLogin(alice)); return err },
		"Lookup":     func(ctx context.Context) error { _, err := s.Lookup(ctx, d); return err },
		"User":       func(ctx context.Context) error { _, err := s.User(ctx, alice); return err },
		"Amend":      func(ctx context.Context) error { _, err := s.Amend(ctx, alice, everything("x")); return err },
		"End":        func(ctx context.Context) error { return s.End(ctx, d) },
		"RevokeUser": func(ctx context.Context) error { return s.RevokeUser(ctx, alice) },
		"RevokeApp":  func(ctx context.Context) error { return s.RevokeApp(ctx, alice.AppID) },
		"RevokeAll":  func(ctx context.Context) error { return s.RevokeAll(ctx) },
		"ByUnionID":  func(ctx context.Context) error { _, err := s.ByUnionID(ctx, "union"); return err },
		"MasterKeys": func(ctx context.Context) error { _, err := s.MasterKeys(ctx); return err },
		"Stats":      func(ctx context.Context) error { _, err := s.Stats(ctx); return err },
		"Health":     func(ctx context.Context) error { return s.Health(ctx) },
	}
}

// checkUnavailable: the error is ErrUnavailable and never ErrNotFound, which would log the user out (THREATS.md 23).
func checkUnavailable(err error) error {
	if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("got %v, want ErrUnavailable alone", err)
	}
	return nil
}

// testContext: a call whose context has ended changes nothing and says nothing about any session.
func testContext(t *testing.T, f *fixture) {
	l, _ := f.login(alice)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(f, l.Digest) {
		err := call(ctx)
		if bad := checkUnavailable(err); bad != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.must(f.Health(t.Context()))
	if u := f.user(alice); !f.accepted(l.Digest) || u.UnionID != "" || u.Phone != nil || u.KeyVersion != 1 {
		t.Error("a call with an ended context took effect")
	}
	checkList(t, f, alice, []store.Digest{l.Digest})
	if until := f.needs()[l.MasterKey]; until.After(l.Expires.Add(time.Hour)) || until.Before(l.Expires) {
		t.Errorf("its master key is needed until %v after a call with an ended context", until)
	}
}

func testClose(t *testing.T, f *fixture) {
	l, _ := f.login(alice)
	f.must(f.Close())
	f.must(f.Close())
	for name, call := range calls(f, l.Digest) {
		if bad := checkUnavailable(call(t.Context())); bad != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
	f.Touch(l.Digest, l.Created.Add(time.Minute))
	f.start()
	f.must(f.Health(t.Context()))
	if !f.accepted(l.Digest) {
		t.Error("a call after Close took effect")
	}
}
