package storetest

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// model is the contract in plain Go: the answers of a store after any sequence of
// calls. Its time runs ahead of the clock, so that no engine removes a session
// that the model still has.
type model struct {
	t     *rapid.T
	s     store.Store
	open  Opener
	now   time.Time
	users map[store.UserID]*modelUser
	all   map[store.Digest]*modelSession // every session ever made
}

type modelUser struct {
	unionID    string
	keyVersion uint64
	key, prev  string
	tag        [8]byte         // of key
	phone      string          // sealed
	sessions   []*modelSession // not ended, oldest first
}

type modelSession struct {
	login       store.Login
	ended       bool
	shown, last time.Time // UsedUntil: of the last lookup, of the latest touch
}

var (
	ctxb       = context.Background()
	modelUsers = []store.UserID{alice, bob, alice2}
)

func testModel(t *testing.T, f *fixture) {
	f.must(f.Close())
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{
			t: rt, open: f.open, now: time.UnixMilli(time.Now().Add(time.Hour).UnixMilli()),
			users: make(map[store.UserID]*modelUser), all: make(map[store.Digest]*modelSession),
		}
		m.start()
		defer func() {
			if err := m.s.Close(); err != nil {
				rt.Errorf("closing: %v", err)
			}
		}()
		for _, id := range modelUsers { // left by the sequence before
			m.must(m.s.RevokeUser(ctxb, id, store.EndRevoked))
			if u, err := m.s.User(ctxb, id); err == nil {
				m.users[id] = &modelUser{
					unionID: u.UnionID, phone: string(u.Phone), keyVersion: u.KeyVersion,
					key: name(u.Key), tag: u.Key.Tag, prev: name(u.PrevKey),
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"login":       m.login,
			"login again": m.login, // twice as likely
			"amend":       m.amend,
			"end":         m.end,
			"revoke user": m.revokeUser,
			"forget":      m.forget,
			"revoke app":  m.revokeApp,
			"revoke all":  m.revokeAll,
			"touch":       m.touch,
			"reopen":      m.reopen,
			"wait":        m.wait,
			"":            m.check,
		})
	})
	f.start()
}

func (m *model) must(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) start() {
	s, err := m.open()
	m.must(err)
	m.s = s
}

// pick draws a session, mostly one that was made.
func (m *model) pick(rt *rapid.T) store.Digest {
	made := slices.SortedFunc(maps.Keys(m.all), func(a, b store.Digest) int {
		return m.all[a].login.Created.Compare(m.all[b].login.Created)
	})
	if len(made) == 0 || rapid.IntRange(0, 9).Draw(rt, "made") == 0 {
		return newDigest()
	}
	return made[rapid.IntRange(0, len(made)-1).Draw(rt, "session")]
}

func (m *model) holds(s *modelSession) bool { return !s.ended && s.login.Expires.After(m.now) }

func (m *model) wait(rt *rapid.T) { m.now = m.now.Add(minutes(rt, 1, 40)) }

func minutes(rt *rapid.T, least, most int) time.Duration {
	return time.Duration(rapid.IntRange(least, most).Draw(rt, "minutes")) * time.Minute
}

func drawUser(rt *rapid.T) store.UserID { return rapid.SampledFrom(modelUsers).Draw(rt, "user") }

func (m *model) login(rt *rapid.T) {
	m.now = m.now.Add(time.Millisecond) // keeps the order of pick the order of logins
	id := drawUser(rt)
	interval := rapid.IntRange(250, 3_600_000).Draw(rt, "interval")
	l := store.Login{
		User:       id,
		UnionID:    rapid.SampledFrom([]string{"", "", "u1", "u2"}).Draw(rt, "unionid"),
		Digest:     newDigest(),
		Created:    m.now,
		Expires:    m.now.Add(minutes(rt, 1, 90)),
		UsedUntil:  m.now.Add(time.Duration(interval) * time.Millisecond),
		MaxPerUser: rapid.IntRange(0, 4).Draw(rt, "max"),
		MasterKey:  rapid.SampledFrom(masterKeys).Draw(rt, "master key"),
	}
	l.Key, l.OldTags = drawKey(rt)
	if rapid.Bool().Draw(rt, "presents") {
		l.Ends = m.pick(rt)
	}
	res, err := m.s.Login(ctxb, l)
	m.must(err)

	u, known := m.users[id]
	if !known {
		u = new(modelUser)
		m.users[id] = u
	}
	if s, ok := m.all[l.Ends]; ok && m.holds(s) {
		s.login.Expires = l.EndsBy(s.login.Expires)
	}
	u.sessions = slices.DeleteFunc(u.sessions, func(s *modelSession) bool { return !m.holds(s) })
	s := &modelSession{login: l, shown: l.UsedUntil, last: l.UsedUntil}
	u.sessions = append(u.sessions, s)
	m.all[l.Digest] = s
	m.checkLogin(l, res, u, known, m.overBound(u, l))
	if l.UnionID != "" {
		u.unionID = l.UnionID
	}
	u.setKey(l.Key, l.OldTags)
}

// overBound ends the sessions over MaxPerUser, and returns them. It says in its own
// words what store.Login.MaxPerUser says.
func (m *model) overBound(u *modelUser, l store.Login) (over []store.Digest) {
	for l.MaxPerUser > 0 {
		staying := slices.DeleteFunc(slices.Clone(u.sessions), func(s *modelSession) bool {
			return s.login.Expires.Sub(m.now) <= store.Grace
		})
		settled := slices.DeleteFunc(slices.Clone(staying), func(s *modelSession) bool {
			return m.now.Sub(s.login.Created) < store.Grace
		})
		var oldest *modelSession
		switch {
		case len(u.sessions) > 2*l.MaxPerUser:
			oldest = u.sessions[0]
		case len(staying) > l.MaxPerUser && len(settled) > 0:
			oldest = settled[0]
		default:
			return over
		}
		over = append(over, oldest.login.Digest)
		oldest.ended = true
		u.sessions = slices.DeleteFunc(u.sessions, func(s *modelSession) bool { return s.ended })
	}
	return over
}

func (u *modelUser) setKey(k store.SealedKey, oldTags [][8]byte) {
	if u.key == "" || u.tag != k.Tag && !slices.Contains(oldTags, u.tag) {
		u.keyVersion, u.prev, u.key = u.keyVersion+1, u.key, name(k)
	}
	u.tag = k.Tag
}

// drawKey draws a key under a ring of master keys. The same key has another tag
// under each of them.
func drawKey(rt *rapid.T) (k store.SealedKey, oldTags [][8]byte) {
	k = key(rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(rt, "key"))
	tags := func(ring string) [8]byte { return key(name(k) + ring).Tag }
	rings := rapid.Permutation([]string{"", "'", "\""}).Draw(rt, "master keys")
	k.Tag = tags(rings[0])
	for _, ring := range rings[1:rapid.IntRange(1, 3).Draw(rt, "keys in the ring")] {
		oldTags = append(oldTags, tags(ring))
	}
	return k, oldTags
}

// checkLogin checks the result against the user before it. A store may report
// more sessions as ended than held, but none that holds.
func (m *model) checkLogin(
	l store.Login, res store.LoginResult, u *modelUser, known bool, must []store.Digest,
) {
	want := u.unionID
	if l.UnionID != "" {
		want = l.UnionID
	}
	if res.UnionID != want {
		m.t.Fatalf("login shows unionid %q, want %q", res.UnionID, want)
	}
	changed := want != u.unionID
	if res.UnionIDChanged && !(known && changed) ||
		!res.UnionIDChanged && changed && len(u.sessions) > 1 {
		m.t.Fatalf("unionid %q became %q: changed is %v", u.unionID, want, res.UnionIDChanged)
	}
	for _, d := range must {
		if !slices.Contains(res.Ended, d) {
			m.t.Fatalf("%x was ended, but not reported", d)
		}
	}
	for _, d := range res.Ended {
		if s, ok := m.all[d]; !ok || m.holds(s) {
			m.t.Fatalf("%x is reported as ended", d)
		}
	}
}

func (m *model) end(rt *rapid.T) {
	d := m.pick(rt)
	m.must(m.s.End(ctxb, d, store.EndLogout))
	if s, ok := m.all[d]; ok {
		s.ended = true
	}
}

func (m *model) revokeUser(rt *rapid.T) {
	id := drawUser(rt)
	m.must(m.s.RevokeUser(ctxb, id, store.EndRevoked))
	m.revoke(func(u store.UserID) bool { return u == id })
}

func (m *model) forget(rt *rapid.T) {
	id := drawUser(rt)
	m.must(m.s.Forget(ctxb, id, store.EndForgotten))
	m.revoke(func(u store.UserID) bool { return u == id })
	delete(m.users, id)
}

func (m *model) amend(rt *rapid.T) {
	m.now = m.now.Add(time.Millisecond)
	id := drawUser(rt)
	a := store.Amendment{UnionID: rapid.SampledFrom([]string{"", "u1", "u2"}).Draw(rt, "unionid")}
	if n := rapid.SampledFrom([]string{"", "p1", "p2"}).Draw(rt, "number"); n != "" {
		a.Phone = []byte(n)
	}
	if rapid.Bool().Draw(rt, "with a key") {
		a.Key, a.OldTags = drawKey(rt)
	}
	u, known := m.users[id]
	if known && rapid.IntRange(0, 3).Draw(rt, "key was") > 0 {
		a.KeyWas = u.tag
	}
	res, err := m.s.Amend(ctxb, id, a)
	if !known {
		if !notFound(err) {
			m.t.Fatalf("amending an unknown user: %v", err)
		}
		return
	}
	m.must(err)
	want := store.Amended{
		UnionIDWas:     u.unionID,
		UnionIDChanged: a.UnionID != "" && a.UnionID != u.unionID,
		KeySet:         a.Key.Box != nil && a.KeyWas == u.tag,
	}
	if res != want {
		m.t.Fatalf("amended %+v, want %+v", res, want)
	}
	if want.UnionIDChanged {
		u.unionID = a.UnionID
	}
	if a.Phone != nil {
		u.phone = string(a.Phone)
	}
	if want.KeySet {
		u.setKey(a.Key, a.OldTags)
	}
}

func (m *model) revokeApp(rt *rapid.T) {
	app := drawUser(rt).AppID
	m.must(m.s.RevokeApp(ctxb, app))
	m.revoke(func(u store.UserID) bool { return u.AppID == app })
}

func (m *model) revokeAll(*rapid.T) {
	m.must(m.s.RevokeAll(ctxb))
	m.revoke(func(store.UserID) bool { return true })
}

func (m *model) revoke(hit func(store.UserID) bool) {
	for _, s := range m.all {
		if hit(s.login.User) {
			s.ended = true
		}
	}
}

func (m *model) touch(rt *rapid.T) {
	d := m.pick(rt)
	at := m.now.Add(minutes(rt, -60, 60))
	m.s.Touch(d, at)
	if s, ok := m.all[d]; ok && at.After(s.last) {
		s.last = at
	}
}

// reopen closes the store, which writes every touch.
func (m *model) reopen(*rapid.T) {
	m.must(m.s.Close())
	m.start()
	for _, s := range m.all {
		s.shown = s.last
	}
}

// check compares all answers of the store with the model.
func (m *model) check(rt *rapid.T) {
	m.must(m.s.Health(ctxb))
	needs, err := m.s.MasterKeys(ctxb)
	m.must(err)
	for d, s := range m.all {
		m.checkSession(d, s)
		if until := needs[s.login.MasterKey]; m.holds(s) && until.Before(s.login.Expires) {
			m.t.Fatalf("a session until %v, its master key is needed until %v",
				s.login.Expires, until)
		}
	}
	for _, id := range modelUsers {
		m.checkUser(id)
	}
	for _, unionID := range []string{"", "u1", "u2"} {
		m.checkUnion(unionID)
	}
}

func (m *model) checkUnion(unionID string) {
	var want []store.UserID
	for _, id := range modelUsers {
		if u, known := m.users[id]; known && unionID != "" && u.unionID == unionID {
			want = append(want, id)
		}
	}
	got, err := byUnionID(m.s, unionID)
	m.must(err)
	if !slices.Equal(got, want) {
		m.t.Fatalf("users with unionid %q: %v, want %v", unionID, got, want)
	}
}

func (m *model) checkSession(d store.Digest, s *modelSession) {
	rec, err := m.s.Lookup(ctxb, d)
	if err != nil && !notFound(err) {
		m.t.Fatal(err)
	}
	if !s.ended && !m.holds(s) {
		return // expired: a store may keep it
	}
	found := err == nil && live(rec)
	if found == s.ended {
		m.t.Fatalf("session %x: found %v, ended %v", d[:4], found, s.ended)
	}
	if !found {
		return
	}
	got, l := rec.Session, s.login
	u := m.users[l.User]
	if got.User != l.User || !got.Created.Equal(l.Created) || !got.Expires.Equal(l.Expires) ||
		rec.UnionID != u.unionID || string(rec.Phone) != u.phone {
		m.t.Fatalf("session %+v, login was %+v", rec, l)
	}
	if got.UsedUntil.Before(s.shown) || got.UsedUntil.After(s.last) {
		m.t.Fatalf("used until %v, want from %v to %v", got.UsedUntil, s.shown, s.last)
	}
	s.shown = got.UsedUntil
}

func (m *model) checkUser(id store.UserID) {
	got, err := m.s.User(ctxb, id)
	want, known := m.users[id]
	if !known {
		if !notFound(err) {
			m.t.Fatalf("user %v: %v", id, err)
		}
		return
	}
	m.must(err)
	if got.UnionID != want.unionID || string(got.Phone) != want.phone ||
		got.KeyVersion != want.keyVersion ||
		name(got.Key) != want.key || name(got.PrevKey) != want.prev {
		m.t.Fatalf("user %+v, want %+v", got, want)
	}
	listed := slices.DeleteFunc(got.Sessions, func(r store.SessionRef) bool {
		s, ok := m.all[r.Digest]
		return !ok || !m.holds(s)
	})
	holding := slices.DeleteFunc(slices.Clone(want.sessions), func(s *modelSession) bool {
		return !m.holds(s)
	})
	if !slices.EqualFunc(listed, holding, func(r store.SessionRef, s *modelSession) bool {
		return r.Digest == s.login.Digest && r.Created.Equal(s.login.Created) &&
			r.Expires.Equal(s.login.Expires)
	}) {
		m.t.Fatalf("listed %+v, want %+v", listed, holding)
	}
}

// name is the inverse of key.
func name(k store.SealedKey) string {
	if len(k.Box) == 0 {
		return ""
	}
	return string(k.Box[len("box of "):])
}
