package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

const merchant = "wxcccccccccccccccc"

// grouped puts appB in a group of its own, beside appA without a name and a merchant.
func grouped(cc *session.CoreConfig, c *session.Config) {
	c.Groups = &session.Groups{Names: map[string]string{appA: "", appB: "b"}}
	c.Merchant = func(_ context.Context, appID string) (weixin.Credentials, error) {
		return weixin.Credentials{ID: appID}, nil
	}
}

// groupOf is the name of the group of each mini program of grouped.
var groupOf = map[string]string{appA: "", appB: "b", merchant: merchant}

func union(app string) session.Person {
	return session.Person{UnionID: "union", OpenPlatform: groupOf[app]}
}

// byUnion are the calls that end the sessions of a person.
var byUnion = map[string]func(*session.Service, session.Person) error{
	"revoke": func(s *session.Service, who session.Person) error {
		_, err := s.RevokeUnionID(context.Background(), who, endRevoked)
		return err
	},
	"forget": func(s *session.Service, who session.Person) error {
		_, err := s.ForgetUnionID(context.Background(), who, endForgotten)
		return err
	},
	"block": func(s *session.Service, who session.Person) error {
		_, err := s.Block(context.Background(), session.Block{
			Blocked: session.Blocked{Person: who}, Since: time.Now(),
		})
		return err
	},
}

// TestGroups_SameUnionID_StaysWithin: what one account calls by a unionid is nothing to
// the users of another account, or of a merchant, who have the same unionid.
func TestGroups_SameUnionID_StaysWithin(t *testing.T) {
	for name, end := range byUnion {
		for app := range groupOf {
			t.Run(name+" "+groupOf[app], func(t *testing.T) {
				gates, _ := newFleet(t, 2, grouped)
				a, b := gates[0], gates[1]
				tokens := make(map[string]string)
				for other := range groupOf {
					tokens[other] = a.login("alice/union", inApp(other)).Token
					cacheAt(b, tokens[other])
				}
				users, err := a.UsersByUnionID(t.Context(), union(app))
				if err != nil || len(users) != 1 || users[0].AppID != app {
					t.Errorf("listed %+v, %v", users, err)
				}
				a.must(end(a.Service, union(app)))
				for other, token := range tokens {
					for _, g := range gates {
						if other == app {
							g.refuse(token, session.ErrInvalid)
						} else {
							g.accept(token)
						}
						g.checkTries("alice/union", other, name == "block" && other == app)
					}
				}
				for other := range groupOf {
					who := session.Blocked{Person: union(other)}
					held, err := b.Unblock(t.Context(), who)
					if err != nil || held != (name == "block" && other == app) {
						t.Errorf("unblock in %q: %v, %v", groupOf[other], held, err)
					}
				}
				b.checkTries("alice/union", app, false)
			})
		}
	}
}

// TestGroups_None_OldBlockHolds: a block of before there were groups holds for the mini
// programs without a name.
func TestGroups_None_OldBlockHolds(t *testing.T) {
	g := newGate(t)
	g.block(byUnionID, time.Time{})
	g.checkTries("alice/union", appB, true)
	g.reload(func(c *session.Config) { grouped(nil, c) })
	g.checkTries("alice/union", appA, true)
	g.checkTries("alice/union", appB, false)
	g.checkTries("alice/union", merchant, false)
}

// TestP3_Groups_PendingRevocation_StaysWithin: one that the store takes late, and that
// is repeated after a failover, ends the sessions of its group only.
func TestP3_Groups_PendingRevocation_StaysWithin(t *testing.T) {
	for app := range groupOf {
		bubble(t, groupOf[app], func(t *testing.T) {
			gates, links := newFleet(t, 2, grouped)
			a, b := gates[0], gates[1]
			tokens := make(map[string]string)
			for other := range groupOf {
				tokens[other] = a.login("alice/union", inApp(other)).Token
				cacheAt(a, tokens[other])
			}
			check := func(at *gate) {
				t.Helper()
				for other, token := range tokens {
					if other == app {
						at.refuse(token, session.ErrInvalid)
					} else {
						at.accept(token)
					}
				}
			}
			saved := links[0].Data.Save()
			links[0].SetDown(true)
			err := byUnion["revoke"](a.Service, union(app))
			if !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("revoked: %v", err)
			}
			a.wantPending(1)
			check(a)
			time.Sleep(10 * time.Second)
			links[0].SetDown(false)
			time.Sleep(5 * time.Second)
			a.wantPending(0)
			check(a)
			check(b)
			failover(saved, time.Second, links...)
			time.Sleep(2 * time.Second)
			a.wantPending(0)
			check(a)
			check(b)
		})
	}
}

// TestP3_UnionID_AllMiniPrograms: a unionid finds the users of all mini programs, and
// ends their sessions at once. Forget leaves nothing of them. No other user notices.
func TestP3_UnionID_AllMiniPrograms(t *testing.T) {
	for name, end := range map[string]func(
		*session.Service, context.Context, session.Person, session.Reason,
	) (int, error){
		"revoke": (*session.Service).RevokeUnionID, "forget": (*session.Service).ForgetUnionID,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, g := t.Context(), newGate(t)
			elsewhere := func(who string) string { return g.login(who, inApp(appB)).Token }
			gone := []string{g.cached("alice/union"), g.cached("alice"), elsewhere("other/union")}
			keep := []string{g.cached("bob/another"), g.cached("carol"), elsewhere("alice")}
			for _, nobody := range []string{"", "unio", "nobody"} {
				users, err := g.UsersByUnionID(ctx, person(nobody))
				if len(users) != 0 || err != nil {
					t.Errorf("%q: %v, %v", nobody, users, err)
				}
				n, err := end(g.Service, ctx, person(nobody), endRevoked)
				if n != 0 || err != nil {
					t.Errorf("%q: %d, %v", nobody, n, err)
				}
			}
			for _, token := range gone {
				g.accept(token)
			}
			g.settle()
			var found []string
			users, err := g.UsersByUnionID(ctx, person("union"))
			g.must(err)
			for _, u := range users {
				found = append(found, fmt.Sprint(u.AppID, u.OpenID, u.UnionID, len(u.Sessions)))
			}
			slices.Sort(found)
			want := []string{appA + "aliceunion2", appB + "otherunion1"}
			if !slices.Equal(found, want) {
				t.Errorf("found %v, want %v", found, want)
			}
			if n, err := end(g.Service, ctx, person("union"), endRevoked); n != 2 || err != nil {
				t.Fatalf("%d users, %v", n, err)
			}
			for _, token := range gone {
				g.refuse(token, session.ErrInvalid)
			}
			for _, token := range keep {
				g.accept(token)
			}
			for _, id := range []session.User{alice, {AppID: appB, OpenID: "other"}} {
				_, err := g.User(ctx, id)
				if errors.Is(err, session.ErrUnknownUser) != (name == "forget") {
					t.Errorf("%v: %v", id, err)
				}
			}
			if u, err := g.User(ctx, user("bob")); err != nil || u.UnionID != "another" {
				t.Errorf("known of somebody else is %+v, %v", u, err)
			}
		})
	}
}

// TestRevokeUnionID_OneFails_OthersEnd: and the caller hears of it.
func TestRevokeUnionID_OneFails_OthersEnd(t *testing.T) {
	g := newGate(t)
	g.login("alice/union")
	g.login("other/union", inApp(appB))
	failed := false
	g.store.Before = func(_ context.Context, op string) error {
		if op != "RevokeUser" || failed {
			return nil
		}
		failed = true
		return store.ErrUnavailable
	}
	n, err := g.RevokeUnionID(t.Context(), person("union"), endRevoked)
	if unavailable(t, err); n != 1 {
		t.Errorf("%d users", n)
	}
	if n, err := g.RevokeUnionID(t.Context(), person("union"), endRevoked); n != 2 || err != nil {
		t.Errorf("again: %d users, %v", n, err)
	}
}
