package session_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// TestP3_RevokeRace: validators race a revoker over a real cache, round after round with a new session. No check that began after the revocation had returned is ever accepted, and none
// before it began is refused (STORE.md 1.9).
func TestP3_RevokeRace(t *testing.T) {
	rounds, validators := 1500, 3
	if testing.Short() {
		rounds = 400
	}
	ctx := context.Background()
	for name, revoke := range map[string]func(*gate, session.Login) error{
		"session":  func(g *gate, l session.Login) error { return g.Logout(ctx, l.Token) },
		"user":     func(g *gate, l session.Login) error { return g.RevokeUser(ctx, l.User) },
		"log out":  func(g *gate, l session.Login) error { return logoutAll(ctx, g.Service, l.Token) },
		"forget":   func(g *gate, l session.Login) error { return g.Forget(ctx, l.User) },
		"app":      func(g *gate, l session.Login) error { return g.RevokeApp(ctx, l.User.AppID) },
		"everyone": func(g *gate, l session.Login) error { return g.RevokeAll(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t)
			var after, before int64
			for i := range rounds {
				l := g.login("alice")
				if i%2 == 0 {
					g.accept(l.Token) // or the cache is empty when the race begins
				}
				a, b := race(g, l, validators, i, revoke)
				after, before = after+a, before+b
				g.refuse(l.Token, session.ErrInvalid)
			}
			if after != 0 || before != 0 {
				t.Errorf("%d accepted after the revocation had returned, %d refused before it began", after, before)
			}
		})
	}
}

// race runs validators against one revocation and counts the answers that must not be.
func race(g *gate, l session.Login, validators, round int, revoke func(*gate, session.Login) error) (after, before int64) {
	var began, returned atomic.Bool
	var wrongAfter, wrongBefore atomic.Int64
	var wg sync.WaitGroup
	for range validators {
		wg.Go(func() {
			for checks := 0; checks < 4; {
				late := returned.Load()
				_, err := g.Authenticate(context.Background(), l.Token)
				early := !began.Load()
				switch {
				case late && err == nil:
					wrongAfter.Add(1)
				case early && errors.Is(err, session.ErrInvalid):
					wrongBefore.Add(1)
				}
				if late {
					checks++
				}
				runtime.Gosched() // or the revoker waits for its turn most of the time
			}
		})
	}
	for range round % 50 { // moves the instant of the revocation through the checks
		_, _ = g.Authenticate(context.Background(), l.Token)
	}
	began.Store(true)
	if err := revoke(g, l); err != nil {
		g.t.Error(err)
	}
	returned.Store(true)
	wg.Wait()
	return wrongAfter.Load(), wrongBefore.Load()
}
