package storetest

import (
	"fmt"
	"sync"
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

// checkNeeded: the session's master key is needed as long as the session lives.
func (f *fixture) checkNeeded(l store.Login) {
	f.t.Helper()
	if until := f.needs()[l.MasterKey]; until.Before(l.Expires) {
		f.t.Errorf("key %v is needed until %v, its session lives until %v", l.MasterKey, until, l.Expires)
	}
}

// testMasterKeys: after a login its key is needed at least until the session
// expires, and not much longer. No login shortens a need.
func testMasterKeys(t *testing.T, f *fixture) {
	if needs := f.needs(); len(needs) != 0 {
		t.Errorf("of an empty store: %v", needs)
	}
	last := make(map[store.MasterKeyID]time.Time)
	for _, step := range []struct {
		key  int
		life time.Duration
	}{{0, time.Hour}, {0, 3 * time.Hour}, {0, time.Minute}, {1, 100 * time.Hour}, {1, time.Hour}, {2, time.Second}, {0, 4 * time.Hour}} {
		l, _ := f.login(alice, under(masterKeys[step.key]), lives(step.life))
		if l.Expires.After(last[l.MasterKey]) {
			last[l.MasterKey] = l.Expires
		}
		f.checkNeeded(l)
		f.reopen()
		needs := f.needs()
		for id, until := range last {
			if over := needs[id].Sub(until); over < 0 || over > time.Hour+time.Second || over > step.life && step.life > time.Hour {
				t.Errorf("key %v is needed %v longer than its last session", id, over)
			}
		}
		if len(needs) != len(last) {
			t.Errorf("needed are %v, want %v", needs, last)
		}
	}
}

// testMasterKeysRevoked: no session is left that needs a key; the next login
// needs its own.
func testMasterKeysRevoked(t *testing.T, f *fixture) {
	f.login(alice, under(masterKeys[0]))
	f.login(bob, under(masterKeys[1]))
	f.must(f.RevokeAll(t.Context()))
	for range 2 {
		for id, until := range f.needs() {
			if time.Until(until) > freeAfter {
				t.Errorf("key %v is needed until %v", id, until)
			}
		}
		f.reopen()
	}
	l, _ := f.login(alice, under(masterKeys[1]))
	f.checkNeeded(l)
}

// testMasterKeysParallel: no revocation takes away the need of a session that it
// did not end.
func testMasterKeysParallel(t *testing.T, f *fixture) { parallelNeeds(t, f, f) }

func testSharedMasterKeys(t *testing.T, p *pair) {
	l, _ := p.a.login(alice, under(masterKeys[0]))
	p.b.checkNeeded(l)
	parallelNeeds(t, p.a.fixture, p.b.fixture)
}

func parallelNeeds(t *testing.T, a, b *fixture) {
	for round := range 10 {
		var left atomic.Int64
		left.Store(workers)
		var wg sync.WaitGroup
		made := make([]store.Login, workers)
		for i := range made {
			id := store.UserID{AppID: alice.AppID, OpenID: fmt.Sprint("o", i)}
			made[i] = newLogin(id, under(masterKeys[i%2]), lives(time.Duration(1+round+i)*time.Hour))
			wg.Go(func() {
				defer left.Add(-1)
				if _, err := []*fixture{a, b}[i/2%2].Login(t.Context(), made[i]); err != nil {
					t.Error(err)
				}
			})
		}
		for left.Load() > workers/2 {
			a.must(b.RevokeAll(t.Context()))
		}
		wg.Wait()
		for _, l := range made {
			if a.accepted(l.Digest) {
				a.checkNeeded(l)
			}
		}
	}
}

// testLoadMasterKeys: what a move says of needs is added to those on record.
func testLoadMasterKeys(t *testing.T, _, to *fixture) {
	l, _ := to.login(alice, under(masterKeys[0]))
	was := to.needs()[l.MasterKey]
	at := time.UnixMilli(time.Now().Add(5 * time.Hour).UnixMilli())
	load := func(needs map[store.MasterKeyID]time.Time) {
		t.Helper()
		to.must(to.Store.(store.Loader).NeedMasterKeys(t.Context(), needs))
		to.reopen()
	}
	load(nil)
	load(map[store.MasterKeyID]time.Time{masterKeys[0]: was.Add(-time.Minute), masterKeys[1]: at})
	load(map[store.MasterKeyID]time.Time{masterKeys[1]: at.Add(-time.Hour)})
	if needs := to.needs(); len(needs) != 2 || !needs[masterKeys[0]].Equal(was) || !needs[masterKeys[1]].Equal(at) {
		t.Errorf("needed are %v", needs)
	}
	load(map[store.MasterKeyID]time.Time{masterKeys[0]: at})
	if needs := to.needs(); !needs[masterKeys[0]].Equal(at) {
		t.Errorf("needed are %v", needs)
	}
	to.must(to.RevokeAll(t.Context()))
	if until := to.needs()[masterKeys[1]]; time.Until(until) > freeAfter {
		t.Errorf("after a revocation of everybody it is needed until %v", until)
	}
}
