package storetest

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// freeAfter is how long a store may tell of a need that RevokeAll has ended.
const freeAfter = 2 * time.Minute

var masterKeys = []store.MasterKeyID{{1}, {2, 3}, {0xff, 0xff, 0xff, 0xff}}

func under(id store.MasterKeyID) func(*store.Login) {
	return func(l *store.Login) { l.MasterKey = id }
}

func lives(d time.Duration) func(*store.Login) {
	return func(l *store.Login) { l.Expires = l.Created.Add(d) }
}

func (f *fixture) needs() map[store.MasterKeyID]time.Time {
	f.t.Helper()
	needs, err := f.MasterKeys(f.t.Context())
	f.must(err)
	return needs
}

// checkNeeded checks that the session's master key is needed as long as it lives.
func (f *fixture) checkNeeded(l store.Login) {
	f.t.Helper()
	if until := f.needs()[l.MasterKey]; until.Before(l.Expires) {
		f.t.Errorf("key %v is needed until %v, its session lives until %v",
			l.MasterKey, until, l.Expires)
	}
}

// checkFree checks that no session needs the key any more.
func (f *fixture) checkFree(id store.MasterKeyID) {
	f.t.Helper()
	if until := f.needs()[id]; time.Until(until) > freeAfter {
		f.t.Errorf("key %v is needed until %v", id, until)
	}
}

// After a login its key is needed until the session expires at least, and not
// much longer. No login shortens a need.
func testMasterKeys(t *testing.T, f *fixture) {
	if needs := f.needs(); len(needs) != 0 {
		t.Errorf("of an empty store: %v", needs)
	}
	last := make(map[store.MasterKeyID]time.Time)
	for _, step := range []struct {
		key  int
		life time.Duration
	}{
		{0, time.Hour},
		{0, 3 * time.Hour},
		{0, time.Minute},
		{1, 100 * time.Hour},
		{1, time.Hour},
		{2, time.Second},
		{0, 4 * time.Hour},
	} {
		l, _ := f.login(alice, under(masterKeys[step.key]), lives(step.life))
		if l.Expires.After(last[l.MasterKey]) {
			last[l.MasterKey] = l.Expires
		}
		f.checkNeeded(l)
		f.reopen()
		needs := f.needs()
		most := time.Hour + time.Second
		if step.life > time.Hour {
			most = min(most, step.life)
		}
		for id, until := range last {
			if over := needs[id].Sub(until); over < 0 || over > most {
				t.Errorf("key %v is needed %v longer than its last session", id, over)
			}
		}
		if len(needs) != len(last) {
			t.Errorf("needed are %v, want %v", needs, last)
		}
	}
}

// RevokeAll ends the needs. The next login needs its own key.
func testMasterKeysRevoked(t *testing.T, f *fixture) {
	f.login(alice, under(masterKeys[0]))
	f.login(bob, under(masterKeys[1]))
	f.must(f.RevokeAll(t.Context()))
	for range 2 {
		for id := range f.needs() {
			f.checkFree(id)
		}
		f.reopen()
	}
	l, _ := f.login(alice, under(masterKeys[1]))
	f.checkNeeded(l)
}

// needsParallel checks that a revocation ends no need of a session that goes on.
func needsParallel(t *testing.T, a, b *fixture) {
	for round := range 10 {
		var left atomic.Int64
		left.Store(workers)
		made := make([]store.Login, workers)
		parallel(workers+1, func(i int) {
			if i == workers {
				for left.Load() > workers/2 {
					if err := b.RevokeAll(t.Context()); err != nil {
						t.Error(err)
					}
				}
				return
			}
			defer left.Add(-1)
			life := time.Duration(1+round+i) * time.Hour
			made[i] = newLogin(numbered(i), under(masterKeys[i%2]), lives(life))
			if _, err := []*fixture{a, b}[i/2%2].Login(t.Context(), made[i]); err != nil {
				t.Error(err)
			}
		})
		for _, l := range made {
			if a.accepted(l.Digest) {
				a.checkNeeded(l)
			}
		}
	}
}

// NeedMasterKeys adds to the needs on record.
func testLoadMasterKeys(t *testing.T, _, to *fixture) {
	l, _ := to.login(alice, under(masterKeys[0]))
	was := to.needs()[l.MasterKey]
	at := time.UnixMilli(time.Now().Add(5 * time.Hour).UnixMilli())
	type needs map[store.MasterKeyID]time.Time
	load := func(n needs) {
		t.Helper()
		to.must(to.Store.(store.Loader).NeedMasterKeys(t.Context(), n))
		to.reopen()
	}
	load(nil)
	load(needs{masterKeys[0]: was.Add(-time.Minute), masterKeys[1]: at})
	load(needs{masterKeys[1]: at.Add(-time.Hour)})
	got := to.needs()
	if len(got) != 2 || !got[masterKeys[0]].Equal(was) || !got[masterKeys[1]].Equal(at) {
		t.Errorf("needed are %v", got)
	}
	load(needs{masterKeys[0]: at})
	if got := to.needs(); !got[masterKeys[0]].Equal(at) {
		t.Errorf("needed are %v", got)
	}
	to.must(to.RevokeAll(t.Context()))
	to.checkFree(masterKeys[1])
}
