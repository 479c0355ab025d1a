package redis_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

const bound = 2

// scene is a user at the limit, who logs in with another unionid and presents
// the session of somebody else: all that a login can do.
type scene struct {
	id, other store.UserID
	made      []store.Login // of the user
	presented store.Login
	last      store.Login
	res       store.LoginResult
	err       error
}

func newScene(t *testing.T, s store.Store, n int, l *loss) *scene {
	t.Helper()
	sc := &scene{id: userOf(fmt.Sprint("oAlice", n)), other: userOf(fmt.Sprint("oBob", n))}
	for range bound {
		sc.made = append(sc.made, newLogin(sc.id, maxPerUser(bound)))
	}
	sc.presented = newLogin(sc.other)
	for _, l := range append(sc.made, sc.presented) {
		_, err := s.Login(t.Context(), l)
		must(t, err)
	}
	sc.last = newLogin(sc.id, maxPerUser(bound), ends(sc.presented.Digest))
	sc.last.UnionID, sc.last.MasterKey = "another", store.MasterKeyID{1, byte(n)}
	h, hb := sc.id.Hash(), sc.other.Hash()
	l.words = []string{
		hexOf(h[:]),
		hexOf(hb[:]),
		hexOf(sc.last.Digest[:]),
		hexOf(sc.presented.Digest[:]),
		hexOf(sc.made[0].Digest[:]),
		sc.last.MasterKey.String(),
	}
	return sc
}

// checkLists: no session holds that is not listed, apart from one whose token
// nobody got to know. strict: none is listed that does not hold.
func (sc *scene) checkLists(t *testing.T, s store.Store, strict bool) {
	t.Helper()
	check := func(id store.UserID, made ...store.Login) {
		u, err := s.User(t.Context(), id)
		must(t, err)
		for i, l := range made {
			in := slices.ContainsFunc(
				u.Sessions,
				func(r store.SessionRef) bool { return r.Digest == l.Digest },
			)
			holds := accepted(t, s, l.Digest)
			unknown := l.Digest == sc.last.Digest && sc.err != nil
			if holds && !in && !unknown || strict && in && !holds {
				t.Errorf("session %d of %v: holds: %v, listed: %v", i, id, holds, in)
			}
		}
		if u.KeyVersion != 1 {
			t.Errorf("the same session_key was counted %d times", u.KeyVersion)
		}
	}
	check(sc.id, append(slices.Clone(sc.made), sc.last)...)
	check(sc.other, sc.presented)
}

// TestLostLogin loses each request and each answer of a login. The client tries
// again, so it is answered, and all is as if nothing had been lost.
func TestLostLogin(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv.Addr)
	cfg := config(p.Addr)
	s, beside := mustOpen(t, cfg), mustOpen(t, with(cfg, srv.Addr))
	users := 0
	n := losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
		users++
		sc := newScene(t, beside, users, l)
		return func() { sc.res, sc.err = s.Login(t.Context(), sc.last) }, func(t *testing.T) {
			if want := []store.Digest{sc.presented.Digest, sc.made[0].Digest}; sc.err != nil ||
				!slices.Equal(sc.res.Ended, want) ||
				!sc.res.UnionIDChanged ||
				!accepted(t, beside, sc.last.Digest) {
				t.Errorf(
					"answered %+v, %v; holds: %v",
					sc.res,
					sc.err,
					accepted(t, beside, sc.last.Digest),
				)
			}
			sc.checkLists(t, beside, true)
			if until := needsOf(t, beside)[sc.last.MasterKey]; until.Before(sc.last.Expires) {
				t.Errorf("its master key is needed until %v only", until)
			}
		}
	})
	if n < 14 { // the rounds of such a login, each lost on both ways
		t.Errorf("only %d losses", n)
	}
}

// TestLoginBetween: at each step of a login, another gate logs the same user
// in: before the engine sees the request, or while its answer is lost and the
// client tries again. What holds is what is listed, as many as are allowed, and
// if it is one, the two do not end each other.
func TestLoginBetween(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv.Addr)
	cfg := config(p.Addr)
	s, beside := mustOpen(t, cfg), mustOpen(t, with(cfg, srv.Addr))
	users := 0
	for _, keep := range []bool{false, true} {
		for limit := 1; limit <= 3; limit++ {
			t.Run(fmt.Sprintf("keep=%v/limit=%d", keep, limit), func(t *testing.T) {
				losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
					users++
					id := userOf(fmt.Sprint("o", users))
					h := id.Hash()
					before, mine, theirs := newLogin(
						id,
						maxPerUser(limit),
					), newLogin(
						id,
						maxPerUser(limit),
					), newLogin(
						id,
						maxPerUser(limit),
					)
					_, err := beside.Login(t.Context(), before)
					must(t, err)
					l.words = []string{hexOf(h[:]), hexOf(mine.Digest[:])}
					l.keep = keep
					l.then = func() {
						if _, err := beside.Login(t.Context(), theirs); err != nil {
							t.Error(err)
						}
					}
					return func() {
							_, err := s.Login(t.Context(), mine)
							must(t, err)
						}, func(t *testing.T) {
							checkOnly(t, beside, id, min(limit, 3), before, mine, theirs)
						}
				})
			})
		}
	}
}

// checkOnly: of the sessions that were made, those hold that are listed, and
// that is so many. (The last case of losses, in which nothing happens in
// between, has one less.)
func checkOnly(t *testing.T, s store.Store, id store.UserID, most int, made ...store.Login) {
	t.Helper()
	listed := mustUser(t, s, id).Sessions
	seen := make(map[store.Digest]bool)
	for _, r := range listed {
		if seen[r.Digest] {
			t.Error("a session is listed twice")
		}
		seen[r.Digest] = true
	}
	if n := len(listed); n != most && n != min(most, len(made)-1) {
		t.Errorf("%d sessions are listed, want %d", n, most)
	}
	for i, l := range made {
		if got := accepted(t, s, l.Digest); got != seen[l.Digest] {
			t.Errorf("session %d holds: %v, listed: %v", i, got, seen[l.Digest])
		}
	}
}

func mustUser(t *testing.T, s store.Store, id store.UserID) store.User {
	t.Helper()
	u, err := s.User(t.Context(), id)
	must(t, err)
	return u
}

// TestLoginInOutage lets the engine go away at each step of a login. Afterwards
// nothing holds that is not listed, and the next login brings all in order: no
// two sessions for one.
func TestLoginInOutage(t *testing.T) {
	redis.NotShort(t)
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv.Addr)
	cfg := config(p.Addr)
	beside := mustOpen(t, with(cfg, srv.Addr))
	cfg.WriteTimeout = 300 * time.Millisecond
	s := mustOpen(t, cfg)
	users, failed := 0, 0
	losses(t, p, s, true, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
		users++
		sc := newScene(t, beside, users, l)
		return func() { sc.res, sc.err = s.Login(t.Context(), sc.last) }, func(t *testing.T) {
			checkErr(t, sc.err)
			if sc.err != nil {
				failed++
			}
			sc.checkLists(t, beside, sc.err == nil)
			next := newLogin(sc.id, maxPerUser(bound))
			_, err := beside.Login(t.Context(), next)
			must(t, err)
			sc.made = append(sc.made, next)
			sc.checkLists(t, beside, false)
			if n := len(mustUser(t, beside, sc.id).Sessions); n != bound {
				t.Errorf("%d sessions after the next login, want %d", n, bound)
			}
		}
	})
	if failed == 0 {
		t.Error("no login has failed")
	}
}

// TestLoginAgain: a login that failed for want of an answer is tried again with
// the same session, whatever of it had been done before, and it is as if it had
// been done once.
func TestLoginAgain(t *testing.T) {
	redis.NotShort(t)
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv.Addr)
	cfg := config(p.Addr)
	beside := mustOpen(t, with(cfg, srv.Addr))
	cfg.WriteTimeout = 300 * time.Millisecond
	s := mustOpen(t, cfg)
	users := 0
	losses(t, p, s, true, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
		users++
		sc := newScene(t, beside, users, l)
		return func() { sc.res, sc.err = s.Login(t.Context(), sc.last) }, func(t *testing.T) {
			for sc.err != nil {
				checkErr(t, sc.err)
				sc.res, sc.err = s.Login(t.Context(), sc.last)
			}
			if !accepted(t, beside, sc.last.Digest) || sc.res.UnionID != "another" {
				t.Errorf("answered %+v; holds: %v", sc.res, accepted(t, beside, sc.last.Digest))
			}
			sc.checkLists(t, beside, false)
			var listed []store.Digest
			for _, r := range mustUser(t, beside, sc.id).Sessions {
				listed = append(listed, r.Digest)
			}
			if want := []store.Digest{sc.made[1].Digest, sc.last.Digest}; !slices.Equal(
				listed,
				want,
			) ||
				!accepted(t, beside, sc.made[1].Digest) {
				t.Errorf(
					"listed %x, want %x; the user's other session holds: %v",
					listed,
					want,
					accepted(t, beside, sc.made[1].Digest),
				)
			}
			for _, d := range []store.Digest{sc.presented.Digest, sc.made[0].Digest} {
				if accepted(t, beside, d) {
					t.Error("what the login ends still holds")
				}
			}
		}
	})
}
