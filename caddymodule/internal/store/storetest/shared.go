package storetest

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// SharedHarness is an engine of store.Shared under test.
type SharedHarness struct {
	// New makes a new place for data and returns what opens stores on it, several at
	// the same time. t owns the clean-up.
	New func(t *testing.T) func() (store.Shared, error)
}

// RunShared tests what store.Shared promises beyond store.Store: two gates on the
// same data.
func RunShared(t *testing.T, h SharedHarness) {
	both := func(f func(t *testing.T, a, b *fixture)) func(*testing.T, *pair) {
		return func(t *testing.T, p *pair) { f(t, p.a.fixture, p.b.fixture) }
	}
	for _, tt := range []struct {
		name string
		f    func(*testing.T, *pair)
	}{
		{"Seen", testSharedSeen},
		{"Reported", testSharedReported},
		{"Amend", both(amendParallel)},
		{"Fact", both(factParallel)},
		{"MaxPerUser", testSharedMaxPerUser},
		{"MasterKeys", both(needsParallel)},
		{"Revoke", both(revokeParallel)},
		{"Spend", testSpend},
		{"Spend/Parallel", testSpendParallel},
		{"Spend/Refill", testSpendRefill},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.f(t, newPair(t, h)) })
	}
}

// pair is two gates on the same data.
type pair struct{ a, b *gate }

// turn returns the gates in turn.
func (p *pair) turn(i int) *gate { return []*gate{p.a, p.b}[i%2] }

// gate is a store with its reports.
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

// hear returns when all that was acknowledged before the call has been reported.
func (g *gate) hear() {
	g.t.Helper()
	now := time.Now()
	await(g.t, "the store has heard of its server", func() bool { return g.Heard().After(now) })
}

// reported takes the reports since the last call and tells whether one of them
// covers a change.
func (g *gate) reported(want store.Change) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { g.changes = nil }()
	return slices.ContainsFunc(g.changes, func(c store.Change) bool {
		return c == want || c.What == store.AllChanged || c.What == store.ContactMade
	})
}

// One gate sees what the other has acknowledged.
func testSharedSeen(t *testing.T, p *pair) {
	a, b := p.a, p.b
	first, _ := a.login(alice, unionID("u"), under(masterKeys[0]))
	b.checkRecorded(first)
	b.checkNeeded(first)
	second, res := b.login(alice, ends(first))
	if len(res.Ended) != 0 {
		t.Errorf("a login that presents the other gate's session: %+v", res)
	}
	for _, g := range []*gate{a, b} {
		g.checkExpires(first, second.Created.Add(store.Grace))
	}
	a.must(a.End(t.Context(), first.Digest, store.EndLogout))
	a.checkAccepted(true, "made by the other gate", second)
	a.must(a.End(t.Context(), second.Digest, store.EndLogout))
	b.checkAccepted(false, "ended by the other gate", second)
	b.checkList(alice)
	for name, revoke := range map[string]func() error{
		"user":   func() error { return a.RevokeUser(t.Context(), alice, store.EndRevoked) },
		"app":    func() error { return a.RevokeApp(t.Context(), alice.AppID) },
		"all":    func() error { return a.RevokeAll(t.Context()) },
		"forget": func() error { return a.Forget(t.Context(), alice, store.EndForgotten) },
	} {
		l, _ := b.login(alice)
		a.must(revoke())
		b.checkAccepted(false, name+" revoked by the other gate", l)
	}
}

// Both gates have the report of a change when Heard has passed the moment at
// which it was acknowledged (P3).
func testSharedReported(t *testing.T, p *pair) {
	a, b := p.a, p.b
	ctx := t.Context()
	l, _ := a.login(alice, unionID("u"), ago(store.Grace))
	changed := store.Change{What: store.UserChanged, User: alice.Hash()}
	ended := func(d store.Digest) store.Change {
		return store.Change{What: store.SessionChanged, Digest: d}
	}
	all := store.Change{What: store.AllChanged}
	amend := func(am store.Amendment) (store.Change, error) {
		_, err := a.Amend(ctx, alice, am)
		return changed, err
	}
	for _, step := range []struct {
		name string
		do   func() (store.Change, error)
	}{
		{"a login over the limit", func() (store.Change, error) {
			old := l
			next, res := a.login(alice, maxPerUser(1))
			if !slices.Equal(res.Ended, []store.Digest{old.Digest}) {
				t.Errorf("ended %x, want %x", res.Ended, old.Digest)
			}
			l = next
			return ended(old.Digest), nil
		}},
		{"a login that tells another unionid", func() (store.Change, error) {
			_, res := a.login(alice, unionID("v"))
			if !res.UnionIDChanged {
				t.Error("the login changed no unionid")
			}
			return changed, nil
		}},
		{"Amend of the unionid", func() (store.Change, error) {
			return amend(store.Amendment{UnionID: "w"})
		}},
		{"Amend of the telephone number", func() (store.Change, error) {
			return amend(store.Amendment{Phone: []byte("sealed")})
		}},
		{"a login that presents a session", func() (store.Change, error) {
			old := l
			l, _ = a.login(alice, ends(old))
			return ended(old.Digest), nil
		}},
		{"End", func() (store.Change, error) {
			return ended(l.Digest), a.End(ctx, l.Digest, store.EndLogout)
		}},
		{"RevokeUser", func() (store.Change, error) {
			return changed, a.RevokeUser(ctx, alice, store.EndRevoked)
		}},
		{"RevokeApp", func() (store.Change, error) { return all, a.RevokeApp(ctx, alice.AppID) }},
		{"RevokeAll", func() (store.Change, error) { return all, a.RevokeAll(ctx) }},
		{"Forget", func() (store.Change, error) {
			return changed, a.Forget(ctx, alice, store.EndForgotten)
		}},
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

// Twice MaxPerUser holds over both gates at any time, for sessions as young as these:
// the listed ones live and no others, and no login ends more than it has to.
func testSharedMaxPerUser(t *testing.T, p *pair) {
	const bound, logins = 3, 24
	for round := range 4 {
		var mu sync.Mutex
		var ended []store.Digest
		made := make([]store.Login, logins)
		parallel(logins, func(i int) {
			made[i] = newLogin(alice, maxPerUser(bound))
			res, err := p.turn(i).Login(t.Context(), made[i])
			if err != nil {
				t.Errorf("login: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, res.Ended...)
		})
		listed := digestsOf(p.a.user(alice).Sessions)
		if len(listed) != 2*bound {
			t.Errorf("round %d: %d sessions are listed, want %d", round, len(listed), 2*bound)
		}
		for _, l := range made {
			in, out := slices.Contains(listed, l.Digest), slices.Contains(ended, l.Digest)
			if got := p.b.accepted(l.Digest); got != in || out == got {
				t.Errorf("round %d: session accepted: %v, listed: %v, reported as ended: %v",
					round, got, in, out)
			}
		}
	}
}

func (g *gate) spend(key string, r store.Rate) time.Duration {
	wait, err := g.Spend(g.t.Context(), key, r)
	if err != nil {
		g.t.Error(err)
	}
	return wait
}

func testSpend(t *testing.T, p *pair) {
	r := store.Rate{Every: time.Hour, Burst: 4}
	for _, key := range []string{"", "k", "K", "k\x00"} {
		for i := range 6 {
			wait := p.turn(i).spend(key, r)
			if i < r.Burst && wait != 0 || i >= r.Burst && (wait <= 0 || wait > r.Every) {
				t.Errorf("key %q, %d spent of %d: wait %v", key, i, r.Burst, wait)
			}
		}
	}
	// A smaller bucket is never more than empty, whatever the larger one lacks.
	r = store.Rate{Every: time.Minute, Burst: 1}
	if wait := p.a.spend("k", r); wait <= 0 || wait > r.Every {
		t.Errorf("after a change of the rate: wait %v", wait)
	}
}

func testSpendParallel(t *testing.T, p *pair) {
	const burst = 20
	var spent atomic.Int64
	parallel(workers, func(i int) {
		if p.turn(i).spend("k", store.Rate{Every: time.Hour, Burst: burst}) == 0 {
			spent.Add(1)
		}
	})
	if spent.Load() != burst {
		t.Errorf("%d spent of a bucket of %d", spent.Load(), burst)
	}
}

// An empty bucket has one again after the time that it told.
func testSpendRefill(t *testing.T, p *pair) {
	r := store.Rate{Every: 5 * time.Millisecond, Burst: 2}
	for range 20 {
		wait := p.a.spend("k", r)
		if wait > r.Every {
			t.Errorf("wait %v, but there is one each %v", wait, r.Every)
		}
		if wait == 0 {
			continue
		}
		<-time.After(wait)
		if wait = p.b.spend("k", r); wait != 0 {
			t.Errorf("after the time that was told: wait another %v", wait)
		}
	}
}
