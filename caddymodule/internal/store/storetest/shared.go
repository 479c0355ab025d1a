package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// SharedHarness is what an engine gives the suite of store.Shared.
type SharedHarness struct {
	// New makes a place for data that nobody has used, and returns what opens a store on it, as often as wanted at the same time. t owns what has to be cleaned up.
	New func(t *testing.T) func() (store.Shared, error)
}

// RunShared tests the engine of h against what store.Shared promises beyond store.Store: two gates on the same data.
func RunShared(t *testing.T, h SharedHarness) {
	for _, tt := range []struct {
		name string
		f    func(*testing.T, *pair)
	}{
		{"Seen", testSharedSeen},
		{"Reported", testSharedReported},
		{"Amend", testSharedAmend},
		{"Forget", testSharedForget},
		{"MaxPerUser", testSharedMaxPerUser},
		{"Revoke", testSharedRevoke},
		{"MasterKeys", testSharedMasterKeys},
		{"Spend", testSpend},
		{"Spend/Parallel", testSpendParallel},
		{"Spend/Refill", testSpendRefill},
		{"Unavailable", testSharedUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.f(t, newPair(t, h)) })
	}
}

// pair is two gates on the same data.
type pair struct{ a, b *gate }

// gate is a store with what it has reported.
type gate struct {
	*fixture
	store.Shared
	mu      sync.Mutex
	changes []store.Change
}

func newPair(t *testing.T, h SharedHarness) *pair {
	open := h.New(t)
	return &pair{newGate(t, open), newGate(t, open)}
}

func newGate(t *testing.T, open func() (store.Shared, error)) *gate {
	t.Helper()
	s, err := open()
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	g := &gate{fixture: &fixture{Store: s, t: t}, Shared: s}
	s.Watch(func(c store.Change) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.changes = append(g.changes, c)
	})
	g.hear()
	return g
}

// await waits until ok, and fails the test when that never comes.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for patience := time.After(20 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// hear returns when the gate has heard of everything that was acknowledged before the call.
func (g *gate) hear() {
	g.t.Helper()
	now := time.Now()
	await(g.t, "the store has heard of its server", func() bool { return g.Heard().After(now) })
}

// reported takes what was reported since the last call and tells whether a change is covered by it.
func (g *gate) reported(want store.Change) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { g.changes = nil }()
	return slices.ContainsFunc(g.changes, func(c store.Change) bool {
		return c == want || c.What == store.AllChanged || c.What == store.ContactMade
	})
}

// testSharedSeen: what one gate has acknowledged is what the other sees.
func testSharedSeen(t *testing.T, p *pair) {
	a, b := p.a, p.b
	first, _ := a.login(alice, unionID("u"))
	checkRecorded(t, b.fixture, first)
	checkUser(t, b.fixture, first)
	second, res := b.login(alice, ends(first.Digest))
	if !slices.Equal(res.Ended, []store.Digest{first.Digest}) || a.accepted(first.Digest) || !a.accepted(second.Digest) {
		t.Errorf("a login that ends the other gate's session: %+v", res)
	}
	a.must(a.End(t.Context(), second.Digest))
	if b.accepted(second.Digest) {
		t.Error("a session that the other gate has ended holds")
	}
	checkList(t, b.fixture, alice, nil)
	for name, revoke := range map[string]func() error{
		"user": func() error { return a.RevokeUser(t.Context(), alice) },
		"app":  func() error { return a.RevokeApp(t.Context(), alice.AppID) },
		"all":  func() error { return a.RevokeAll(t.Context()) },
	} {
		l, _ := b.login(alice)
		a.must(revoke())
		if b.accepted(l.Digest) {
			t.Errorf("revoking %s: the other gate's session holds", name)
		}
	}
}

// testSharedReported: each change is reported at both gates, at the latest when Heard has passed the moment at which it was acknowledged (DESIGN.md P3).
func testSharedReported(t *testing.T, p *pair) {
	a, b := p.a, p.b
	ctx := t.Context()
	l, _ := a.login(alice, unionID("u"))
	user := func(id store.UserID) store.Change { return store.Change{What: store.UserChanged, User: id.Hash()} }
	session := func(d store.Digest) store.Change { return store.Change{What: store.SessionChanged, Digest: d} }
	all := store.Change{What: store.AllChanged}
	for _, step := range []struct {
		name string
		do   func() (store.Change, error)
	}{
		{"a login that tells another unionid", func() (store.Change, error) {
			_, res := a.login(alice, unionID("v"))
			if !res.UnionIDChanged {
				t.Error("the login changed no unionid")
			}
			return user(alice), nil
		}},
		{"Amend of the unionid", func() (store.Change, error) {
			_, err := a.Amend(ctx, alice, store.Amendment{UnionID: "w"})
			return user(alice), err
		}},
		{"Amend of the telephone number", func() (store.Change, error) {
			_, err := a.Amend(ctx, alice, store.Amendment{Phone: []byte("sealed")})
			return user(alice), err
		}},
		{"a login that presents a session", func() (store.Change, error) {
			old := l.Digest
			l, _ = a.login(alice, ends(old))
			return session(old), nil
		}},
		{"a login over the limit", func() (store.Change, error) {
			old := b.user(alice).Sessions[0].Digest
			_, res := a.login(alice, maxPerUser(2))
			if !slices.Equal(res.Ended, []store.Digest{old}) {
				t.Errorf("ended %x, want %x", res.Ended, old)
			}
			return session(old), nil
		}},
		{"End", func() (store.Change, error) { return session(l.Digest), a.End(ctx, l.Digest) }},
		{"RevokeUser", func() (store.Change, error) { return user(alice), a.RevokeUser(ctx, alice) }},
		{"RevokeApp", func() (store.Change, error) { return all, a.RevokeApp(ctx, alice.AppID) }},
		{"RevokeAll", func() (store.Change, error) { return all, a.RevokeAll(ctx) }},
	} {
		for _, g := range []*gate{a, b} {
			g.hear()
			g.reported(all)
		}
		want, err := step.do()
		a.must(err)
		for name, g := range map[string]*gate{"its own": a, "the other": b} {
			g.hear()
			if !g.reported(want) {
				t.Errorf("%s: not reported at %s gate", step.name, name)
			}
		}
	}
}

// testSharedMaxPerUser: the bound holds over both gates, whatever comes at the same time: what lives is what is listed, and no login ends more than it has to.
func testSharedMaxPerUser(t *testing.T, p *pair) {
	const bound, each = 3, 12
	for round := range 4 {
		var mu sync.Mutex
		var made []store.Digest
		ended := make(map[store.Digest]bool)
		var wg sync.WaitGroup
		for i := range each * 2 {
			g := p.a
			if i%2 == 1 {
				g = p.b
			}
			wg.Go(func() {
				l := newLogin(alice, maxPerUser(bound))
				res, err := g.Login(t.Context(), l)
				if err != nil {
					t.Errorf("login: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				made = append(made, l.Digest)
				for _, d := range res.Ended {
					ended[d] = true
				}
			})
		}
		wg.Wait()
		listed := p.a.user(alice).Sessions
		if len(listed) != bound {
			t.Errorf("round %d: %d sessions are listed, want %d", round, len(listed), bound)
		}
		for _, d := range made {
			in := slices.ContainsFunc(listed, func(r store.SessionRef) bool { return r.Digest == d })
			if got := p.b.accepted(d); got != in || ended[d] == got {
				t.Errorf("round %d: session accepted: %v, listed: %v, reported as ended: %v", round, got, in, ended[d])
			}
		}
	}
}

// testSharedRevoke: what one gate has acknowledged before the other began a revocation never holds after it, while both log the user in.
func testSharedRevoke(t *testing.T, p *pair) {
	var mu sync.Mutex
	var acked []store.Digest
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 8 {
		for _, g := range []*gate{p.a, p.b} {
			wg.Go(func() {
				for !stop.Load() {
					l := newLogin(alice, maxPerUser(20))
					if _, err := g.Login(t.Context(), l); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acked = append(acked, l.Digest)
					mu.Unlock()
				}
			})
		}
	}
	for round := range 6 {
		await(t, "there are sessions", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acked) >= 20*(round+1)
		})
		mu.Lock()
		before := slices.Clone(acked)
		mu.Unlock()
		p.a.must(p.a.RevokeUser(t.Context(), alice))
		for _, d := range before {
			if p.b.accepted(d) {
				t.Error("a revoked session holds at the other gate")
			}
		}
	}
	stop.Store(true)
	wg.Wait()
}

// testSharedUnavailable: a call that was not made changes nothing and says so.
func testSharedUnavailable(t *testing.T, p *pair) {
	calls := map[string]func(context.Context) error{
		"Spend": func(ctx context.Context) error {
			_, err := p.b.Spend(ctx, "k", store.Rate{Every: time.Hour, Burst: 1})
			return err
		},
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(when string, ctx context.Context) {
		for name, call := range calls {
			if bad := checkUnavailable(call(ctx)); bad != nil {
				t.Error(fmt.Errorf("%s %s: %w", name, when, bad))
			}
		}
	}
	check("with an ended context", ended)
	p.b.must(p.b.Close())
	check("after Close", t.Context())
	if wait, err := p.a.Spend(t.Context(), "k", store.Rate{Every: time.Hour, Burst: 1}); err != nil || wait != 0 {
		t.Errorf("what was not spent is gone: %v, %v", wait, err)
	}
}
