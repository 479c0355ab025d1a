package session_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func TestLogout(t *testing.T) {
	g := newGate(t)
	token, sibling := g.cached("alice"), g.cached("alice")
	for range 2 { // already gone is not an error
		g.must(g.Logout(t.Context(), token))
		g.refuse(token, session.ErrUnknown)
	}
	g.must(g.Logout(t.Context(), g.keys.Mint()))
	g.accept(sibling)
	for token, want := range map[string]error{"": session.ErrMalformed, "junk": session.ErrMalformed, sibling + "A": session.ErrMalformed, newKeys(t).Mint(): session.ErrForged} {
		if n := g.asks(func() {
			if err := g.Logout(t.Context(), token); !errors.Is(err, want) || !errors.Is(err, session.ErrInvalid) {
				t.Errorf("%q: %v", token, err)
			}
		}); n != 0 {
			t.Errorf("%q: the store was asked", token)
		}
	}
}

func TestLogoutAll(t *testing.T) {
	g := newGate(t)
	one, two, bystander := g.cached("alice"), g.cached("alice"), g.cached("bob")
	elsewhere := g.login("alice", func(r *session.LoginRequest) { r.AppID = appB }).Token
	g.must(logoutAll(t.Context(), g.Service, one))
	g.refuse(one, session.ErrRevoked)
	g.refuse(two, session.ErrRevoked)
	g.accept(bystander)
	g.accept(elsewhere)
	// Nobody is left to act for; a session made since must not suffer.
	since := g.cached("alice")
	for _, token := range []string{one, g.keys.Mint()} {
		if err := logoutAll(t.Context(), g.Service, token); !errors.Is(err, session.ErrInvalid) {
			t.Errorf("got %v", err)
		}
	}
	g.accept(since)
}

// TestP3_Scope: each revocation ends what it names, at once and for good, and nothing else.
func TestP3_Scope(t *testing.T) {
	ctx := context.Background()
	for name, tt := range map[string]struct {
		revoke func(*gate) error
		ends   func(app, who string) bool
	}{
		"user":   {func(g *gate) error { return g.RevokeUser(ctx, alice) }, func(app, who string) bool { return app == appA && who == "alice" }},
		"forget": {func(g *gate) error { return g.Forget(ctx, alice) }, func(app, who string) bool { return app == appA && who == "alice" }},
		"app":    {func(g *gate) error { return g.RevokeApp(ctx, appA) }, func(app, _ string) bool { return app == appA }},
		"all":    {func(g *gate) error { return g.RevokeAll(ctx) }, func(string, string) bool { return true }},
		"nobody": {func(g *gate) error {
			return errors.Join(g.RevokeUser(ctx, user("carol")), g.Forget(ctx, user("carol")), g.RevokeApp(ctx, "wxcccccccccccccccc"))
		}, func(string, string) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t)
			type owner struct{ app, who string }
			tokens := make(map[string]owner)
			for _, o := range []owner{{appA, "alice"}, {appA, "alice"}, {appA, "bob"}, {appB, "alice"}} {
				token := g.login(o.who, func(r *session.LoginRequest) { r.AppID = o.app }).Token
				g.accept(token)
				g.settle()
				tokens[token] = o
			}
			g.must(tt.revoke(g))
			over := session.ErrRevoked
			if name == "forget" {
				over = session.ErrInvalid // of what is not there nobody knows why
			}
			for range 3 {
				for token, o := range tokens {
					if tt.ends(o.app, o.who) {
						g.refuse(token, over)
					} else {
						g.accept(token)
					}
				}
				g.settle()
			}
			g.accept(g.login("alice").Token) // a revoked user may log in again
		})
	}
}

// TestP3_FillDuringRevoke: a check that fills the cache while a revocation is on its way to the disk does not outlive it.
func TestP3_FillDuringRevoke(t *testing.T) {
	ctx := context.Background()
	for name, revoke := range map[string]func(*gate, string) error{
		"session": func(g *gate, token string) error { return g.Logout(ctx, token) },
		"user":    func(g *gate, _ string) error { return g.RevokeUser(ctx, alice) },
		"forget":  func(g *gate, _ string) error { return g.Forget(ctx, alice) },
		"app":     func(g *gate, _ string) error { return g.RevokeApp(ctx, appA) },
		"all":     func(g *gate, _ string) error { return g.RevokeAll(ctx) },
		"presented": func(g *gate, token string) error {
			_, err := g.Login(ctx, session.LoginRequest{AppID: appA, Code: "bob", Presented: token})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t)
			token := g.cached("alice")
			g.store.Before = func(_ context.Context, op string) error {
				if op != "Lookup" && op != "Health" {
					g.accept(token)
					g.settle()
				}
				return nil
			}
			g.must(revoke(g, token))
			g.refuse(token, session.ErrInvalid)
		})
	}
}

// TestP3_LostAnswer: a revocation that the store carried out without being able to say so is an error to the caller, and no session is accepted from before it.
func TestP3_LostAnswer(t *testing.T) {
	ctx := context.Background()
	for name, revoke := range map[string]func(*gate, string) error{
		"login": func(g *gate, token string) error {
			r := request("code", phone)
			r.Presented = token
			_, err := g.Login(ctx, r)
			return err
		},
		"session": func(g *gate, token string) error { return g.Logout(ctx, token) },
		"log out": func(g *gate, token string) error { return logoutAll(ctx, g.Service, token) },
		"user":    func(g *gate, _ string) error { return g.RevokeUser(ctx, alice) },
		"forget":  func(g *gate, _ string) error { return g.Forget(ctx, alice) },
		"app":     func(g *gate, _ string) error { return g.RevokeApp(ctx, appA) },
		"all":     func(g *gate, _ string) error { return g.RevokeAll(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t)
			token := g.cached("alice")
			g.store.After = func(_ context.Context, op string) error {
				if op == "Lookup" || op == "Health" {
					return nil
				}
				return fmt.Errorf("%w: the answer got lost", store.ErrUnavailable)
			}
			if err := revoke(g, token); !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrInvalid) {
				t.Errorf("got %v", err)
			}
			g.refuse(token, session.ErrInvalid)
		})
	}
}
