package store_test

import (
	"crypto/sha256"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Package storetest tests Admit and Amend by way of the engines. Here is what no
// engine shows.

var (
	alice = store.UserID{AppID: "wx0123456789abcdef", OpenID: "oAlice"}
	noon  = time.UnixMilli(1_700_000_000_000)
)

func digest(n byte) store.Digest { return store.Digest{7: n - 1, 31: n} }

func key(n byte) store.SealedKey {
	return store.SealedKey{Tag: [8]byte{n}, Box: []byte{n, n, n}}
}

// login makes the n-th session of alice, n minutes after noon and an hour long.
func login(n byte) store.Login {
	created := noon.Add(time.Duration(n) * time.Minute)
	return store.Login{
		User: alice, Key: key(1), Digest: digest(n),
		Created: created, Expires: created.Add(time.Hour),
	}
}

func listed(u store.User) []store.Digest {
	var out []store.Digest
	for _, s := range u.Sessions {
		out = append(out, s.Digest)
	}
	return out
}

func TestAdmit_MaxPerUser_OldestGo(t *testing.T) {
	for _, tt := range []struct {
		name        string
		have        []byte
		next        byte
		max         int
		ended, gone []store.Digest // gone: expired
		left        []store.Digest
	}{
		{"no bound", []byte{1}, 9, 0, nil, nil, []store.Digest{digest(1), digest(9)}},
		{"negative", []byte{1}, 9, -1, nil, nil, []store.Digest{digest(1), digest(9)}},
		{
			"bound was lowered",
			[]byte{1, 2, 3},
			9, 2,
			[]store.Digest{digest(1), digest(2)},
			nil,
			[]store.Digest{digest(3), digest(9)},
		},
		{
			"at the instant that the first expires",
			[]byte{1, 2},
			61, 2,
			nil,
			[]store.Digest{digest(1)},
			[]store.Digest{digest(2), digest(61)},
		},
	} {
		var u store.User
		for _, n := range tt.have {
			u.Admit(login(n))
		}
		l := login(tt.next)
		l.MaxPerUser = tt.max
		ended, expired := u.Admit(l)
		if !slices.Equal(ended, tt.ended) || !slices.Equal(expired, tt.gone) ||
			!slices.Equal(listed(u), tt.left) {
			t.Errorf("%s: ended %x, expired %x, left %x", tt.name, ended, expired, listed(u))
		}
	}
}

func TestAdmit_Copy_SharesNoMemory(t *testing.T) {
	var u store.User
	u.Admit(login(1))
	u.Admit(login(2))
	before := u
	l := login(3)
	l.MaxPerUser = 1
	u.Admit(l)
	before.Drop(digest(1))
	if !slices.Equal(listed(before), []store.Digest{digest(2)}) ||
		!slices.Equal(listed(u), []store.Digest{digest(3)}) {
		t.Fatalf("lists share memory: %x, %x", listed(before), listed(u))
	}
}

// TestAdmit_MaxPerUserYoung_StaysUpToTwice: sessions are made seconds after noon, and
// those that leave end half a minute after the login.
func TestAdmit_MaxPerUserYoung_StaysUpToTwice(t *testing.T) {
	const leaves = 100 // added to the number of a session that leaves
	for _, tt := range []struct {
		name  string
		have  []byte
		at    byte // seconds
		max   int
		ended []store.Digest
	}{
		{"all young", []byte{1, 2, 3}, 50, 2, nil},
		{"over twice", []byte{1, 2, 3, 4}, 50, 2, []store.Digest{digest(1)}},
		{"an old one among them", []byte{1, 12, 13}, 70, 2, []store.Digest{digest(1)}},
		{"as old as need be", []byte{1, 12}, 61, 2, []store.Digest{digest(1)}},
		{"a moment younger", []byte{2, 12}, 61, 2, nil},
		{"leaving ones do not count", []byte{1, leaves + 2, leaves + 3}, 90, 2, nil},
		{
			"leaving ones count for twice",
			[]byte{1, leaves + 2, leaves + 3},
			90, 1,
			[]store.Digest{digest(1), digest(leaves + 2)},
		},
	} {
		var u store.User
		l := login(0)
		l.Created, l.Digest = noon.Add(time.Duration(tt.at)*time.Second), digest(200)
		l.MaxPerUser = tt.max
		for _, n := range tt.have {
			ref := store.SessionRef{Digest: digest(n), Expires: noon.Add(time.Hour)}
			if n > leaves {
				ref.Expires = l.Created.Add(store.Grace / 2)
			}
			ref.Created = noon.Add(time.Duration(n%leaves) * time.Second)
			u.Sessions = append(u.Sessions, ref)
		}
		if ended, _ := u.Admit(l); !slices.Equal(ended, tt.ended) ||
			len(u.Sessions) != len(tt.have)+1-len(tt.ended) {
			t.Errorf("%s: ended %x, left %x", tt.name, ended, listed(u))
		}
	}
}

// An empty user has an all-zero tag, which is no key seen before.
func TestAdmit_ZeroTag_IsFirstKey(t *testing.T) {
	var u store.User
	l := login(1)
	l.Key, l.OldTags = store.SealedKey{Box: []byte{1}}, [][8]byte{{}}
	u.Admit(l)
	if u.KeyVersion != 1 || u.PrevKey.Box != nil {
		t.Errorf("version %d, previous %v", u.KeyVersion, u.PrevKey)
	}
	u = store.User{}
	res := u.Amend(store.Amendment{UnionID: "u", Key: key(1)})
	if res != (store.Amended{UnionIDChanged: true, KeySet: true}) ||
		u.KeyVersion != 1 || u.PrevKey.Box != nil {
		t.Errorf("amended: %+v, %+v", res, u)
	}
}

func TestDrop_Listed_OnlyThatOne(t *testing.T) {
	var u store.User
	for n := range byte(3) {
		u.Admit(login(n + 1))
	}
	for _, step := range []struct {
		drop byte
		was  bool
		left []store.Digest
	}{
		{7, false, []store.Digest{digest(1), digest(2), digest(3)}},
		{2, true, []store.Digest{digest(1), digest(3)}},
		{2, false, []store.Digest{digest(1), digest(3)}},
	} {
		if u.Drop(digest(step.drop)) != step.was || !slices.Equal(listed(u), step.left) {
			t.Errorf("after dropping %d: %x", step.drop, listed(u))
		}
	}
}

// The first end counts, except that what is done to a session says more than that time
// had ended it.
func TestEnds_SeveralOfOneSession_FirstCounts(t *testing.T) {
	at := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Hour) }
	for _, tt := range []struct {
		first, second, want store.Reason
	}{
		{store.EndIdle, store.EndExpired, store.EndIdle},
		{store.EndIdle, store.EndReplaced, store.EndIdle},
		{store.EndIdle, store.EndLogout, store.EndLogout},
		{store.EndReplaced, store.EndExpired, store.EndReplaced},
		{store.EndReplaced, store.EndEvicted, store.EndReplaced},
		{store.EndRevoked, store.EndIdle, store.EndRevoked},
		{0, store.EndLogout, store.EndLogout},
	} {
		u := store.User{ID: alice}
		for i, why := range []store.Reason{tt.first, tt.second} {
			e := store.End{Session: digest(1).ID(), Created: noon, At: at(i + 1), Reason: why}
			u.Amend(store.Amendment{End: e})
		}
		news := 1
		if tt.want == tt.second && tt.first != 0 {
			news = 2
		}
		list := u.TakeEnds()
		if len(u.Ends) != 1 || u.Ends[0].Reason != tt.want || len(list) != news ||
			list[news-1] != (store.Ended{User: alice, End: u.Ends[0]}) || u.TakeEnds() != nil {
			t.Errorf("%v, then %v: on record %+v, reported %+v", tt.first, tt.second, u.Ends, list)
		}
	}
}

func TestEnds_Many_LastStay(t *testing.T) {
	u := store.User{ID: alice}
	for n := range byte(2 * store.MaxEnds) {
		u.Admit(login(n + 1))
	}
	copied := u
	u.Revoke(store.EndRevoked, noon.Add(time.Hour))
	other := store.User{ID: alice, Ends: []store.End{{
		Session: digest(100).ID(), At: noon.Add(2 * time.Hour), Reason: store.EndLogout,
	}}}
	u.Merge(other)
	var got []store.SessionID
	for _, e := range u.Ends {
		got = append(got, e.Session)
	}
	last := byte(2 * store.MaxEnds)
	want := []store.SessionID{
		digest(last - 3).ID(), digest(last - 2).ID(), digest(last - 1).ID(), digest(last).ID(),
		digest(100).ID(),
	}
	if !slices.Equal(got, want) || copied.Ends != nil || len(u.TakeEnds()) != int(last) {
		t.Errorf("on record %v, want %v; the copy has %v", got, want, copied.Ends)
	}
}

func TestUserID_Hash_SeparatesParts(t *testing.T) {
	long := store.UserID{AppID: string(make([]byte, 150)), OpenID: string(make([]byte, 150))}
	for _, u := range []store.UserID{alice, {}, long, {AppID: "ab", OpenID: "c"}} {
		sum := sha256.Sum256([]byte(u.AppID + "\x00" + u.OpenID))
		if got := u.Hash(); got != [16]byte(sum[:16]) {
			t.Errorf("%d byte appid: %x, want %x", len(u.AppID), got, sum[:16])
		}
	}
	if n := testing.AllocsPerRun(100, func() { alice.Hash() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMerge_TwoRecords_LaterLoginCounts(t *testing.T) {
	at := func(n int) time.Time { return time.UnixMilli(int64(n)) }
	ref := func(n byte) store.SessionRef {
		return store.SessionRef{Digest: digest(n), Created: at(int(n)), Expires: at(1000)}
	}
	own := store.User{
		ID: alice, UnionID: "own", Phone: []byte("own"), Epoch: 7, LastLogin: at(50),
		KeyVersion: 5, Key: key(1), PrevKey: key(2), Sessions: []store.SessionRef{ref(10), ref(50)},
	}
	other := func(login int, sessions ...store.SessionRef) func(*store.User) {
		return func(o *store.User) {
			o.LastLogin, o.Sessions = at(login), sessions
			o.UnionID, o.Phone = "other", []byte("other")
			o.KeyVersion, o.Key, o.PrevKey = 9, key(3), key(4)
		}
	}
	later := func(o *store.User) { o.LastLogin = at(60) }
	for _, tt := range []struct {
		name        string
		other, want func(*store.User)
	}{
		{"the same", func(*store.User) {}, func(*store.User) {}},
		{"earlier", other(40, ref(40)), func(w *store.User) {
			w.Sessions = []store.SessionRef{ref(10), ref(40), ref(50)}
		}},
		{"later", other(60, ref(50), ref(60)), other(60, ref(10), ref(50), ref(60))},
		{"later, from a store that has seen fewer keys", func(o *store.User) {
			later(o)
			o.KeyVersion, o.Key, o.PrevKey = 1, key(3), store.SealedKey{}
		}, func(w *store.User) {
			later(w)
			w.KeyVersion, w.Key, w.PrevKey = 6, key(3), key(1)
		}},
		{"later with the same key", func(o *store.User) {
			later(o)
			o.KeyVersion, o.PrevKey = 1, store.SealedKey{}
		}, later},
		{"later without unionid and number", func(o *store.User) {
			later(o)
			o.UnionID, o.Phone = "", nil
		}, later},
		{
			"at once with a later key", func(o *store.User) { o.KeyVersion, o.Key = 6, key(3) },
			func(w *store.User) { w.KeyVersion, w.Key = 6, key(3) },
		},
		{
			"at once with an earlier key", func(o *store.User) { o.KeyVersion, o.Key = 4, key(3) },
			func(*store.User) {},
		},
		{"another epoch", func(o *store.User) { later(o); o.Epoch = 8 }, later},
	} {
		got, other, want := own, own, own
		tt.other(&other)
		tt.want(&want)
		for range 2 { // merging again changes nothing
			if got.Merge(other); !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\ngot  %v\nwant %v", tt.name, got, want)
			}
		}
	}
	got, earlier := own, own
	got.UnionID, got.Phone, earlier.LastLogin = "", nil, at(40)
	if got.Merge(earlier); got.UnionID != "own" || string(got.Phone) != "own" {
		t.Errorf("known to the earlier only: %q, %q", got.UnionID, got.Phone)
	}
}

func TestNewItem_Sessions_OnlyThoseThatHold(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	u := store.User{ID: alice, UnionID: "u", Epoch: 3, Key: key(1)}
	rows := make(map[store.Digest]store.Session)
	good := store.Session{
		User: alice, Created: now.Add(-time.Minute), UsedUntil: now, Expires: now.Add(time.Minute),
		Epochs: store.Epochs{Global: 1, App: 2, User: 3},
	}
	for n, edit := range []func(*store.Session){
		0: func(*store.Session) {},
		1: func(s *store.Session) { s.Expires = now },
		2: func(s *store.Session) { s.Epochs.Global++ },
		3: func(s *store.Session) { s.Epochs.App++ },
		4: func(s *store.Session) { s.Epochs.User++ },
		5: func(s *store.Session) { s.User.OpenID = "another" },
		6: func(s *store.Session) { s.UsedUntil = now.Add(-time.Second) },
		7: nil, // listed, but not in the store
	} {
		d := digest(byte(n))
		ref := store.SessionRef{Digest: d, Created: good.Created, Expires: good.Expires}
		u.Sessions = append(u.Sessions, ref)
		if edit != nil {
			s := good
			edit(&s)
			rows[d] = s
		}
	}
	before := slices.Clone(u.Sessions)
	current := store.Epochs{Global: 1, App: 2, User: 99}
	it := store.NewItem(u, current, now, func(d store.Digest) (store.Session, bool) {
		s, ok := rows[d]
		return s, ok
	})
	if !slices.Equal(listed(it.User), []store.Digest{digest(0), digest(6)}) ||
		!slices.Equal(it.Sessions, []store.Session{rows[digest(0)], rows[digest(6)]}) {
		t.Errorf("it holds %x, %v", listed(it.User), it.Sessions)
	}
	if it.User.ID != alice || it.User.UnionID != "u" || it.User.Key.Tag != key(1).Tag {
		t.Errorf("the user is %v", it.User)
	}
	if !slices.Equal(u.Sessions, before) {
		t.Error("the user's own list has changed")
	}
}

func TestMasterKeyNeed_Login_CoversSessionAndLittleMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(1, int64(400*24*time.Hour)).Draw(t, "life"))
		off := rapid.Int64Range(-int64(life), 2*int64(life)).Draw(t, "recorded")
		recorded := noon.Add(time.Duration(off))
		l := store.Login{Created: noon, Expires: noon.Add(life)}
		until := l.MasterKeyNeed(recorded)
		most := min(life/20, time.Hour) + time.Millisecond
		switch {
		case until.Before(l.Expires) || until.Before(recorded):
			t.Fatalf("needed until %v, the session lives until %v", until, l.Expires)
		case until.Equal(recorded):
		case recorded.After(l.Expires) || until.Sub(l.Expires) > most:
			t.Fatalf("a need until %v became one until %v, the session lives until %v",
				recorded, until, l.Expires)
		case !until.Equal(time.UnixMilli(until.UnixMilli())), !l.MasterKeyNeed(until).Equal(until):
			t.Fatalf("%v does not stay as it is at rest", until)
		}
	})
}
