package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// endsOf collects the ends that a store reports.
type endsOf struct {
	mu   sync.Mutex
	list []store.Ended
}

func (e *endsOf) watch(f *fixture) {
	f.t.Helper()
	r, ok := f.Store.(store.EndReporter)
	if !ok {
		f.t.Fatalf("%T reports no ends", f.Store)
	}
	r.ReportEnds(func(end store.Ended) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.list = append(e.list, end)
	})
}

// take returns what was reported since the last call.
func (e *endsOf) take() (list []store.Ended) {
	e.mu.Lock()
	defer e.mu.Unlock()
	list, e.list = e.list, nil
	return list
}

// testEnds checks that each end is reported once with its reason, and, but for Forget,
// is on the user's record, also after a restart.
func testEnds(t *testing.T, f *fixture) {
	var seen endsOf
	seen.watch(f)
	check := func(what string, why store.Reason, gone ...store.Login) {
		t.Helper()
		var want []store.SessionID
		for _, l := range gone {
			want = append(want, l.Digest.ID())
		}
		var got []store.SessionID
		for _, e := range seen.take() {
			i := slices.IndexFunc(gone, func(l store.Login) bool {
				return l.Digest.ID() == e.Session
			})
			if i < 0 || e.User != gone[i].User || e.Reason != why ||
				!e.Created.Equal(gone[i].Created) {
				t.Errorf("%s: reported %+v, want %v of %v", what, e, why, want)
			}
			got = append(got, e.Session)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: reported %v, want %v", what, got, want)
		}
		f.reopen()
		seen.watch(f)
		for _, l := range gone {
			u, err := f.User(t.Context(), l.User)
			isIt := func(e store.End) bool {
				return e.Session == l.Digest.ID() && e.Reason == why &&
					time.Until(e.At).Abs() < 10*time.Minute
			}
			if kept := err == nil && slices.ContainsFunc(u.Ends, isIt); kept ==
				(why == store.EndForgotten) {
				t.Errorf("%s: on record %+v, %v", what, u.Ends, err)
			}
		}
	}
	out, _ := f.login(alice)
	f.must(f.End(t.Context(), out.Digest, store.EndLogout))
	check("log-out", store.EndLogout, out)
	f.must(f.End(t.Context(), out.Digest, store.EndLogout))
	check("log-out again", store.EndLogout)

	first, _ := f.login(bob, ago(4*time.Minute))
	second, _ := f.login(bob, ago(2*time.Minute), maxPerUser(1))
	check("max_per_user", store.EndEvicted, first)
	f.login(alice, ends(second))
	check("another user's login with the token", store.EndReplaced, second)
	third, _ := f.login(bob)
	check("a login beside", store.EndReplaced)
	fourth, _ := f.login(bob, ends(third))
	check("a login with the token", store.EndReplaced, third)
	f.must(f.RevokeUser(t.Context(), bob, store.EndBlocked))
	check("block", store.EndBlocked, fourth)

	gone, _ := f.login(alice2, ago(time.Hour-time.Millisecond))
	idle, _ := f.login(alice2)
	end := store.End{Session: idle.Digest.ID(), Created: idle.Created, At: time.Now()}
	end.Reason = store.EndIdle
	for range 2 {
		_, err := f.Amend(t.Context(), alice2, store.Amendment{End: end})
		f.must(err)
	}
	await(t, "the end of a session is reported", func() bool {
		f.login(alice2)
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.list) >= 2
	})
	list := seen.take()
	slices.SortFunc(list, func(a, b store.Ended) int { return int(a.Reason) - int(b.Reason) })
	if len(list) != 2 || list[0].Reason != store.EndExpired ||
		list[0].Session != gone.Digest.ID() || !list[0].At.Equal(gone.Expires) ||
		list[1].Session != idle.Digest.ID() || list[1].Reason != store.EndIdle {
		t.Errorf("of an expired and an idle session: %+v", list)
	}
	carol := store.UserID{AppID: alice.AppID, OpenID: "oCarol"}
	last, _ := f.login(carol)
	f.must(f.Forget(t.Context(), carol, store.EndForgotten))
	check("forget", store.EndForgotten, last)
}
