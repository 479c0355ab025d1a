package session_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
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
