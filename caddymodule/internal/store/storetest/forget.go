package storetest

import (
	"errors"
	"reflect"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// testForget: nothing of the user is left, nothing of anybody else has changed, and a later login finds nobody.
func testForget(t *testing.T, f *fixture) {
	first, _ := f.login(alice, unionID("u"), withKey(key("k")))
	second, _ := f.login(alice, withKey(key("k2")))
	f.amend(alice, store.Amendment{Phone: []byte("number")})
	kept, _ := f.login(bob, unionID("u"))
	other, _ := f.login(alice2, unionID("u"))
	others := []store.User{f.user(bob), f.user(alice2)}
	f.must(f.Forget(t.Context(), alice))
	gone := func(when string) {
		t.Helper()
		if u, err := f.User(t.Context(), alice); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: the user is %+v, %v", when, u, err)
		}
		for _, l := range []store.Login{first, second} {
			if _, err := f.Lookup(t.Context(), l.Digest); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: lookup of a session: %v", when, err)
			}
		}
		if got := []store.User{f.user(bob), f.user(alice2)}; !reflect.DeepEqual(got, others) || !f.accepted(kept.Digest) || !f.accepted(other.Digest) {
			t.Errorf("%s: the other users are %+v, were %+v", when, got, others)
		}
		f.checkUnion("u", bob, alice2)
	}
	gone("at once")
	f.must(f.Forget(t.Context(), alice))
	gone("again")
	f.reopen()
	gone("after a restart")

	l, res := f.login(alice, withKey(key("k3")))
	if res.UnionID != "" || res.UnionIDChanged || len(res.Ended) != 0 {
		t.Errorf("the next login: %+v", res)
	}
	if u := f.user(alice); u.UnionID != "" || u.Phone != nil || u.KeyVersion != 1 || !sameKey(u.Key, key("k3")) || u.PrevKey.Box != nil || len(u.Sessions) != 1 {
		t.Errorf("after the next login the user is %+v", u)
	}
	if !f.accepted(l.Digest) || f.accepted(first.Digest) || f.accepted(second.Digest) {
		t.Error("after the next login another session holds than its own")
	}
	f.checkUnion("u", bob, alice2)
}

// testForgetParallel: whatever runs beside it, the sessions of before are over; a login that comes after it holds, and no amendment of before shows at it.
func testForgetParallel(t *testing.T, f *fixture) {
	for range 4 {
		before, _ := f.login(alice, unionID("old"))
		made := make([]store.Login, 4)
		var wg sync.WaitGroup
		for i := range made {
			made[i] = newLogin(alice)
			wg.Go(func() {
				if _, err := f.Login(t.Context(), made[i]); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if _, err := f.Amend(t.Context(), alice, store.Amendment{Phone: []byte("number")}); err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		f.must(f.Forget(t.Context(), alice))
		wg.Wait()
		if f.accepted(before.Digest) {
			t.Error("a session of before holds")
		}
		f.checkUnion("old")
		listed := make(map[store.Digest]bool)
		if u, err := f.User(t.Context(), alice); err == nil {
			for _, r := range u.Sessions {
				listed[r.Digest] = true
			}
		}
		for _, l := range made {
			if f.accepted(l.Digest) != listed[l.Digest] {
				t.Errorf("a session beside it holds: %v, and is listed: %v", !listed[l.Digest], listed[l.Digest])
			}
		}
		f.must(f.Forget(t.Context(), alice))
		after, _ := f.login(alice)
		if u := f.user(alice); !f.accepted(after.Digest) || u.Phone != nil || len(u.Sessions) != 1 {
			t.Errorf("after it the user is %+v", u)
		}
	}
}

// testSharedForget: the other gate is told, for what it remembers of the sessions has become wrong.
func testSharedForget(t *testing.T, p *pair) {
	l, _ := p.a.login(alice)
	p.b.hear()
	p.b.reported(store.Change{})
	p.a.must(p.a.Forget(t.Context(), alice))
	p.b.hear()
	if !p.b.reported(store.Change{What: store.UserChanged, User: alice.Hash()}) {
		t.Error("the other gate was not told")
	}
	if p.b.accepted(l.Digest) {
		t.Error("the session holds at the other gate")
	}
}

func (m *model) forget(rt *rapid.T) {
	id := rapid.SampledFrom(modelUsers).Draw(rt, "user")
	m.must(m.s.Forget(ctxb, id))
	m.revoke(func(u store.UserID) bool { return u == id })
	delete(m.users, id)
}
