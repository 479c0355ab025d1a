package session_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// cacheAt checks a token at a gate until its cache holds the session.
func cacheAt(g *gate, token string) {
	g.t.Helper()
	g.accept(token)
	g.settle()
	if n := g.asks(func() { g.accept(token) }); n != 0 {
		g.t.Fatal("the cache does not hold the session: this test shows nothing")
	}
}

// TestP3_Fleet_Ended_IsRefusedElsewhere: with the report of it, or, while
// reports do not come, as soon as the last one is older than max_staleness. The
// same holds after lost reports.
func TestP3_Fleet_Ended_IsRefusedElsewhere(t *testing.T) {
	for name, end := range endings {
		for label, how := range map[string]memstore.Reports{
			"reported": memstore.Come, "slow": memstore.Slow, "lost": memstore.Lost,
		} {
			for _, heals := range []bool{true, false} {
				bubble(t, fmt.Sprint(name, " ", label, " ", heals), func(t *testing.T) {
					two := with(func(c *session.Config) { c.MaxPerUser = 2 })
					gates, links := newFleet(t, 2, two)
					a, b := gates[0], gates[1]
					l := a.login("alice/union")
					bystander := a.login("bob/another", inApp(appB)).Token
					cacheAt(b, l.Token)
					cacheAt(b, bystander)
					time.Sleep(time.Hour / 60)
					links[1].SetReports(how)
					a.must(end(a, l))
					a.refuse(l.Token, session.ErrInvalid)
					if how != memstore.Come {
						time.Sleep(staleness)
						b.accept(l.Token)
						if heals {
							links[1].SetReports(memstore.Come)
						} else {
							time.Sleep(1 * time.Nanosecond)
						}
					}
					b.refuse(l.Token, session.ErrInvalid)
					if name != "all" {
						b.accept(bystander)
					}
				})
			}
		}
	}
}

// TestP3_Fleet_ReportDuringCheck_Counts: the gate asks Heard before it reads
// the marks, or a check between the two misses a report.
func TestP3_Fleet_ReportDuringCheck_Counts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gates, links := newFleet(t, 2)
		a, b := gates[0], gates[1]
		token := a.login("alice").Token
		cacheAt(b, token)
		links[1].SetReports(memstore.Slow)
		a.must(a.Logout(t.Context(), token))
		time.Sleep(2 * staleness)
		// As if the connection came back in this instant.
		links[1].OnHeard = func() { links[1].SetReports(memstore.Come) }
		b.refuse(token, session.ErrUnknown)
	})
}

// TestThreat20_Fleet_PresentedToken_IsOver: at that gate, also when another
// gate has ended it before and the report is lost.
func TestThreat20_Fleet_PresentedToken_IsOver(t *testing.T) {
	gates, links := newFleet(t, 2)
	a, b := gates[0], gates[1]
	l := a.login("alice")
	cacheAt(b, l.Token)
	links[1].SetReports(memstore.Lost)
	a.must(a.Logout(t.Context(), l.Token))
	b.accept(l.Token)
	present(b, l.Token)
	b.refuse(l.Token, session.ErrUnknown)
}

// TestP11_PresentedToken_HoldsForGrace: slow calls that are under way with the old
// token go on, at every gate. Then it is over, cached or not, told or not.
func TestP11_PresentedToken_HoldsForGrace(t *testing.T) {
	for label, how := range map[string]memstore.Reports{
		"reported": memstore.Come, "slow": memstore.Slow, "lost": memstore.Lost,
	} {
		bubble(t, label, func(t *testing.T) {
			gates, links := newFleet(t, 2)
			a, b := gates[0], gates[1]
			l := a.login("alice")
			cacheAt(a, l.Token)
			cacheAt(b, l.Token)
			time.Sleep(time.Minute)
			links[1].SetReports(how)
			began := time.Now()
			first := present(a, l.Token)
			a.accept(first)
			time.Sleep(store.Grace / 2)
			second := present(a, l.Token) // again, which does not make it live longer
			for _, g := range gates {
				cacheAt(g, l.Token)
			}
			time.Sleep(store.Grace/2 - 2*time.Millisecond)
			a.accept(l.Token)
			b.accept(l.Token)
			if id, err := a.Authenticate(t.Context(), l.Token); err != nil ||
				id.Expires.After(began.Add(store.Grace)) {
				t.Errorf("%v, until %v", err, id.Expires)
			}
			time.Sleep(2 * time.Millisecond)
			for _, g := range gates {
				g.refuse(l.Token, session.ErrInvalid)
				g.accept(second)
			}
			b.accept(first)
		})
	}
}

func TestMaxStaleness_Exceeded_AsksTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gates, links := newFleet(t, 1)
		g := gates[0]
		token := g.login("alice").Token
		cacheAt(g, token)
		staleAfter := func(d time.Duration) {
			g.reload(func(c *session.Config) { c.MaxStaleness = d })
		}
		asks := func(want int) {
			t.Helper()
			if n := g.asks(func() { g.accept(token) }); n != want {
				t.Errorf("the store was asked %d times, want %d", n, want)
			}
		}
		staleAfter(0)
		asks(1)
		staleAfter(staleness)
		asks(0)
		links[0].SetReports(memstore.Lost)
		time.Sleep(staleness + 1)
		asks(1)
		staleAfter(staleness + 1)
		asks(0)
		links[0].Until = time.Time{} // as at the start
		asks(1)
		if st, err := g.Stats(t.Context()); err != nil || !st.Heard.IsZero() {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

// TestP4_Fleet_StoreDown_CachedForMaxStaleness: all else is unavailable,
// nothing is invalid, and all is well when the store is back.
func TestP4_Fleet_StoreDown_CachedForMaxStaleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, logged := watch(t, nil)
		gates, links := newFleet(t, 2, logger)
		g, link := gates[0], links[0]
		cached, cold := g.login("alice").Token, g.login("bob").Token
		cacheAt(g, cached)
		link.SetReports(memstore.Lost)
		link.SetDown(true)
		for range 30 {
			g.accept(cached)
			g.refuse(cold, session.ErrUnavailable)
			_, err := g.Login(t.Context(), request("carol", phone))
			unavailable(t, err)
			time.Sleep(time.Second)
		}
		calls := g.wechat.calls.Load()
		time.Sleep(1 * time.Nanosecond)
		for range 5 {
			g.refuse(cached, session.ErrUnavailable)
			g.refuse(cold, session.ErrUnavailable)
			time.Sleep(time.Hour / 6)
		}
		if n := g.wechat.calls.Load(); n != calls || n != 2 {
			t.Errorf("WeChat was called %d times: a code is spent", n)
		}
		logged(lineDown)
		link.SetDown(false)
		link.SetReports(memstore.Come)
		g.accept(cached)
		g.accept(cold)
		g.login("carol")
		logged(lineBack)
	})
}

// TestThreat25_Fleet_OneCode_OneSession: several clients send one code to two
// gates at once. WeChat answers the first exchange only. The others hear that
// the code is used, which makes a client ask for another.
func TestThreat25_Fleet_OneCode_OneSession(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	w := new(onceOnly)
	gates, _ := newFleet(t, 2, with(func(c *session.Config) { c.WeChat = w }))
	for i := range rounds {
		code := fmt.Sprint("alice#", codes.Add(1))
		var mu sync.Mutex
		tokens, first := make(map[string]int), 0
		var wg sync.WaitGroup
		for at, g := range gates {
			for range 3 {
				wg.Go(func() {
					l, err := g.Login(t.Context(), request(code, phone))
					if err != nil {
						wantClass(t, err, weixin.ClassCodeUsed)
					}
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						tokens[fmt.Sprint(at, l.Token)]++
					}
					if err == nil && !l.Replayed {
						first++
					}
				})
			}
		}
		wg.Wait()
		if len(tokens) != 1 || first != 1 {
			t.Fatalf("round %d: %d sessions of one code", i, len(tokens))
		}
	}
}

// TestP4_Fleet_StoreStalls_SpendsNoCode: the gate refuses a login in time and
// does not ask WeChat, whatever of its calls took effect at the store. So the
// code is as good as before, at either gate.
func TestP4_Fleet_StoreStalls_SpendsNoCode(t *testing.T) {
	hang := func(ctx context.Context, _ string) error { return hang(ctx) }
	refuse := func(context.Context, string) error { return store.ErrUnavailable }
	for name, tt := range map[string]struct {
		before, after func(context.Context, string) error
	}{
		"no call takes effect":           {before: hang},
		"calls take effect, then hang":   {after: hang},
		"no call is taken":               {before: refuse},
		"calls take effect, answer lost": {after: refuse},
	} {
		for retryAt := range 2 {
			bubble(t, fmt.Sprint(name, ", retry at gate ", retryAt), func(t *testing.T) {
				w := new(onceOnly)
				gates, _ := newFleet(t, 2, with(func(c *session.Config) { c.WeChat = w }))
				g := gates[0]
				g.store.Before, g.store.After = tt.before, tt.after
				began := time.Now()
				for range 3 {
					_, err := g.Login(t.Context(), request("alice", phone))
					unavailable(t, err)
				}
				if took, n := time.Since(began), w.calls.Load(); took > 3*time.Second || n != 0 {
					t.Errorf("refused after %v and %d calls to WeChat", took, n)
				}
				g.store.Before, g.store.After = nil, nil
				l, err := gates[retryAt].Login(t.Context(), request("alice", phone))
				g.must(err)
				gates[1-retryAt].accept(l.Token)
				_, err = gates[1-retryAt].Login(t.Context(), request("alice", phone))
				wantClass(t, err, weixin.ClassCodeUsed)
			})
		}
	}
}

// TestP4_Fleet_StoreDownAfterExchange_IsRetried: the code is spent, so the
// client gets one session, not an error. A store of the gate's own is asked
// once.
func TestP4_Fleet_StoreDownAfterExchange_IsRetried(t *testing.T) {
	for name, tt := range map[string]struct {
		away   time.Duration
		stored bool // by each try, though it fails
		alone  bool
		well   bool
	}{
		"for a moment":               {3 * time.Second, false, false, true},
		"for a moment, answers lost": {3 * time.Second, true, false, true},
		"for long":                   {11 * time.Second, false, false, false},
		"alone":                      {time.Millisecond, false, true, false},
	} {
		bubble(t, name, func(t *testing.T) {
			var g *gate
			if tt.alone {
				g = newGate(t)
			} else {
				gates, _ := newFleet(t, 1)
				g = gates[0]
			}
			began := time.Now()
			fail := func(_ context.Context, op string) error {
				if op == "Login" && time.Since(began) < tt.away {
					return store.ErrUnavailable
				}
				return nil
			}
			if g.store.Before = fail; tt.stored {
				g.store.Before, g.store.After = nil, fail
			}
			l, err := g.Login(t.Context(), request("alice", phone))
			if tt.well != (err == nil) || !tt.well && !errors.Is(err, session.ErrUnavailable) {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
			took, most := time.Since(began), 10*time.Second+time.Millisecond
			if took > most || tt.alone && took != 0 {
				t.Errorf("answered after %v", took)
			}
			if n := g.wechat.calls.Load(); n != 1 {
				t.Errorf("%d exchanges", n)
			}
			if !tt.well {
				return
			}
			g.accept(l.Token)
			if u, err := g.User(t.Context(), alice); err != nil || len(u.Sessions) != 1 {
				t.Errorf("%d sessions, %v", len(u.Sessions), err)
			}
		})
	}
}

func TestClose_LoginRetries_DoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gates, _ := newFleet(t, 1)
		g := gates[0]
		g.store.Before = failing("Login", store.ErrUnavailable)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := g.Login(ctx, request("alice", phone))
		unavailable(t, err)
		began := time.Now()
		g.must(g.core.Close())
		if took := time.Since(began); took != 0 {
			t.Errorf("ended after %v", took)
		}
	})
}

// TestSpend_Fleet_SharesBuckets: and no gate waits for a store that does not
// answer.
func TestSpend_Fleet_SharesBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gates, links := newFleet(t, 2)
		spend := func(gate int, key string) time.Duration {
			rate := session.Rate{Every: 2 * time.Second, Burst: 3}
			return gates[gate].core.Spend(t.Context(), key, rate)
		}
		for i, want := range []time.Duration{0, 0, 0, 2 * time.Second, 2 * time.Second} {
			if got := spend(i%2, "alice"); got != want {
				t.Errorf("%d: wait %v, want %v", i, got, want)
			}
		}
		if got := spend(0, "bob"); got != 0 {
			t.Errorf("another key: wait %v", got)
		}
		links[0].Before = func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return errors.Join(store.ErrUnavailable, ctx.Err())
		}
		began := time.Now()
		if got := spend(0, "alice"); got != 0 || time.Since(began) > 100*time.Millisecond {
			t.Errorf("without an answer: wait %v, after %v", got, time.Since(began))
		}
		rate := session.Rate{Every: time.Hour}
		if got := newGate(t).core.Spend(t.Context(), "alice", rate); got != 0 {
			t.Errorf("alone: wait %v", got)
		}
	})
}

// TestP4_TwoOutages_KeepTheCache: contact that is made for a moment between two
// outages takes no session away before MaxStaleness. One that the store called over in
// that moment, and one that this gate ended, do not come back.
func TestP4_TwoOutages_KeepTheCache(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		gates, links := newFleet(t, 2)
		a, b, link := gates[0], gates[1], links[0]
		cached := func(who string) string {
			token := b.login(who).Token
			a.accept(token)
			a.settle()
			return token
		}
		good, revoked, ended, unseen := cached("g"), cached("r"), cached("e"), cached("u")
		left := cached("l")
		lost := time.Now()
		outage := func(d time.Duration) {
			link.SetReports(memstore.Lost)
			link.SetDown(true)
			time.Sleep(d)
		}
		contact := func() { link.SetDown(false); link.Reconnect() }
		outage(staleness / 3)
		b.must(b.RevokeUser(t.Context(), user("r"), endRevoked))
		b.must(b.Logout(t.Context(), left))
		a.accept(revoked) // not known here yet
		contact()
		a.refuse(revoked, session.ErrInvalid)
		a.refuse(left, session.ErrUnknown)
		a.must(a.Logout(t.Context(), ended))
		b.must(b.RevokeUser(t.Context(), user("u"), endRevoked))
		outage(staleness / 3)
		a.accept(good)
		a.refuse(revoked, session.ErrUnavailable)
		a.refuse(left, session.ErrUnavailable)
		a.refuse(ended, session.ErrUnavailable)
		a.refuse(unseen, session.ErrUnavailable) // reported while there was contact
		contact()
		outage(time.Until(lost.Add(staleness)))
		a.accept(good)
		time.Sleep(time.Millisecond)
		a.refuse(good, session.ErrUnavailable)
		contact()
		a.accept(good)
	})
}

type patientShared struct{ *memstore.Shared }

func (patientShared) Patience() (check, lookup time.Duration) { return time.Second, time.Minute }

// TestP4_LookupLateAfterOutage_CacheServes: when contact is made again and the first
// look-ups are as late as a check may wait, each check is answered from the cache, be it
// from the entry in doubt or from the one that the look-up has just put in its place.
func TestP4_LookupLateAfterOutage_CacheServes(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		gates, links := newFleet(t, 1, withCore(func(c *session.CoreConfig) {
			c.Store = patientShared{c.Store.(*memstore.Shared)}
		}))
		g, link := gates[0], links[0]
		token := g.cached("alice")
		link.Before = at("Lookup", func(context.Context) error {
			time.Sleep(time.Second)
			return nil
		})
		for range 100 {
			link.SetReports(memstore.Lost)
			link.Reconnect()
			var checks sync.WaitGroup
			for range 8 {
				checks.Go(func() {
					if _, err := g.Authenticate(t.Context(), token); err != nil {
						t.Error(err)
					}
				})
			}
			checks.Wait()
			synctest.Wait()
			g.settle()
		}
	})
}

// TestThreat17_Doubted_SameCacheKey_OtherIdentity: in the second of two outages, too, an
// entry serves the token of its whole digest only.
func TestThreat17_Doubted_SameCacheKey_OtherIdentity(t *testing.T) {
	gates, links := newFleet(t, 1)
	g, link := gates[0], links[0]
	victim, mallory := g.cached("alice"), g.login("mallory").Token
	cache := g.core.Entries()
	key := func(token string) uint64 { return session.DigestKey(session.DigestOf(token)) }
	e, ok := cache.Get(key(victim))
	if !ok {
		t.Fatal("the victim is not cached")
	}
	cache.SetWithTTL(key(mallory), e, 1, time.Minute)
	g.settle()
	link.SetReports(memstore.Lost)
	link.Reconnect()
	link.SetDown(true)
	g.accept(victim)
	g.refuse(mallory, session.ErrUnavailable)
}

// reporting is a shared store whose reports a test can make.
type reporting struct {
	*memstore.Shared
	report func(store.Change)
}

func (r *reporting) Watch(report func(store.Change)) {
	r.report = report
	r.Shared.Watch(report)
}

// TestP3_AnythingChanged_CacheIsStale: a store that was emptied, or cannot tell what
// changed, leaves nothing in the cache.
func TestP3_AnythingChanged_CacheIsStale(t *testing.T) {
	for what, replaced := range map[store.ChangeKind]int64{
		store.AllChanged: 0, store.RecordsReplaced: 1,
	} {
		var counted counter
		r := new(reporting)
		gates, _ := newFleet(t, 1, withCore(func(c *session.CoreConfig) {
			r.Shared = c.Store.(*memstore.Shared)
			c.Store, c.Replaced = r, &counted
		}))
		g := gates[0]
		token := g.login("alice").Token
		cacheAt(g, token)
		r.report(store.Change{What: what})
		if n := g.asks(func() { g.accept(token) }); n != 1 || counted.Load() != replaced {
			t.Errorf("%v: the store was asked %d times, %d counted", what, n, counted.Load())
		}
	}
}
