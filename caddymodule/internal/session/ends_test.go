package session_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// TestEnds_EachReason_IsLoggedOnceAndOnRecord: "why was I logged out?" has an answer,
// which a token that is presented again and again does not repeat.
func TestEnds_EachReason_IsLoggedOnceAndOnRecord(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		why string
		end func(*gate, session.Login)
	}{
		{"logout", func(g *gate, l session.Login) { g.must(g.Logout(ctx, l.Token)) }},
		{"revoked", func(g *gate, l session.Login) {
			g.must(g.EndByID(ctx, alice, idOf(l), endRevoked))
		}},
		{"revoked_by_app", func(g *gate, l session.Login) {
			g.must(g.RevokeUser(ctx, alice, session.EndByApp))
		}},
		{"revoked", func(g *gate, _ session.Login) {
			g.must(g.RevokeApp(ctx, appA))
		}},
		{"revoked", func(g *gate, l session.Login) { g.must(g.RevokeAll(ctx)) }},
		{"blocked", func(g *gate, l session.Login) {
			who := session.Blocked{AppID: appA, OpenID: "alice"}
			_, err := g.Block(ctx, session.Block{Blocked: who, Until: time.Now().Add(time.Second)})
			g.must(err)
		}},
		{"evicted", func(g *gate, l session.Login) {
			for range 3 {
				time.Sleep(2 * time.Minute)
				g.login("alice")
			}
		}},
		{"replaced", func(g *gate, l session.Login) {
			g.login("alice", func(r *session.LoginRequest) { r.Presented = l.Token })
			time.Sleep(2 * time.Minute)
		}},
		{"idle", func(*gate, session.Login) { time.Sleep(61 * time.Minute) }},
		{"expired", func(g *gate, l session.Login) {
			for range 9 {
				g.accept(l.Token)
				time.Sleep(20*time.Minute + time.Second)
			}
		}},
	} {
		for _, cached := range []bool{false, true} {
			bubble(t, tt.why, func(t *testing.T) {
				core, logs := observer.New(zap.DebugLevel)
				g := newGate(t, with(func(c *session.Config) {
					c.TTL, c.Idle, c.MaxPerUser = 3*time.Hour, time.Hour, 3
				}), withCore(func(c *session.CoreConfig) { c.Audit = zap.New(core) }))
				l := g.login("alice")
				if cached {
					cacheAt(g, l.Token)
				}
				tt.end(g, l)
				for range 3 {
					g.refuse(l.Token, session.ErrInvalid)
					synctest.Wait()
				}
				lines := logs.Filter(func(e observer.LoggedEntry) bool {
					return e.ContextMap()["session"] == idOf(l)
				})
				if lines.Len() != 1 {
					t.Fatalf("the lines are %v", logs.All())
				}
				line := lines.All()[0]
				if f := line.ContextMap(); line.Message != "session ended" || f["appid"] != appA ||
					f["openid"] != "alice" || f["reason"] != tt.why {
					t.Errorf("the line is %v", line)
				}
				u, err := g.User(ctx, alice)
				g.must(err)
				i := slices.IndexFunc(u.Ends, func(e session.EndInfo) bool {
					return e.ID == idOf(l) && e.Reason == tt.why && !e.Ended.After(time.Now())
				})
				if i < 0 {
					t.Errorf("the ends on record are %+v", u.Ends)
				}
			})
		}
	}
}

// An end that the store does not take is noted when the token comes again.
func TestEnds_StoreFull_IsNotedLater(t *testing.T) {
	bubble(t, "idle", func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		g := newGate(t, with(func(c *session.Config) { c.Idle = time.Hour }),
			withCore(func(c *session.CoreConfig) { c.Audit = zap.New(core) }))
		l := g.login("alice")
		time.Sleep(61 * time.Minute)
		for _, full := range []bool{true, false, false} {
			g.store.SetReadOnly(full)
			g.refuse(l.Token, session.ErrExpired)
			synctest.Wait()
			if n := logs.Len(); n == 1 == full {
				t.Errorf("store full: %v, %d lines", full, n)
			}
		}
	})
}
