package redis_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// losses calls prepare and then what it returns, once for each chunk of
// requests in that which contains one of the words, and with that chunk lost or
// the answer to it. It returns how often.
func losses(
	t *testing.T,
	p *lossy,
	s store.Store,
	outage bool,
	prepare func(t *testing.T, l *loss) (run func(), check func(t *testing.T)),
) (n int) {
	for _, answer := range []bool{false, true} {
		for nth := 0; ; nth++ {
			hit := false
			t.Run(fmt.Sprintf("answer=%v/%d", answer, nth), func(t *testing.T) {
				l := loss{nth: nth, answer: answer, outage: outage}
				await(
					t,
					"the store is in contact",
					func() bool { return s.Health(t.Context()) == nil },
				)
				run, check := prepare(t, &l)
				p.arm(l)
				run()
				hit = p.disarm()
				await(
					t,
					"the store is in contact",
					func() bool { return s.Health(t.Context()) == nil },
				)
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

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// checkErr: an error is that the engine is unavailable, whatever was lost.
func checkErr(t *testing.T, err error) {
	t.Helper()
	if err != nil && (!errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotFound)) {
		t.Error(err)
	}
}

// with is a configuration for the same keys by another way.
func with(cfg redis.Config, addr string) redis.Config {
	cfg.Addresses = []string{addr}
	return cfg
}

// TestLostRevocation loses each request and each answer of what ends sessions:
// what was answered has ended them, and later logins hold.
func TestLostRevocation(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv.Addr)
	cfg := config(p.Addr)
	s, beside := mustOpen(t, cfg), mustOpen(t, with(cfg, srv.Addr))
	id := userOf("oAlice")
	h := id.Hash()
	for name, revoke := range map[string]func(t *testing.T, d store.Digest) error{
		"End":        func(t *testing.T, d store.Digest) error { return s.End(t.Context(), d) },
		"RevokeUser": func(t *testing.T, _ store.Digest) error { return s.RevokeUser(t.Context(), id) },
		"RevokeApp":  func(t *testing.T, _ store.Digest) error { return s.RevokeApp(t.Context(), id.AppID) },
		"RevokeAll":  func(t *testing.T, _ store.Digest) error { return s.RevokeAll(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
				login := newLogin(id)
				_, err := beside.Login(t.Context(), login)
				must(t, err)
				l.words = []string{hexOf(h[:]), hexOf(login.Digest[:]), "e:{"}
				before := mustUser(t, beside, id).Epoch
				return func() { err = revoke(t, login.Digest) }, func(t *testing.T) {
					if err != nil || accepted(t, beside, login.Digest) {
						t.Errorf(
							"answered %v; the session holds: %v",
							err,
							accepted(t, beside, login.Digest),
						)
					}
					if moved := mustUser(t, beside, id).Epoch - before; name == "RevokeUser" &&
						moved != 1 {
						t.Errorf("the epoch has moved by %d", moved)
					}
					next := newLogin(id)
					_, err = beside.Login(t.Context(), next)
					must(t, err)
					if !accepted(t, beside, next.Digest) {
						t.Error("a later login does not hold")
					}
				}
			})
		})
	}
}

// TestLostRevocationThenAnother loses the answer to a revocation, and before it
// is tried again another gate revokes and somebody has logged in between: no
// session comes back.
func TestLostRevocationThenAnother(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv.Addr)
	cfg := config(p.Addr)
	s, beside := mustOpen(t, cfg), mustOpen(t, with(cfg, srv.Addr))
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
		_, err := beside.Login(t.Context(), newLogin(id))
		must(t, err)
		return func() { must(t, s.RevokeApp(t.Context(), id.AppID)) }, func(t *testing.T) {
			if accepted(t, beside, between.Digest) {
				t.Error("a revocation that was sent twice has brought back what another had ended")
			}
		}
	})
}

// TestLostSpend: one Spend takes one token at most, whatever was lost.
func TestLostSpend(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv.Addr)
	cfg := config(p.Addr)
	s, beside := mustOpen(t, cfg), mustOpen(t, with(cfg, srv.Addr))
	rate := store.Rate{Every: time.Hour, Burst: 2}
	n := 0
	losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
		n++
		key := fmt.Sprint("bucket ", n)
		l.words = []string{"b:{"}
		return func() {
				_, err := s.Spend(t.Context(), key, rate)
				checkErr(t, err)
			}, func(t *testing.T) {
				if wait, err := beside.Spend(t.Context(), key, rate); err != nil || wait != 0 {
					t.Errorf("one Spend has taken two: %v, %v", wait, err)
				}
			}
	})
}
