package session_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// TestStoreCall_EachOutcome_IsObserved: look-ups and logins, answered or not; a session
// that is not there is an answer.
func TestStoreCall_EachOutcome_IsObserved(t *testing.T) {
	var (
		mu   sync.Mutex
		seen []string
	)
	g := newGate(t, withCore(func(cc *session.CoreConfig) {
		cc.Observe = func(call session.StoreCall) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, call.Name+" "+call.Result)
		}
	}))
	for _, tt := range []struct {
		before hook
		do     func()
		want   []string
	}{
		{do: func() { g.accept(g.login("alice").Token) }, want: []string{"login ok", "lookup ok"}},
		{
			do:   func() { g.refuse(g.keys.Mint(nobody), session.ErrUnknown) },
			want: []string{"lookup ok"},
		},
		{
			before: failing("Lookup", store.ErrUnavailable),
			do:     func() { g.refuse(g.keys.Mint(nobody), session.ErrUnavailable) },
			want:   []string{"lookup unavailable"},
		},
		{
			before: failing("Login", store.ErrUnavailable),
			do: func() {
				_, err := g.Login(t.Context(), session.LoginRequest{AppID: appA, Code: "bob"})
				if !errors.Is(err, session.ErrUnavailable) {
					t.Error(err)
				}
			},
			want: []string{"login unavailable"},
		},
		{
			before: failing("Lookup", errors.Join(store.ErrUnavailable, context.Canceled)),
			do:     func() { g.refuse(g.keys.Mint(nobody), session.ErrUnavailable) },
			want:   []string{"lookup canceled"},
		},
	} {
		g.store.Before = tt.before
		tt.do()
		mu.Lock()
		if !slices.Equal(seen, tt.want) {
			t.Errorf("got %q, want %q", seen, tt.want)
		}
		seen = nil
		mu.Unlock()
	}
}
