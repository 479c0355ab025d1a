package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// UsedUntil moves forward only, from that of the login on, in whichever order
// the touches come. A touch of what is not there does no harm. Close writes the
// touches.
func testTouch(t *testing.T, f *fixture) {
	l, _ := f.login(alice)
	gone, _ := f.login(alice)
	f.must(f.End(t.Context(), gone.Digest, store.EndLogout))
	at := func(minutes int) time.Time { return l.Created.Add(time.Duration(minutes) * time.Minute) }
	for _, step := range []struct {
		touch []int
		want  int
	}{
		{[]int{0}, 1},
		{[]int{1}, 1},
		{[]int{5}, 5},
		{[]int{3}, 5},
		{[]int{5}, 5},
		{[]int{-10}, 5},
		{[]int{9}, 9},
		{[]int{12, 11}, 12},
	} {
		for _, minute := range step.touch {
			for _, d := range []store.Digest{l.Digest, gone.Digest, newDigest(), {}} {
				f.Touch(d, at(minute))
			}
		}
		f.reopen()
		if got := f.lookup(l.Digest).Session.UsedUntil; !got.Equal(at(step.want)) {
			t.Fatalf("touched until minute %d: used until %v, want minute %d",
				step.touch, got.Sub(l.Created), step.want)
		}
	}
	f.checkAccepted(false, "after a touch", gone)
	s := f.lookup(l.Digest).Session
	if !s.Created.Equal(l.Created) || !s.Expires.Equal(l.Expires) {
		t.Errorf("a touch changed more than UsedUntil: %+v", s)
	}

	var many []store.Login
	for range 20 {
		l, _ := f.login(bob)
		many = append(many, l)
	}
	for _, l := range many {
		f.Touch(l.Digest, l.UsedUntil.Add(time.Minute))
	}
	f.reopen()
	for _, l := range many {
		got := f.lookup(l.Digest).Session.UsedUntil
		if !got.Equal(l.UsedUntil.Add(time.Minute)) {
			t.Fatalf("used until %v after the start", got.Sub(l.Created))
		}
	}
}

// calls are all methods that answer with an error, by name.
func calls(s store.Store, d store.Digest) map[string]func(context.Context) error {
	type c = context.Context
	amend := everything("x")
	m := map[string]func(c) error{
		"Login":      func(ctx c) error { _, err := s.Login(ctx, newLogin(alice)); return err },
		"Lookup":     func(ctx c) error { _, err := s.Lookup(ctx, d); return err },
		"User":       func(ctx c) error { _, err := s.User(ctx, alice); return err },
		"Amend":      func(ctx c) error { _, err := s.Amend(ctx, alice, amend); return err },
		"End":        func(ctx c) error { return s.End(ctx, d, store.EndLogout) },
		"RevokeUser": func(ctx c) error { return s.RevokeUser(ctx, alice, store.EndRevoked) },
		"RevokeApp":  func(ctx c) error { return s.RevokeApp(ctx, alice.AppID) },
		"RevokeAll":  func(ctx c) error { return s.RevokeAll(ctx) },
		"Forget":     func(ctx c) error { return s.Forget(ctx, alice, store.EndForgotten) },
		"ByUnionID":  func(ctx c) error { _, err := s.ByUnionID(ctx, "union"); return err },
		"MasterKeys": func(ctx c) error { _, err := s.MasterKeys(ctx); return err },
		"Stats":      func(ctx c) error { _, err := s.Stats(ctx); return err },
		"Health":     func(ctx c) error { return s.Health(ctx) },
	}
	if s, ok := s.(store.Identified); ok {
		m["Identity"] = func(ctx c) error { _, err := s.Identity(ctx); return err }
	}
	if s, ok := s.(store.Shared); ok {
		m["Spend"] = func(ctx c) error {
			_, err := s.Spend(ctx, "k", store.Rate{Every: time.Hour, Burst: 1})
			return err
		}
	}
	return m
}

// checkUnavailable returns an error unless err is ErrUnavailable and not
// ErrNotFound, which would log the user out (docs/threats.md#t23).
func checkUnavailable(err error) error {
	if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("got %v, want ErrUnavailable alone", err)
	}
	return nil
}

// A call whose context has ended changes nothing and says nothing of a session.
func testContext(t *testing.T, f *fixture) {
	l, _ := f.login(alice)
	needs := f.needs()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(f.Store, l.Digest) {
		err := call(ctx)
		if bad := checkUnavailable(err); bad != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.must(f.Health(t.Context()))
	u := f.user(alice)
	if !f.accepted(l.Digest) || u.UnionID != "" || u.Phone != nil || u.KeyVersion != 1 {
		t.Error("a call with an ended context took effect")
	}
	f.checkList(alice, l)
	if now := f.needs(); len(now) != 1 || !now[l.MasterKey].Equal(needs[l.MasterKey]) {
		t.Errorf("master keys after a call with an ended context: %v", now)
	}
	if s, ok := f.Store.(store.Shared); ok {
		wait, err := s.Spend(t.Context(), "k", store.Rate{Every: time.Hour, Burst: 1})
		if err != nil || wait != 0 {
			t.Errorf("a call with an ended context spent something: %v, %v", wait, err)
		}
	}
}

func testClose(t *testing.T, f *fixture) {
	l, _ := f.login(alice)
	closed := f.Store
	f.must(f.Close())
	f.must(f.Close())
	for name, call := range calls(closed, l.Digest) {
		if bad := checkUnavailable(call(t.Context())); bad != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
	f.Touch(l.Digest, l.Created.Add(time.Minute))
	f.start()
	f.must(f.Health(t.Context()))
	f.checkAccepted(true, "after calls that came after Close", l)
}

func testStats(t *testing.T, f *fixture) {
	st, err := f.Stats(t.Context())
	f.must(err)
	if st.Sessions != 0 || st.Users != 0 || !st.LastExpiry.IsZero() {
		t.Errorf("of an empty store: %+v", st)
	}
	f.login(alice, unionID("u"))
	last, _ := f.login(bob, func(l *store.Login) { l.Expires = l.Expires.Add(time.Hour) })
	f.login(alice)
	for range 2 {
		st, err := f.Stats(t.Context())
		f.must(err)
		if st.Sessions != 3 || st.Users != 2 || st.LastExpiry.Before(last.Expires) ||
			st.FreeBytes < 0 || st.Bytes < st.FreeBytes {
			t.Errorf("of three sessions, the last one until %v: %+v", last.Expires, st)
		}
		f.reopen()
	}
}
