package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// byUnionID returns the users of a unionid in an order of their own.
func byUnionID(s store.Store, unionID string) ([]store.UserID, error) {
	ids, err := s.ByUnionID(ctxb, unionID)
	slices.SortFunc(ids, func(a, b store.UserID) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return ids, err
}

func (f *fixture) checkUnion(unionID string, want ...store.UserID) {
	f.t.Helper()
	got, err := byUnionID(f, unionID)
	f.must(err)
	if !slices.Equal(got, want) {
		f.t.Errorf("users with unionid %.20q: %v, want %v", unionID, got, want)
	}
}

// testByUnionID: one person is found in all mini programs by what is known now, not by what was known before, and unionids that resemble each other are not mixed up.
func testByUnionID(t *testing.T, f *fixture) {
	long := strings.Repeat("u", 1<<16)
	f.checkUnion("u")
	f.login(alice) // WeChat does not always tell one
	f.checkUnion("")
	f.login(alice, unionID("u"))
	f.login(alice)
	f.login(alice2, unionID("u"))
	f.login(bob, unionID("u\x00"))
	f.checkUnion("u", alice, alice2)
	f.checkUnion("u\x00", bob)
	for _, other := range []string{"", "U", "uu", "u\x00u", long, "u " + alice.OpenID} {
		f.checkUnion(other)
	}
	f.login(bob, unionID(long))
	f.reopen()
	f.checkUnion(long, bob)
	f.checkUnion("u\x00")
	f.checkUnion("u", alice, alice2)
	f.must(f.RevokeUser(t.Context(), alice))
	f.must(f.RevokeAll(t.Context()))
	f.checkUnion("u", alice, alice2)
	f.login(alice, unionID("v"))
	f.checkUnion("u", alice2)
	f.checkUnion("v", alice)
	f.login(alice, unionID("u"))
	f.checkUnion("v")
	f.checkUnion("u", alice, alice2)
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
		if st.Sessions != 3 || st.Users != 2 || st.LastExpiry.Before(last.Expires) || st.FreeBytes < 0 || st.Bytes < st.FreeBytes {
			t.Errorf("of three sessions, the last one until %v: %+v", last.Expires, st)
		}
		f.reopen()
	}
}
