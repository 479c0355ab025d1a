package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

const (
	lineDone     = "revocation carried out after all"
	lineGivenUp  = "revocation given up"
	lineRepeated = "repeating revocations after a loss of contact"
)

// observed makes a gate log to memory.
func observed() (option, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return withCore(func(c *session.CoreConfig) { c.Logger = zap.New(core) }), logs
}

func (g *gate) pending() int {
	st, _ := g.Stats(context.Background())
	return st.Pending
}

func (g *gate) wantPending(want int) {
	g.t.Helper()
	if n := g.pending(); n != want {
		g.t.Errorf("%d revocations are pending, want %d", n, want)
	}
}

// TestP4_Revocation_StoreFails_IsRetried: a revocation that the store does not
// take is an error. The gate refuses what it names all the same, and nothing
// else, and makes it durable as soon as the store lets it, with one log line.
// Sessions made in between live on, as far as the store can tell them apart.
func TestP4_Revocation_StoreFails_IsRetried(t *testing.T) {
	faults := map[string]func(*memstore.Store, bool){
		"down": (*memstore.Store).SetDown, "full": (*memstore.Store).SetReadOnly,
	}
	for _, name := range revocations {
		for what, fault := range faults {
			bubble(t, name+" "+what, func(t *testing.T) {
				logger, logs := observed()
				g := newGate(t, logger)
				cold := g.login("alice/union").Token
				l := g.login("alice/union")
				cacheAt(g, l.Token)
				bystander := g.login("bob", inApp(appB)).Token
				cacheAt(g, bystander)
				fault(g.store, true)
				unavailable(t, endings[name](g, l))
				g.wantPending(1)
				for range 10 {
					g.refuse(l.Token, session.ErrRevoked)
					switch {
					case what == "down":
						g.refuse(cold, session.ErrUnavailable)
					case name == "session":
						g.accept(cold)
					default:
						g.refuse(cold, session.ErrRevoked)
					}
					if name != "all" {
						g.accept(bystander)
					}
					time.Sleep(10 * time.Second)
				}
				if logs.FilterMessage(lineDone).Len()+logs.FilterMessage(lineGivenUp).Len() != 0 {
					t.Errorf("too early: %v", logs.All())
				}

				fault(g.store, false)
				g.refuse(l.Token, session.ErrRevoked)
				since := g.login("alice").Token // before the gate retries
				time.Sleep(2 * time.Second)
				g.wantPending(0)
				lines := logs.FilterMessage(lineDone).All()
				if len(lines) != 1 || lines[0].ContextMap()["target"] == "" {
					t.Fatalf("logged %v", lines)
				}
				for _, at := range []*gate{g, newNode(g)} { // which knows only what is durable
					at.refuse(l.Token, session.ErrInvalid)
					if name != "session" {
						at.refuse(cold, session.ErrInvalid)
					}
					if name != "all" {
						at.accept(bystander)
					}
					if name != "all" && name != "app" {
						at.accept(since)
					}
				}
				g.accept(g.login("alice").Token)
			})
		}
	}
}

// TestP3_Revocation_OtherClockAhead_IsCovered: a pending revocation covers a
// session of another gate whose clock is a little ahead, or far.
func TestP3_Revocation_OtherClockAhead_IsCovered(t *testing.T) {
	for _, name := range revocations {
		for _, by := range []time.Duration{900 * time.Millisecond, time.Hour} {
			testOtherClockAhead(t, name, by)
		}
	}
}

func testOtherClockAhead(t *testing.T, name string, by time.Duration) {
	bubble(t, fmt.Sprint(name, " ", by), func(t *testing.T) {
		gates, links := newFleet(t, 2)
		a, b := gates[0], gates[1]
		data := links[1].Data
		l := later(a, data, a.login("alice/union"), by)
		cacheAt(b, l.Token)
		ahead := later(a, data, a.login("alice"), by)
		links[1].SetDown(true)
		unavailable(t, endings[name](b, l))
		links[1].SetDown(false)
		b.refuse(l.Token, session.ErrRevoked)
		if name != "session" {
			b.refuse(ahead.Token, session.ErrRevoked)
		}
		a.accept(l.Token)
		time.Sleep(2 * time.Second)
		a.refuse(l.Token, session.ErrInvalid)
		if name != "session" {
			a.refuse(ahead.Token, session.ErrInvalid)
		}
	})
}

// later makes a session seem to be made later.
func later(g *gate, d *memstore.Data, l session.Login, by time.Duration) session.Login {
	d.Lock()
	defer d.Unlock()
	was := l.Digest
	s := d.Sessions[was]
	delete(d.Sessions, was)
	s.Created = s.Created.Add(by)
	l.Token = g.keys.Mint(keyring.Holder{
		User: keyring.User(s.User), Created: s.Created, Expires: s.Expires,
	})
	l.Digest = session.DigestOf(l.Token)
	d.Sessions[l.Digest] = s
	refs := d.Users[s.User].Sessions
	i := slices.IndexFunc(refs, func(r store.SessionRef) bool { return r.Digest == was })
	refs[i].Digest, refs[i].Created = l.Digest, s.Created
	return l
}

// TestUser_PendingRevocation_IsShown: an operator sees what a check says.
func TestUser_PendingRevocation_IsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		l := g.login("alice")
		g.store.SetReadOnly(true)
		unavailable(t, g.Logout(t.Context(), l.Token))
		time.Sleep(time.Millisecond)
		u, err := g.User(t.Context(), alice)
		g.must(err)
		wantStates(t, u, session.StateRevoked)
	})
}

// TestRevocation_DoneMeanwhile_IsNotRetried: a pending revocation that is asked
// for again and done, or that a wider one includes, ends no session made since.
func TestRevocation_DoneMeanwhile_IsNotRetried(t *testing.T) {
	otherApp := func(g *gate, _ session.Login) error {
		return g.RevokeApp(context.Background(), appB)
	}
	otherUser := func(g *gate, _ session.Login) error {
		return g.RevokeUser(context.Background(), user("bob"), endRevoked)
	}
	for name, tt := range map[string]struct {
		failed string
		done   func(*gate, session.Login) error
		left   int
	}{
		"session":            {"session", endings["session"], 0},
		"user":               {"user", endings["user"], 0},
		"app":                {"app", endings["app"], 0},
		"all":                {"all", endings["all"], 0},
		"unionid":            {"unionid", endings["unionid"], 0},
		"user by app":        {"user", endings["app"], 0},
		"unionid by all":     {"unionid", endings["all"], 0},
		"app by user":        {"app", endings["user"], 1},
		"user by other app":  {"user", otherApp, 1},
		"user by other user": {"user", otherUser, 1},
	} {
		bubble(t, name, func(t *testing.T) {
			g := newGate(t)
			l := g.login("alice/union")
			g.store.SetDown(true)
			unavailable(t, endings[tt.failed](g, l))
			unavailable(t, endings[tt.failed](g, l)) // twice is once
			g.store.SetDown(false)
			g.must(tt.done(g, l))
			g.wantPending(tt.left)
			time.Sleep(time.Millisecond)
			since := g.login("alice/union").Token
			g.accept(since)
			time.Sleep(10 * time.Second)
			if tt.left == 0 {
				g.accept(since)
			}
			g.refuse(l.Token, session.ErrInvalid)
		})
	}
}

// TestRevocation_FailsAgain_CoversWhatWasMadeSince: the later of two that fail
// counts.
func TestRevocation_FailsAgain_CoversWhatWasMadeSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		first := g.login("alice").Token
		g.store.Before = failing("RevokeUser", store.ErrUnavailable)
		unavailable(t, g.RevokeUser(t.Context(), alice, endRevoked))
		time.Sleep(time.Second)
		second := g.login("alice").Token
		g.refuse(first, session.ErrRevoked)
		g.accept(second)
		unavailable(t, g.RevokeUser(t.Context(), alice, endRevoked))
		g.refuse(second, session.ErrRevoked)
	})
}

// TestRevocation_FailsAgainAtTheSameTime_IsKept: one that fails again just when
// the store takes its predecessor is not dropped with it.
func TestRevocation_FailsAgainAtTheSameTime_IsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		g.login("alice")
		var since string
		var again atomic.Bool
		g.store.After = at("RevokeUser", func(context.Context) error {
			if again.CompareAndSwap(false, true) {
				time.Sleep(time.Millisecond)
				since = g.cached("alice")
				g.store.SetDown(true)
				unavailable(t, g.RevokeUser(t.Context(), alice, endRevoked))
			}
			return nil
		})
		g.store.SetDown(true)
		unavailable(t, g.RevokeUser(t.Context(), alice, endRevoked))
		g.store.SetDown(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		g.store.SetDown(false)
		g.refuse(since, session.ErrRevoked)
		time.Sleep(3 * time.Second)
		g.refuse(since, session.ErrInvalid)
		g.wantPending(0)
	})
}

// TestRevocation_NeverTaken_IsGivenUp: when all that it covers has expired, and
// when the gate closes, which it does not hold up.
func TestRevocation_NeverTaken_IsGivenUp(t *testing.T) {
	const ttl = 10 * time.Minute
	for name, closes := range map[string]bool{"expired": false, "closed": true} {
		bubble(t, name, func(t *testing.T) {
			logger, logs := observed()
			g := newGate(t, logger, with(func(c *session.Config) { c.TTL = ttl }))
			g.reload(func(c *session.Config) { c.TTL = time.Minute }) // for sessions to come
			g.store.SetDown(true)
			unavailable(t, g.RevokeUser(t.Context(), alice, endRevoked))
			unavailable(t, g.RevokeAll(t.Context()))
			if closes {
				began := time.Now()
				g.must(g.core.Close())
				if time.Since(began) != 0 {
					t.Errorf("closed after %v", time.Since(began))
				}
			} else {
				time.Sleep(ttl - time.Second)
				g.wantPending(2)
				time.Sleep(3 * time.Second)
				g.wantPending(0)
			}
			lines := logs.FilterMessage(lineGivenUp).All()
			if len(lines) != 2 {
				t.Fatalf("logged %v", lines)
			}
			fields := lines[0].ContextMap()
			if lines[0].Level != zap.ErrorLevel || fields["openid"] != "alice" ||
				fields["expired"] == closes {
				t.Errorf("logged %v", lines)
			}
		})
	}
}

// TestRevocation_Retries_AreSeldomAndFair: the gate asks a store that is down
// seldom, and for one revocation at a time. One that fails does not hold up the
// others.
func TestRevocation_Retries_AreSeldomAndFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		for i := range 20 {
			g.login(fmt.Sprint("user", i))
		}
		var fails, failed atomic.Int32 // whether it does, and how often it did
		g.store.Before = at("RevokeUser", func(context.Context) error {
			if fails.Load() == 0 {
				return nil
			}
			if failed.Add(1) == 1 {
				panic("a bug")
			}
			return store.ErrUnavailable
		})
		g.store.SetDown(true)
		for i := range 20 {
			unavailable(t, g.RevokeUser(t.Context(), user(fmt.Sprint("user", i)), endRevoked))
		}
		if n := g.asks(func() { time.Sleep(time.Minute) }); n > 70 || n < 50 {
			t.Errorf("asked %d times in a minute", n)
		}
		unavailable(t, g.Logout(t.Context(), g.keys.Mint(nobody))) // the last in the row
		fails.Store(1)
		g.store.SetDown(false)
		time.Sleep(time.Minute)
		g.wantPending(20)
		fails.Store(0)
		time.Sleep(3 * time.Second)
		g.wantPending(0)
	})
}

// TestRevocation_TooMany_AreOnlyReported: the memory is bounded.
func TestRevocation_TooMany_AreOnlyReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		token := g.cached("alice")
		g.store.SetDown(true)
		for i := range session.MaxPending {
			unavailable(t, g.RevokeUser(t.Context(), user(fmt.Sprint("user", i)), endRevoked))
		}
		unavailable(t, g.RevokeUser(t.Context(), alice, endRevoked))
		g.store.SetDown(false)
		g.accept(token)
		g.wantPending(session.MaxPending)
		g.store.SetDown(true)
		unavailable(t, g.RevokeUser(t.Context(), user("user7"), endRevoked)) // is there already
		g.store.SetDown(false)
		time.Sleep(3 * time.Second)
		g.wantPending(0)
		g.accept(token)
	})
}

// TestRevocation_OtherError_IsNotRetried: only the want of a store is.
func TestRevocation_OtherError_IsNotRetried(t *testing.T) {
	g := newGate(t)
	g.store.Before = at("RevokeUser", func(context.Context) error { return store.ErrDamaged })
	if err := g.RevokeUser(t.Context(), alice, endRevoked); !errors.Is(err, store.ErrDamaged) {
		t.Error(err)
	}
	g.wantPending(0)
}

// failover makes the data what they were when saved was taken. The gates hear
// of it as of a new server after an outage.
func failover(saved memstore.Records, outage time.Duration, gates ...*memstore.Shared) {
	for _, s := range gates {
		s.SetReports(memstore.Lost)
	}
	time.Sleep(outage)
	gates[0].Data.Restore(saved)
	for _, s := range gates {
		s.Reconnect()
	}
}

// TestP3_LostRevocation: a gate ends again, at all gates, what a failover
// brings back of the sessions that it ended. Sessions made since live on, as
// far as the revocation can tell them apart.
func TestP3_LostRevocation(t *testing.T) {
	for name, end := range endings {
		if name == "presented" || name == "max per user" {
			continue // no revocations: a login that is lost loses what it ended
		}
		bubble(t, name, func(t *testing.T) {
			logger, logs := observed()
			gates, links := newFleet(t, 2, logger)
			a, b := gates[0], gates[1]
			data := links[0].Data
			l := a.login("alice/union")
			bystander := b.login("bob", inApp(appB)).Token
			saved := data.Save()
			time.Sleep(time.Millisecond)
			a.must(end(a, l))
			a.refuse(l.Token, session.ErrInvalid)
			b.refuse(l.Token, session.ErrInvalid)
			time.Sleep(10 * time.Second)
			failover(saved, time.Minute, links...)
			a.refuse(l.Token, session.ErrInvalid) // at once, where it was ended
			since := b.login("alice/union").Token
			time.Sleep(2 * time.Second)
			for _, g := range gates {
				g.refuse(l.Token, session.ErrInvalid)
				if name != "all" {
					g.accept(bystander)
				}
				if name != "all" && name != "app" {
					g.accept(since)
				}
			}
			if logs.FilterMessage(lineRepeated).Len() != 1 ||
				logs.FilterMessage(lineDone).Len() != 0 {
				t.Errorf("logged %v", logs.All())
			}
			a.wantPending(0)

			// A revocation on its way to the old server is lost with it, too.
			late := b.login("alice/union")
			saved = data.Save()
			failover(saved, 0, links...)
			time.Sleep(time.Second)
			a.must(end(a, late))
			data.Restore(saved)
			time.Sleep(6 * time.Second)
			a.refuse(late.Token, session.ErrInvalid)

			// Later there is nothing to repeat.
			time.Sleep(time.Minute)
			logs.TakeAll()
			after := b.login("alice/union").Token
			failover(data.Save(), 0, links...)
			time.Sleep(2 * time.Second)
			a.accept(after)
			if n := logs.FilterMessage(lineRepeated).Len(); n != 0 {
				t.Errorf("%d lines after a minute", n)
			}
		})
	}
}

// TestP3_LostRevocations_Many: each is repeated once, and a store that is down
// for longer is waited for.
func TestP3_LostRevocations_Many(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gates, links := newFleet(t, 1)
		g := gates[0]
		var tokens []string
		for i := range session.MaxPending + 100 { // which does not bound them
			tokens = append(tokens, g.login(fmt.Sprint("user", i%50)).Token)
		}
		saved := links[0].Data.Save()
		for _, token := range tokens {
			g.must(g.Logout(context.Background(), token))
		}
		g.store.SetDown(true)
		failover(saved, 0, links...)
		time.Sleep(20 * time.Second)
		g.store.SetDown(false)
		before := g.store.Count("End")
		time.Sleep(10 * time.Second)
		if n := g.store.Count("End") - before; n < len(tokens) || n > len(tokens)+1 {
			t.Errorf("%d are repeated", n)
		}
		g.wantPending(0)
		for _, token := range tokens {
			g.refuse(token, session.ErrInvalid)
		}
	})
}

// TestP3_LostRevocation_TakenLate_IsRepeated: a pending revocation that the store takes
// late may be lost in a failover, too.
func TestP3_LostRevocation_TakenLate_IsRepeated(t *testing.T) {
	for _, name := range revocations {
		bubble(t, name, func(t *testing.T) {
			gates, links := newFleet(t, 2)
			a, b := gates[0], gates[1]
			l := a.login("alice/union")
			saved := links[0].Data.Save()
			links[0].SetDown(true)
			unavailable(t, endings[name](a, l))
			time.Sleep(time.Minute)
			links[0].SetDown(false)
			time.Sleep(5 * time.Second)
			a.wantPending(0)
			b.refuse(l.Token, session.ErrInvalid)
			failover(saved, time.Second, links...)
			time.Sleep(2 * time.Second)
			b.refuse(l.Token, session.ErrInvalid)
			a.wantPending(0)
		})
	}
}
