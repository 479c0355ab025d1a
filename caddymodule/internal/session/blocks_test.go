package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var (
	byOpenID  = session.Blocked{AppID: appA, OpenID: "alice"}
	byUnionID = session.Blocked{Person: person("union")}
)

func (g *gate) block(who session.Blocked, until time.Time) {
	g.t.Helper()
	_, err := g.Block(context.Background(), session.Block{
		Blocked: who, Since: time.Now(), Until: until, Reason: "spam",
	})
	g.must(err)
}

// tries logs a user in and returns the error.
func (g *gate) tries(who, appID string) error {
	req := request(fmt.Sprint(who, "#", codes.Add(1)), phone)
	req.AppID = appID
	_, err := g.Login(context.Background(), req)
	return err
}

func (g *gate) checkTries(who, appID string, blocked bool) {
	g.t.Helper()
	err := g.tries(who, appID)
	if errors.Is(err, session.ErrBlocked) != blocked || (err == nil) == blocked {
		g.t.Errorf("%s in %s: %v", who, appID, err)
	}
}

// TestThreat50_Block_Users_AreKeptOut: a block ends the sessions of those it names, at every gate
// of a fleet, lets none of them in again, and leaves the others alone. It outlives
// Forget.
func TestThreat50_Block_Users_AreKeptOut(t *testing.T) {
	type login struct{ who, app string }
	everyone := []login{
		{"alice/union", appA},
		{"alice/union", appB},
		{"bob", appA},
		{"new/union", appB},
		{"other/another", appA},
	}
	for name, tt := range map[string]struct {
		who    session.Blocked
		out    []bool // of everyone
		forget func(*gate) error
	}{
		"openid": {
			byOpenID,
			[]bool{true, false, false, false, false},
			func(g *gate) error { return g.Forget(context.Background(), alice, endForgotten) },
		},
		"unionid": {
			byUnionID,
			[]bool{true, true, false, true, false},
			func(g *gate) error {
				_, err := g.ForgetUnionID(context.Background(), person("union"), endForgotten)
				return err
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			gates, _ := newFleet(t, 2)
			a, b := gates[0], gates[1]
			tokens := make(map[int]string)
			for i, l := range everyone[:3] { // the others log in for the first time later
				tokens[i] = a.login(l.who, inApp(l.app)).Token
				cacheAt(b, tokens[i])
			}
			a.block(tt.who, time.Time{})
			for i, token := range tokens {
				if tt.out[i] {
					a.refuse(token, session.ErrInvalid)
					b.refuse(token, session.ErrInvalid)
				} else {
					a.accept(token)
					b.accept(token)
				}
			}
			check := func() {
				t.Helper()
				for i, l := range everyone {
					a.checkTries(l.who, l.app, tt.out[i])
					b.checkTries(l.who, l.app, tt.out[i])
				}
			}
			check()
			a.must(tt.forget(a))
			b.reload(func(*session.Config) {})
			check()
			if _, err := a.User(t.Context(), alice); !errors.Is(err, session.ErrUnknownUser) {
				t.Errorf("a refused login made a user: %v", err)
			}
			held, err := b.Unblock(t.Context(), tt.who)
			if err != nil || !held {
				t.Errorf("unblock: %v, %v", held, err)
			}
			clear(tt.out)
			check()
		})
	}
}

// TestBlock_UnionIDLearntLate_IsCaught: from the record, where WeChat's answer does not
// tell it, and from open data, which ends the session.
func TestBlock_UnionIDLearntLate_IsCaught(t *testing.T) {
	p := newPlatform()
	g := newGate(t, on(p))
	token := g.cached("alice")
	g.block(session.Blocked{Person: person("found")}, time.Time{})
	g.accept(token) // what is not known cannot be blocked
	_, err := g.OpenData(t.Context(), alice, seal(p.key("alice"), object(alice, "found")))
	if !errors.Is(err, session.ErrBlocked) {
		t.Errorf("open data: %v", err)
	}
	g.refuse(token, session.ErrInvalid)
	g.checkTries("alice", appA, true)
	u, err := g.User(t.Context(), alice)
	g.must(err)
	for _, s := range u.Sessions {
		t.Errorf("the refused login left %+v", s)
	}
}

func TestBlock_Expired_IsNone(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		g := newGate(t)
		g.block(byOpenID, time.Now().Add(time.Hour))
		g.block(byUnionID, time.Now().Add(3*time.Hour))
		time.Sleep(time.Hour - time.Millisecond)
		g.checkTries("alice", appA, true)
		time.Sleep(time.Millisecond)
		g.checkTries("alice", appA, false)
		g.checkTries("alice/union", appA, true)
		if held, err := g.Unblock(t.Context(), byOpenID); held || err != nil {
			t.Errorf("unblock: %v, %v", held, err)
		}
		all, err := g.Blocks(t.Context())
		g.must(err)
		if len(all) != 1 || all[0].Blocked != byUnionID || all[0].Reason != "spam" {
			t.Errorf("blocks: %+v", all)
		}
		g.block(byUnionID, time.Now().Add(time.Hour)) // in place of the longer one
		time.Sleep(time.Hour)
		g.checkTries("alice/union", appA, false)
	})
}

// TestThreat50_Block_LoginMeanwhile_GetsNoSession: a block that is made at any step of a login
// stops it, or ends what it made; for a first login, too.
func TestThreat50_Block_LoginMeanwhile_GetsNoSession(t *testing.T) {
	for _, who := range []session.Blocked{byOpenID, byUnionID} {
		for _, known := range []bool{false, true} {
			for step := range 4 { // a fact, another, Login, a fact
				for _, after := range []bool{false, true} {
					g := newGate(t)
					if known {
						g.login("alice/union")
					}
					var mu sync.Mutex
					n := 0
					hook := func(_ context.Context, op string) error {
						mu.Lock()
						now := (op == "Fact" || op == "Login") && n == step
						if op == "Fact" || op == "Login" {
							n++
						}
						mu.Unlock()
						if now {
							g.block(who, time.Time{})
						}
						return nil
					}
					if after {
						g.store.After = hook
					} else {
						g.store.Before = hook
					}
					code := fmt.Sprint("alice/union#", codes.Add(1))
					l, err := g.Login(t.Context(), request(code, phone))
					g.store.Before, g.store.After = nil, nil
					switch {
					case errors.Is(err, session.ErrBlocked):
					case err != nil:
						t.Fatal(err)
					default:
						g.refuse(l.Token, session.ErrInvalid)
					}
				}
			}
		}
	}
}

// TestBlock_Parallel_NoneIsLost: gates that block at the same time keep each other's.
func TestBlock_Parallel_NoneIsLost(t *testing.T) {
	gates, _ := newFleet(t, 2)
	var wg sync.WaitGroup
	for i := range 600 {
		wg.Go(func() {
			gates[i%2].block(session.Blocked{Person: person(fmt.Sprint("u", i))}, time.Time{})
		})
	}
	wg.Wait()
	all, err := gates[0].Blocks(t.Context())
	if err != nil || len(all) != 600 {
		t.Errorf("%d blocks, %v", len(all), err)
	}
}

// TestP4_Block_StoreDown_IsUnavailable: an outage blocks no user, and lets none in.
func TestP4_Block_StoreDown_IsUnavailable(t *testing.T) {
	g := newGate(t)
	g.login("alice")
	for _, op := range []string{"Fact", "SetFact"} {
		g.store.Before = failing(op, store.ErrUnavailable)
		_, err := g.Block(t.Context(), session.Block{Blocked: byOpenID})
		unavailable(t, err)
	}
	g.store.Before = failing("Fact", store.ErrUnavailable)
	unavailable(t, g.tries("alice", appA))
	_, err := g.Blocks(t.Context())
	unavailable(t, err)
	g.store.Before = nil
	g.checkTries("alice", appA, false)
}

// TestBlock_DamagedRecord_IsAbsent: another writer of the store stops no login, and the
// next block replaces what it left.
func TestBlock_DamagedRecord_IsAbsent(t *testing.T) {
	g := newGate(t)
	for i := range 256 {
		g.store.Data.Facts[fmt.Sprintf("blocks %02x", i)] = []byte("{")
	}
	g.checkTries("alice", appA, false)
	g.block(byOpenID, time.Time{})
	g.checkTries("alice", appA, true)
	all, err := g.Blocks(t.Context())
	if err != nil || !slices.ContainsFunc(all, func(b session.Block) bool {
		return b.Blocked == byOpenID
	}) {
		t.Errorf("%+v, %v", all, err)
	}
}
