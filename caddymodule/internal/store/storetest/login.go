package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func testLoginRecorded(t *testing.T, f *fixture) {
	l, res := f.login(alice, unionID("union"))
	if res.UnionID != "union" || res.UnionIDChanged || len(res.Ended) != 0 {
		t.Errorf("result of a first login: %+v", res)
	}
	checkRecorded(t, f, l)
	checkUser(t, f, l)
	if f.accepted(newDigest()) {
		t.Error("an unknown session is accepted")
	}
	if _, err := f.User(t.Context(), alice2); err == nil {
		t.Error("the openid is known in a mini program where it never logged in")
	}
}

func testLoginDurable(t *testing.T, f *fixture) {
	l, _ := f.login(alice, unionID("union"))
	f.reopen()
	checkRecorded(t, f, l)
	checkUser(t, f, l)
	again, _ := f.login(alice)
	if !f.accepted(l.Digest) || !f.accepted(again.Digest) {
		t.Error("a login after a restart ended a session")
	}
}

func checkRecorded(t *testing.T, f *fixture, l store.Login) {
	t.Helper()
	rec, err := f.Lookup(t.Context(), l.Digest)
	f.must(err)
	s := rec.Session
	if s.User != l.User || !s.Created.Equal(l.Created) || !s.UsedUntil.Equal(l.UsedUntil) || !s.Expires.Equal(l.Expires) || rec.UnionID != l.UnionID {
		t.Errorf("recorded %+v for %+v", rec, l)
	}
	if !live(rec) {
		t.Errorf("a new session does not hold: %+v", rec)
	}
}

func checkUser(t *testing.T, f *fixture, l store.Login) {
	t.Helper()
	u := f.user(l.User)
	refs := []store.SessionRef{{Digest: l.Digest, Created: l.Created, Expires: l.Expires}}
	if u.ID != l.User || u.UnionID != l.UnionID || u.KeyVersion != 1 || !sameKey(u.Key, l.Key) || u.PrevKey.Box != nil || !u.LastLogin.Equal(l.Created) || !slices.EqualFunc(u.Sessions, refs, sameRef) {
		t.Errorf("user %+v after %+v", u, l)
	}
}

func testLoginUnionID(t *testing.T, f *fixture) {
	first, _ := f.login(alice)
	for _, step := range []struct {
		told, want string
		changed    bool
	}{
		{"", "", false},
		{"a", "a", true}, // bound later than the first login
		{"", "a", false}, // not told is not unbound
		{"a", "a", false},
		{"b", "b", true},
	} {
		l, res := f.login(alice, unionID(step.told))
		if res.UnionID != step.want || res.UnionIDChanged != step.changed {
			t.Errorf("told %q: %+v", step.told, res)
		}
		for _, d := range []store.Digest{first.Digest, l.Digest} {
			rec, err := f.Lookup(t.Context(), d)
			f.must(err)
			if rec.UnionID != step.want {
				t.Errorf("told %q: a session shows %q", step.told, rec.UnionID)
			}
		}
	}
	if _, res := f.login(bob, unionID("b")); res.UnionIDChanged {
		t.Error("a first login changed the unionid of other sessions")
	}
	f.login(alice2)
	if u := f.user(alice2); u.UnionID != "" {
		t.Errorf("the unionid %q crossed over from another mini program", u.UnionID)
	}
}

func testLoginKeyVersions(t *testing.T, f *fixture) {
	resealed := key("1")
	resealed.Box = []byte("another envelope")
	rotated := store.SealedKey{Tag: key("1+").Tag, Box: []byte("an envelope under another master key")}
	none := store.SealedKey{}
	for i, step := range []struct {
		key       store.SealedKey
		old       string // what the same key's tag came from before
		cur, prev store.SealedKey
		version   uint64
	}{
		{key("1"), "", key("1"), none, 1},
		{resealed, "", resealed, none, 1},
		{rotated, "1", rotated, none, 1},
		{rotated, "1", rotated, none, 1},
		{key("2"), "x", key("2"), rotated, 2},
		{key("2"), "", key("2"), rotated, 2},
		{key("1"), "", key("1"), key("2"), 3},
	} {
		f.login(alice, withKey(step.key), oldTags(step.old))
		u := f.user(alice)
		if u.KeyVersion != step.version || !sameKey(u.Key, step.cur) || !sameKey(u.PrevKey, step.prev) {
			t.Errorf("step %d: version %d, key %q, previous %q", i, u.KeyVersion, u.Key.Box, u.PrevKey.Box)
		}
	}
	f.must(f.RevokeUser(t.Context(), alice))
	f.login(alice, withKey(key("3")))
	if u := f.user(alice); u.KeyVersion != 4 || !sameKey(u.PrevKey, key("1")) {
		t.Errorf("after a revocation: version %d, previous %q", u.KeyVersion, u.PrevKey.Box)
	}
}

func testLoginMaxPerUser(t *testing.T, f *fixture) {
	other, _ := f.login(bob)
	var made []store.Digest
	for range 4 {
		l, res := f.login(alice, maxPerUser(4))
		made = append(made, l.Digest)
		if len(res.Ended) != 0 {
			t.Fatalf("below the bound, a login ended %x", res.Ended)
		}
	}
	l, res := f.login(alice, maxPerUser(4))
	made = append(made, l.Digest)
	if !slices.Equal(res.Ended, made[:1]) {
		t.Errorf("ended %x, want the oldest, %x", res.Ended, made[0])
	}
	l, res = f.login(alice, maxPerUser(2)) // a lowered bound
	made = append(made, l.Digest)
	if !slices.Equal(res.Ended, made[1:4]) {
		t.Errorf("ended %x, want %x", res.Ended, made[1:4])
	}
	for i, d := range made {
		if got, want := f.accepted(d), i >= 4; got != want {
			t.Errorf("session %d accepted: %v", i, got)
		}
	}
	if !f.accepted(other.Digest) {
		t.Error("the bound of one user ended the session of another")
	}
	checkList(t, f, alice, made[4:])

	// The presented session makes room before the bound is applied.
	l, res = f.login(alice, maxPerUser(2), ends(made[5]))
	if !slices.Equal(res.Ended, made[5:]) || !f.accepted(made[4]) || !f.accepted(l.Digest) {
		t.Errorf("ended %x, want only the presented %x", res.Ended, made[5])
	}
}

func testLoginPrunesExpired(t *testing.T, f *fixture) {
	old, _ := f.login(alice, ago(2*time.Hour))
	keep, _ := f.login(alice)
	l, res := f.login(alice, maxPerUser(2))
	if slices.Contains(res.Ended, keep.Digest) || !f.accepted(keep.Digest) || !f.accepted(l.Digest) {
		t.Errorf("an expired session took room: ended %x", res.Ended)
	}
	if slices.ContainsFunc(f.user(alice).Sessions, func(r store.SessionRef) bool { return r.Digest == old.Digest }) {
		t.Error("an expired session is listed after a login")
	}
}

// testLoginParallel: two devices of one user that log in at the same instant keep each other (DESIGN.md 2).
func testLoginParallel(t *testing.T, f *fixture) {
	const n = 8
	var wg sync.WaitGroup
	made := make([]store.Login, n)
	for i := range made {
		made[i] = newLogin(alice, maxPerUser(n))
		wg.Go(func() {
			res, err := f.Login(t.Context(), made[i])
			if err != nil || len(res.Ended) != 0 {
				t.Errorf("login: %+v, %v", res, err)
			}
		})
	}
	wg.Wait()
	for _, l := range made {
		if !f.accepted(l.Digest) {
			t.Error("parallel logins ended each other")
		}
	}
	if got := len(f.user(alice).Sessions); got != n {
		t.Errorf("%d sessions listed, want %d", got, n)
	}
}

func testLoginEnds(t *testing.T, f *fixture) {
	mine, _ := f.login(alice)
	foreign, _ := f.login(bob)
	expired, _ := f.login(alice, ago(2*time.Hour))
	keep, _ := f.login(alice)

	_, res := f.login(alice, ends(mine.Digest))
	if !slices.Equal(res.Ended, []store.Digest{mine.Digest}) || f.accepted(mine.Digest) {
		t.Errorf("own session: ended %x", res.Ended)
	}
	if _, res = f.login(alice, ends(mine.Digest)); len(res.Ended) != 0 {
		t.Errorf("already ended session: ended %x", res.Ended)
	}
	if _, res = f.login(alice, ends(newDigest())); len(res.Ended) != 0 {
		t.Errorf("unknown session: ended %x", res.Ended)
	}
	if _, res = f.login(alice, ends(expired.Digest)); slices.ContainsFunc(res.Ended, func(d store.Digest) bool { return d != expired.Digest }) {
		t.Errorf("expired session: ended %x", res.Ended)
	}
	_, res = f.login(alice, ends(foreign.Digest))
	if !slices.Equal(res.Ended, []store.Digest{foreign.Digest}) || f.accepted(foreign.Digest) {
		t.Errorf("another user's session: ended %x", res.Ended)
	}
	checkList(t, f, bob, nil)
	if !f.accepted(keep.Digest) {
		t.Error("a session that was not presented has ended")
	}
	f.reopen()
	for _, d := range []store.Digest{mine.Digest, foreign.Digest} {
		if f.accepted(d) {
			t.Error("an ended session came back with a restart")
		}
	}
}

// checkList checks what is listed of the sessions that have not expired.
func checkList(t *testing.T, f *fixture, id store.UserID, want []store.Digest) {
	t.Helper()
	var got []store.Digest
	for _, r := range f.user(id).Sessions {
		if r.Expires.After(time.Now()) {
			got = append(got, r.Digest)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %x, want %x", got, want)
	}
}

func sameKey(a, b store.SealedKey) bool { return a.Tag == b.Tag && slices.Equal(a.Box, b.Box) }

func sameRef(a, b store.SessionRef) bool {
	return a.Digest == b.Digest && a.Created.Equal(b.Created) && a.Expires.Equal(b.Expires)
}
