package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func testLoginRecorded(t *testing.T, f *fixture) {
	l, res := f.login(alice, unionID("union"))
	if res.UnionID != "union" || res.UnionIDChanged || len(res.Ended) != 0 {
		t.Errorf("result of a first login: %+v", res)
	}
	for range 2 {
		f.checkRecorded(l)
		if f.accepted(newDigest()) {
			t.Error("an unknown session is accepted")
		}
		if _, err := f.User(t.Context(), alice2); !notFound(err) {
			t.Error("the openid is known in a mini program where it never logged in")
		}
		f.reopen()
	}
	again, _ := f.login(alice)
	f.checkAccepted(true, "after a login", l, again)
}

// checkRecorded checks the records of the only session of a user.
func (f *fixture) checkRecorded(l store.Login) {
	f.t.Helper()
	rec := f.lookup(l.Digest)
	s := rec.Session
	if s.User != l.User || !s.Created.Equal(l.Created) || !s.UsedUntil.Equal(l.UsedUntil) ||
		!s.Expires.Equal(l.Expires) || rec.UnionID != l.UnionID || !live(rec) {
		f.t.Errorf("recorded %+v for %+v", rec, l)
	}
	u := f.user(l.User)
	if u.ID != l.User || u.UnionID != l.UnionID || !u.LastLogin.Equal(l.Created) ||
		u.KeyVersion != 1 || !sameKey(u.Key, l.Key) || u.PrevKey.Box != nil {
		f.t.Errorf("user %+v after %+v", u, l)
	}
	f.checkList(l.User, l)
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
			if got := f.lookup(d).UnionID; got != step.want {
				t.Errorf("told %q: a session shows %q", step.told, got)
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

// The proof of a unionid stays beside it.
func testLoginProof(t *testing.T, f *fixture) {
	proof := func(b byte) store.Proof { return store.Proof{b, 15: b} }
	var first store.Login
	for i, step := range []struct {
		unionID     string
		proof, want store.Proof
		changed     bool
	}{
		{"a", store.Proof{}, store.Proof{}, false}, // a gate of before
		{"a", proof(1), proof(1), true},
		{"", store.Proof{}, proof(1), false},
		{"a", proof(1), proof(1), false},
		{"a", proof(2), proof(2), true}, // another master key
		{"b", proof(3), proof(3), true},
	} {
		proven := func(l *store.Login) { l.Proof = step.proof }
		l, res := f.login(alice, unionID(step.unionID), proven)
		if i == 0 {
			first = l
		}
		if res.Proof != step.want || res.UnionIDChanged != step.changed {
			t.Errorf("step %d: %+v", i, res)
		}
		f.checkProof(first, step.want)
	}
	f.reopen()
	f.checkProof(first, proof(3))
	for _, p := range []store.Proof{proof(4), proof(4)} {
		_, err := f.Amend(t.Context(), alice, store.Amendment{UnionID: "b", Proof: p})
		f.must(err)
		f.checkProof(first, p)
	}
	_, err := f.Amend(t.Context(), alice, store.Amendment{Phone: []byte("sealed")})
	f.must(err)
	f.checkProof(first, proof(4))
	f.must(f.Forget(t.Context(), alice, store.EndForgotten))
	again, res := f.login(alice, unionID("b"))
	if f.checkProof(again, store.Proof{}); res.Proof != (store.Proof{}) {
		t.Errorf("after Forget: %+v", res)
	}
}

func (f *fixture) checkProof(l store.Login, want store.Proof) {
	f.t.Helper()
	if got, of := f.lookup(l.Digest).Proof, f.user(l.User).Proof; got != want || of != want {
		f.t.Errorf("proof %x, of the user %x, want %x", got, of, want)
	}
}

func testLoginKeyVersions(t *testing.T, f *fixture) {
	resealed := key("1")
	resealed.Box = []byte("another envelope")
	rotated := store.SealedKey{Tag: key("1+").Tag, Box: []byte("under another master key")}
	none := store.SealedKey{}
	for i, step := range []struct {
		key       store.SealedKey
		old       string // name of an older tag
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
		f.login(alice, withKey(step.key), func(l *store.Login) {
			l.OldTags = [][8]byte{key("other").Tag, key(step.old).Tag}
		})
		u := f.user(alice)
		if u.KeyVersion != step.version || !sameKey(u.Key, step.cur) ||
			!sameKey(u.PrevKey, step.prev) {
			t.Errorf("step %d: version %d, key %q, previous %q",
				i, u.KeyVersion, u.Key.Box, u.PrevKey.Box)
		}
	}
	f.must(f.RevokeUser(t.Context(), alice, store.EndRevoked))
	f.login(alice, withKey(key("3")))
	if u := f.user(alice); u.KeyVersion != 4 || !sameKey(u.PrevKey, key("1")) {
		t.Errorf("after a revocation: version %d, previous %q", u.KeyVersion, u.PrevKey.Box)
	}
}

func testLoginMaxPerUser(t *testing.T, f *fixture) {
	other, _ := f.login(bob)
	var made []store.Login
	for _, step := range []struct{ bound, from, to int }{ // ends made[from:to]
		{4, 0, 0},
		{4, 0, 0},
		{4, 0, 0},
		{4, 0, 0},
		{4, 0, 1}, // the oldest
		{2, 1, 4}, // a lowered bound
	} {
		age := store.Grace * time.Duration(10-len(made)) // as old as need be at the next login
		l, res := f.login(alice, maxPerUser(step.bound), ago(age))
		made = append(made, l)
		if want := digestsOfLogins(made[step.from:step.to]); !slices.Equal(res.Ended, want) {
			t.Errorf("login %d ended %x, want %x", len(made), res.Ended, want)
		}
	}
	f.checkAccepted(false, "over the bound", made[:4]...)
	f.checkAccepted(true, "within the bound", append(made[4:], other)...)
	f.checkList(alice, made[4:]...)

	// The presented session makes room, though it holds yet.
	l, res := f.login(alice, maxPerUser(2), ends(made[5]))
	if len(res.Ended) != 0 {
		t.Errorf("ended %x beside the presented session", res.Ended)
	}
	f.checkAccepted(true, "beside the presented one", made[4], made[5], l)
}

// Sessions younger than Grace stay, up to twice the bound; that counts all.
func testLoginMaxPerUserYoung(t *testing.T, f *fixture) {
	old, _ := f.login(alice, ago(store.Grace))
	made := []store.Login{old}
	login := func(want ...store.Login) {
		t.Helper()
		l, res := f.login(alice, maxPerUser(2), ends(made[len(made)-1]))
		if !slices.Equal(res.Ended, digestsOfLogins(want)) {
			t.Errorf("login %d ended %x, want %x", len(made), res.Ended, digestsOfLogins(want))
		}
		f.checkAccepted(false, "over twice the bound", want...)
		made = append(made, l)
	}
	login()
	login()
	login()
	login(made[0])
	login(made[1])
	f.checkAccepted(true, "within twice the bound", made[2:]...)
	for range 2 {
		l, _ := f.login(bob, maxPerUser(1))
		f.login(bob, maxPerUser(1))
		f.checkAccepted(true, "young", l)
		f.must(f.RevokeUser(t.Context(), bob, store.EndRevoked))
	}
}

func digestsOfLogins(logins []store.Login) (ds []store.Digest) {
	for _, l := range logins {
		ds = append(ds, l.Digest)
	}
	return ds
}

func testLoginPrunesExpired(t *testing.T, f *fixture) {
	old, _ := f.login(alice, ago(2*time.Hour))
	keep, _ := f.login(alice)
	l, res := f.login(alice, maxPerUser(2))
	if slices.Contains(res.Ended, keep.Digest) {
		t.Errorf("an expired session took room: ended %x", res.Ended)
	}
	f.checkAccepted(true, "beside an expired one", keep, l)
	if slices.Contains(digestsOf(f.user(alice).Sessions), old.Digest) {
		t.Error("an expired session is listed after a login")
	}
}

// Two devices of one user that log in at the same instant keep each other.
func testLoginParallel(t *testing.T, f *fixture) {
	const n = 8
	made := make([]store.Login, n)
	parallel(n, func(i int) {
		made[i] = newLogin(alice, maxPerUser(n))
		res, err := f.Login(t.Context(), made[i])
		if err != nil || len(res.Ended) != 0 {
			t.Errorf("login: %+v, %v", res, err)
		}
	})
	f.checkAccepted(true, "after parallel logins", made...)
	if got := len(f.user(alice).Sessions); got != n {
		t.Errorf("%d sessions listed, want %d", got, n)
	}
}

// A presented session holds for Grace yet, whose ever it is, and never for longer than
// it did.
func testLoginEnds(t *testing.T, f *fixture) {
	mine, _ := f.login(alice)
	foreign, _ := f.login(bob)
	short, _ := f.login(alice, func(l *store.Login) { l.Expires = l.Created.Add(store.Grace / 2) })
	expired, _ := f.login(alice, ago(2*time.Hour))
	keep, _ := f.login(alice)
	for _, step := range []struct {
		name      string
		presented store.Login
		most      time.Duration // from the login on; 0: not live
	}{
		{"own", mine, store.Grace},
		{"presented before", mine, store.Grace},
		{"short", short, store.Grace / 2},
		{"unknown", newLogin(alice), 0},
		{"another user's", foreign, store.Grace},
	} {
		l, res := f.login(alice, ends(step.presented))
		if len(res.Ended) != 0 {
			t.Errorf("%s session: ended %x", step.name, res.Ended)
		}
		f.reopen()
		if f.accepted(step.presented.Digest) != (step.most > 0) {
			t.Errorf("%s session: holds: %v", step.name, step.most == 0)
		} else if step.most > 0 {
			f.checkExpires(step.presented, l.Created.Add(step.most))
		}
	}
	first := f.lookup(mine.Digest).Session.Expires
	f.login(alice, ago(time.Second), ends(mine)) // a clock behind
	if at := f.lookup(mine.Digest).Session.Expires; at.After(first) {
		t.Errorf("presented again, it lives until %v, not %v", at, first)
	}
	_, res := f.login(alice, ends(expired))
	for _, d := range res.Ended { // a store may still have it
		if d != expired.Digest {
			t.Errorf("expired session: ended %x", res.Ended)
		}
	}
	f.checkAccepted(true, "not presented", keep)
	if at := f.lookup(keep.Digest).Session.Expires; !at.Equal(keep.Expires) {
		t.Errorf("another session lives until %v", at)
	}
	f.must(f.RevokeUser(t.Context(), bob, store.EndRevoked))
	f.must(f.End(t.Context(), mine.Digest, store.EndLogout))
	f.checkAccepted(false, "ended within Grace", mine, foreign)
}

// checkExpires checks that a session, and its user's list, show that it ends by a time.
func (f *fixture) checkExpires(l store.Login, by time.Time) {
	f.t.Helper()
	at := f.lookup(l.Digest).Session.Expires
	listed := time.Time{}
	for _, r := range f.user(l.User).Sessions {
		if r.Digest == l.Digest {
			listed = r.Expires
		}
	}
	if at.After(by) || !listed.Equal(at) {
		f.t.Errorf("it ends at %v, listed at %v, want %v", at, listed, by)
	}
}
