package redis

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// lossy is a proxy that loses one chunk of requests, or the answer to it.
type lossy struct {
	*redistest.Proxy

	mu   sync.Mutex
	plan loss
	hit  bool
}

// loss is one loss.
type loss struct {
	words  []string // one of them is in the chunk; none: nothing gets lost
	nth    int      // of the chunks with such a word
	answer bool     // loses the answer, not the request
	outage bool     // and forwards nothing more, until disarm
	then   func()   // runs while the client does not know yet; may be nil
	keep   bool     // loses nothing: the request comes after then
}

// newLossy returns a store behind the proxy, and one beside it.
func newLossy(t testing.TB, edit ...func(*Config)) (p *lossy, s, beside *Store) {
	srv := redistest.Shared(t)
	p = &lossy{Proxy: redistest.StartProxy(t, srv.Addr)}
	p.LoseWhen(p.lossOf)
	cfg := config(p.Addr)
	beside = mustOpen(t, with(cfg, srv.Addr))
	for _, e := range edit {
		e(&cfg)
	}
	return p, mustOpen(t, cfg), beside
}

func (p *lossy) arm(l loss) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.hit = l, false
}

// disarm reports whether anything was lost.
func (p *lossy) disarm() bool {
	p.Restore()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = loss{}
	return p.hit
}

func (p *lossy) lossOf(request []byte) *redistest.Loss {
	p.mu.Lock()
	defer p.mu.Unlock()
	named := func(word string) bool { return bytes.Contains(request, []byte(word)) }
	if p.hit || !slices.ContainsFunc(p.plan.words, named) {
		return nil
	}
	if p.plan.nth > 0 {
		p.plan.nth--
		return nil
	}
	p.hit = true
	plan := p.plan
	return &redistest.Loss{Answer: plan.answer, Keep: plan.keep, Then: func() {
		if plan.then != nil {
			plan.then()
		}
		if plan.outage {
			p.Cut()
		}
	}}
}

// prepare returns a call that suffers a loss, and the check after it.
type prepare func(t *testing.T, l *loss) (run func(), check func(t *testing.T))

// losses prepares and runs a call once for each chunk of requests in it that contains
// one of the words, with that chunk lost or the answer to it. It returns how often.
func losses(t *testing.T, p *lossy, s store.Store, outage bool, prepare prepare) (n int) {
	contact := func() {
		await(t, "the store is in contact", func() bool { return s.Health(t.Context()) == nil })
	}
	for _, answer := range []bool{false, true} {
		for nth := 0; ; nth++ {
			hit := false
			t.Run(fmt.Sprintf("answer=%v/%d", answer, nth), func(t *testing.T) {
				l := loss{nth: nth, answer: answer, outage: outage}
				contact()
				run, check := prepare(t, &l)
				p.arm(l)
				run()
				hit = p.disarm()
				contact()
				check(t)
			})
			if !hit {
				if nth == 0 {
					t.Error("nothing was lost")
				}
				break
			}
			n++
		}
	}
	return n
}

// checkErr: an error means that the engine is unavailable.
func checkErr(t *testing.T, err error) {
	t.Helper()
	if err != nil && !isUnavailable(err) {
		t.Error(err)
	}
}

// TestRevocation_RequestLost_IsMade loses each request and each answer of what ends
// sessions: an answered call has ended them, and later logins hold.
func TestRevocation_RequestLost_IsMade(t *testing.T) {
	t.Parallel()
	notShort(t)
	p, s, beside := newLossy(t)
	id := userOf("oAlice")
	h := id.Hash()
	for _, name := range []string{"End", "RevokeUser", "RevokeApp", "RevokeAll"} {
		t.Run(name, func(t *testing.T) {
			losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
				login := mustLogin(t, beside, newLogin(id))
				l.words = []string{hexOf(h[:]), hexOf(login.Digest[:]), "e:{"}
				before := mustUser(t, beside, id).Epoch
				var err error
				revoke := calls(s, login)[name]
				return func() { err = revoke(t.Context()) }, func(t *testing.T) {
					if holds := accepted(t, beside, login.Digest); err != nil || holds {
						t.Errorf("answered %v; the session holds: %v", err, holds)
					}
					moved := mustUser(t, beside, id).Epoch - before
					if name == "RevokeUser" && moved != 1 {
						t.Errorf("the epoch has moved by %d", moved)
					}
					next := mustLogin(t, beside, newLogin(id))
					if !accepted(t, beside, next.Digest) {
						t.Error("a later login does not hold")
					}
				}
			})
		})
	}
}

// TestRevocation_AnotherBeforeRetry_NoSessionReturns loses the answer to a revocation.
// Before the retry, another gate revokes, too, and a user logs in between.
func TestRevocation_AnotherBeforeRetry_NoSessionReturns(t *testing.T) {
	t.Parallel()
	p, s, beside := newLossy(t)
	id := userOf("oAlice")
	losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
		between := newLogin(id)
		l.words = []string{"e:{"}
		l.then = func() {
			_, err := beside.Login(t.Context(), between)
			if err := errors.Join(err, beside.RevokeApp(t.Context(), id.AppID)); err != nil {
				t.Error(err)
			}
		}
		mustLogin(t, beside, newLogin(id))
		return func() { must(t, s.RevokeApp(t.Context(), id.AppID)) }, func(t *testing.T) {
			if accepted(t, beside, between.Digest) {
				t.Error("a revocation that was sent twice has undone another one")
			}
		}
	})
}

// TestSpend_RequestLost_TakesOneAtMost loses each request and each answer of a Spend.
func TestSpend_RequestLost_TakesOneAtMost(t *testing.T) {
	t.Parallel()
	p, s, beside := newLossy(t)
	rate := store.Rate{Every: time.Hour, Burst: 2}
	n := 0
	losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
		n++
		key := fmt.Sprint("bucket ", n)
		l.words = []string{"b:{"}
		run := func() {
			_, err := s.Spend(t.Context(), key, rate)
			checkErr(t, err)
		}
		return run, func(t *testing.T) {
			if wait, err := beside.Spend(t.Context(), key, rate); err != nil || wait != 0 {
				t.Errorf("one Spend has taken two: %v, %v", wait, err)
			}
		}
	})
}

// TestAmend_RequestLost_IsMadeOnce loses each request and each answer of an amendment,
// alone and with a login of the user before the retry. The call is answered and its
// change made once; after another change the result may miss it.
func TestAmend_RequestLost_IsMadeOnce(t *testing.T) {
	t.Parallel()
	notShort(t)
	p, s, beside := newLossy(t)
	fresh := store.SealedKey{Tag: [8]byte{7, 7}, Box: []byte("fresh")}
	users := 0
	for _, then := range []bool{false, true} {
		n := losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
			users++
			first := mustLogin(t, beside, newLogin(userOf(fmt.Sprint("oAlice", users))))
			h := first.User.Hash()
			l.words = []string{hexOf(h[:])}
			second := newLogin(first.User, unionID(""))
			between := false
			if then {
				l.then = func() {
					between = true
					// With the present key, so that the login is not newer than the amendment.
					u, err := beside.User(t.Context(), first.User)
					second.Key = u.Key
					if err == nil {
						_, err = beside.Login(t.Context(), second)
					}
					if err != nil {
						t.Error(err)
					}
				}
			}
			a := store.Amendment{
				UnionID: "found", Key: fresh, KeyWas: first.Key.Tag, Phone: []byte("sealed"),
			}
			want := store.Amended{UnionIDWas: first.UnionID, UnionIDChanged: true, KeySet: true}
			var res store.Amended
			var err error
			run := func() { res, err = s.Amend(t.Context(), first.User, a) }
			return run, func(t *testing.T) {
				if must(t, err); !then && res != want {
					t.Errorf("answered %+v, want %+v", res, want)
				}
				u := mustUser(t, beside, first.User)
				if u.UnionID != "found" || string(u.Phone) != "sealed" || u.Key.Tag != fresh.Tag ||
					u.PrevKey.Tag != first.Key.Tag || u.KeyVersion != 2 {
					t.Errorf("the user is %+v", u)
				}
				if !accepted(t, beside, first.Digest) ||
					between && !accepted(t, beside, second.Digest) {
					t.Error("a session does not hold")
				}
			}
		})
		if n < 6 { // read, index, swap, each lost on both ways
			t.Errorf("only %d losses", n)
		}
	}
}
