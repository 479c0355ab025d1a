package redis

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const bound = 2

// scene is all that a login can do: a user at the limit logs in with another unionid
// and presents the session of another user.
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
		sc.made = append(sc.made, mustLogin(t, s, newLogin(sc.id, maxPerUser(bound), old)))
	}
	sc.presented = mustLogin(t, s, newLogin(sc.other))
	sc.last = newLogin(sc.id, maxPerUser(bound), ends(sc.presented.Digest), unionID("another"))
	sc.last.MasterKey = store.MasterKeyID{1, byte(n)}
	h, hb := sc.id.Hash(), sc.other.Hash()
	l.words = []string{hexOf(h[:]), hexOf(hb[:]), sc.last.MasterKey.String()}
	for _, made := range []store.Login{sc.last, sc.presented, sc.made[0]} {
		l.words = append(l.words, hexOf(made.Digest[:]))
	}
	return sc
}

// checkPresented: the session that the last login presented ends soon, and its user's
// list shows it.
func (sc *scene) checkPresented(t *testing.T, s store.Store) {
	t.Helper()
	rec, err := s.Lookup(t.Context(), sc.presented.Digest)
	must(t, err)
	at, by := rec.Session.Expires, sc.last.Created.Add(store.Grace)
	ref := store.SessionRef{
		Digest: sc.presented.Digest, Created: sc.presented.Created, Expires: at,
	}
	if listed := mustUser(t, s, sc.other).Sessions; at.After(by) ||
		!slices.Equal(listed, []store.SessionRef{ref}) {
		t.Errorf("the presented session ends at %v, want %v; listed: %v", at, by, listed)
	}
}

// checkLists: each session that holds is listed, but for one whose token no client
// knows. strict: each listed session holds.
func (sc *scene) checkLists(t *testing.T, s store.Store, strict bool) {
	t.Helper()
	check := func(id store.UserID, made ...store.Login) {
		u := mustUser(t, s, id)
		for i, l := range made {
			in, holds := lists(u, l), accepted(t, s, l.Digest)
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

func lists(u store.User, l store.Login) bool {
	is := func(r store.SessionRef) bool { return r.Digest == l.Digest }
	return slices.ContainsFunc(u.Sessions, is)
}

// TestLogin_RequestLost_IsMade loses each request and each answer of a login. The
// client retries, and all is as if nothing had been lost.
func TestLogin_RequestLost_IsMade(t *testing.T) {
	t.Parallel()
	notShort(t)
	p, s, beside := newLossy(t)
	users := 0
	n := losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
		users++
		sc := newScene(t, beside, users, l)
		run := func() { sc.res, sc.err = s.Login(t.Context(), sc.last) }
		return run, func(t *testing.T) {
			holds := accepted(t, beside, sc.last.Digest)
			ended := []store.Digest{sc.made[0].Digest}
			if sc.err != nil || !slices.Equal(sc.res.Ended, ended) ||
				!sc.res.UnionIDChanged || !holds {
				t.Errorf("answered %+v, %v; holds: %v", sc.res, sc.err, holds)
			}
			sc.checkPresented(t, beside)
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

// TestLogin_AnotherBetween_ListIsTrue: at each step of a login another gate logs the
// same user in, before the engine sees the request or before the retry. The sessions
// that hold are those on the list, as many as the limit; at limit 1 the logins do not
// end each other.
func TestLogin_AnotherBetween_ListIsTrue(t *testing.T) {
	t.Parallel()
	p, s, beside := newLossy(t)
	users := 0
	for _, keep := range []bool{false, true} {
		for limit := 1; limit <= 3; limit++ {
			t.Run(fmt.Sprintf("keep=%v/limit=%d", keep, limit), func(t *testing.T) {
				losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
					users++
					id := userOf(fmt.Sprint("o", users))
					h := id.Hash()
					before := mustLogin(t, beside, newLogin(id, maxPerUser(limit), old))
					mine, theirs := newLogin(id, maxPerUser(limit)), newLogin(id, maxPerUser(limit))
					l.words = []string{hexOf(h[:]), hexOf(mine.Digest[:])}
					l.keep = keep
					l.then = func() {
						if _, err := beside.Login(t.Context(), theirs); err != nil {
							t.Error(err)
						}
					}
					return func() { mustLogin(t, s, mine) }, func(t *testing.T) {
						checkOnly(t, beside, id, limit, before, mine, theirs)
					}
				})
			})
		}
	}
}

// checkOnly: the made sessions that hold are the listed ones. These are the young ones,
// without the last in the last case of losses, and the old one if the limit has room.
func checkOnly(t *testing.T, s store.Store, id store.UserID, limit int, made ...store.Login) {
	t.Helper()
	want := 2
	if !accepted(t, s, made[2].Digest) {
		want = 1
	}
	if limit > want {
		want++
	}
	u := mustUser(t, s, id)
	seen := make(map[store.Digest]bool)
	for _, r := range u.Sessions {
		if seen[r.Digest] {
			t.Error("a session is listed twice")
		}
		seen[r.Digest] = true
	}
	if n := len(u.Sessions); n != want {
		t.Errorf("%d sessions are listed, want %d", n, want)
	}
	for i, l := range made {
		if got := accepted(t, s, l.Digest); got != seen[l.Digest] {
			t.Errorf("session %d holds: %v, listed: %v", i, got, seen[l.Digest])
		}
	}
}

// quick limits the time of calls that an outage leaves.
func quick(c *Config) { c.WriteTimeout = 300 * time.Millisecond }

// TestLogin_Outage_ListStaysTrue lets the engine go away at each step of a login. No
// session off the list holds then, and the next login restores the limit.
func TestLogin_Outage_ListStaysTrue(t *testing.T) {
	notShort(t)
	t.Parallel()
	p, s, beside := newLossy(t, quick)
	users, failed := 0, 0
	losses(t, p, s, true, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
		users++
		sc := newScene(t, beside, users, l)
		run := func() { sc.res, sc.err = s.Login(t.Context(), sc.last) }
		return run, func(t *testing.T) {
			checkErr(t, sc.err)
			if sc.err != nil {
				failed++
			}
			sc.checkLists(t, beside, sc.err == nil)
			later := func(l *store.Login) { old(l); l.Created = l.Created.Add(4 * store.Grace) }
			next := mustLogin(t, beside, newLogin(sc.id, maxPerUser(bound), later))
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

// TestLogin_RetriedAfterOutage_IsMadeOnce: a retry with the same session leaves the
// same behind as one login, whatever the failed ones have done.
func TestLogin_RetriedAfterOutage_IsMadeOnce(t *testing.T) {
	notShort(t)
	t.Parallel()
	p, s, beside := newLossy(t, quick)
	users := 0
	losses(t, p, s, true, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
		users++
		sc := newScene(t, beside, users, l)
		run := func() { sc.res, sc.err = s.Login(t.Context(), sc.last) }
		return run, func(t *testing.T) {
			for sc.err != nil {
				checkErr(t, sc.err)
				run()
			}
			if holds := accepted(t, beside, sc.last.Digest); !holds || sc.res.UnionID != "another" {
				t.Errorf("answered %+v; holds: %v", sc.res, holds)
			}
			sc.checkLists(t, beside, false)
			var listed []store.Digest
			for _, r := range mustUser(t, beside, sc.id).Sessions {
				listed = append(listed, r.Digest)
			}
			want := []store.Digest{sc.made[1].Digest, sc.last.Digest}
			holds := accepted(t, beside, sc.made[1].Digest)
			if !slices.Equal(listed, want) || !holds {
				t.Errorf("listed %x, want %x; the other session holds: %v", listed, want, holds)
			}
			if accepted(t, beside, sc.made[0].Digest) {
				t.Error("a session that the login ends still holds")
			}
			sc.checkPresented(t, beside)
		}
	})
}
