package store_test

import (
	"crypto/sha256"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var (
	alice = store.UserID{AppID: "wx0123456789abcdef", OpenID: "oAlice"}
	noon  = time.UnixMilli(1_700_000_000_000)
)

func digest(n byte) store.Digest { return store.Digest{31: n} }

func key(n byte) store.SealedKey {
	return store.SealedKey{Tag: [8]byte{n}, Box: []byte{n, n, n}}
}

// login makes the n-th session of alice, n minutes after noon and an hour long.
func login(n byte) store.Login {
	created := noon.Add(time.Duration(n) * time.Minute)
	return store.Login{User: alice, Key: key(1), Digest: digest(n), Created: created, Expires: created.Add(time.Hour)}
}

func listed(u store.User) []store.Digest {
	var out []store.Digest
	for _, s := range u.Sessions {
		out = append(out, s.Digest)
	}
	return out
}

func TestAdmitRecordsLogin(t *testing.T) {
	var u store.User
	l := login(1)
	l.UnionID = "union"
	ended, expired := u.Admit(l)
	if ended != nil || expired != nil {
		t.Fatalf("first login ended %v and found expired %v", ended, expired)
	}
	want := store.SessionRef{Digest: l.Digest, Created: l.Created, Expires: l.Expires}
	if u.ID != alice || u.UnionID != "union" || !u.LastLogin.Equal(l.Created) || u.KeyVersion != 1 || !slices.Equal(u.Sessions, []store.SessionRef{want}) {
		t.Fatalf("user after the first login: %+v", u)
	}
}

func TestAdmitMaxPerUser(t *testing.T) {
	tests := []struct {
		name  string
		have  []byte
		max   int
		ended []store.Digest
		left  []store.Digest
	}{
		{"no bound", []byte{1, 2, 3}, 0, nil, []store.Digest{digest(1), digest(2), digest(3), digest(9)}},
		{"room", []byte{1}, 2, nil, []store.Digest{digest(1), digest(9)}},
		{"oldest goes", []byte{1, 2}, 2, []store.Digest{digest(1)}, []store.Digest{digest(2), digest(9)}},
		{"bound was lowered", []byte{1, 2, 3}, 2, []store.Digest{digest(1), digest(2)}, []store.Digest{digest(3), digest(9)}},
		{"only the new one", []byte{1, 2}, 1, []store.Digest{digest(1), digest(2)}, []store.Digest{digest(9)}},
		{"negative is no bound", []byte{1, 2}, -1, nil, []store.Digest{digest(1), digest(2), digest(9)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var u store.User
			for _, n := range tt.have {
				u.Admit(login(n))
			}
			l := login(9)
			l.MaxPerUser = tt.max
			ended, expired := u.Admit(l)
			if !slices.Equal(ended, tt.ended) || expired != nil || !slices.Equal(listed(u), tt.left) {
				t.Fatalf("ended %x, expired %x, left %x", ended, expired, listed(u))
			}
		})
	}
}

func TestAdmitPrunesExpired(t *testing.T) {
	var u store.User
	u.Admit(login(1))
	u.Admit(login(2))
	l := login(61) // created at the very instant the first one expires
	l.MaxPerUser = 2
	ended, expired := u.Admit(l)
	if !slices.Equal(expired, []store.Digest{digest(1)}) {
		t.Fatalf("expired %x", expired)
	}
	if ended != nil || !slices.Equal(listed(u), []store.Digest{digest(2), digest(61)}) {
		t.Fatalf("an expired session took room: ended %x, left %x", ended, listed(u))
	}
}

func TestAdmitLeavesOldListAlone(t *testing.T) {
	var u store.User
	u.Admit(login(1))
	u.Admit(login(2))
	before := u
	l := login(3)
	l.MaxPerUser = 1
	u.Admit(l)
	before.Drop(digest(1))
	if !slices.Equal(listed(before), []store.Digest{digest(2)}) || !slices.Equal(listed(u), []store.Digest{digest(3)}) {
		t.Fatalf("lists share memory: %x, %x", listed(before), listed(u))
	}
}

func TestAdmitUnionID(t *testing.T) {
	var u store.User
	for _, step := range []struct{ told, want string }{{"", ""}, {"a", "a"}, {"", "a"}, {"b", "b"}} {
		l := login(1)
		l.UnionID = step.told
		u.Admit(l)
		if u.UnionID != step.want {
			t.Fatalf("told %q: unionid %q, want %q", step.told, u.UnionID, step.want)
		}
	}
}

func TestAdmitKeyVersions(t *testing.T) {
	resealed := store.SealedKey{Tag: key(1).Tag, Box: []byte("another envelope")}
	tag := func(n byte) [8]byte { return key(n).Tag }
	steps := []struct {
		name      string
		key       store.SealedKey
		old       [][8]byte
		version   uint64
		cur, prev store.SealedKey
	}{
		{"first", key(1), nil, 1, key(1), store.SealedKey{}},
		{"same key, new envelope", resealed, nil, 1, resealed, store.SealedKey{}},
		{"new key", key(2), nil, 2, key(2), resealed},
		{"same again", key(2), [][8]byte{tag(9)}, 2, key(2), resealed},
		{"same under a new master key", key(3), [][8]byte{tag(9), tag(2)}, 2, key(3), resealed},
		{"same after that", key(3), [][8]byte{tag(9), tag(2)}, 2, key(3), resealed},
		{"back to the first", key(1), [][8]byte{tag(9), tag(8)}, 3, key(1), key(3)},
	}
	var u store.User
	for _, s := range steps {
		l := login(1)
		l.Key, l.OldTags = s.key, s.old
		u.Admit(l)
		if u.KeyVersion != s.version || !sameKey(u.Key, s.cur) || !sameKey(u.PrevKey, s.prev) {
			t.Fatalf("%s: version %d, key %v, previous %v", s.name, u.KeyVersion, u.Key, u.PrevKey)
		}
	}
}

// TestAdmitFirstKeyWithZeroTag: an empty user has an all-zero tag, which must not pass for a key seen before.
func TestAdmitFirstKeyWithZeroTag(t *testing.T) {
	var u store.User
	l := login(1)
	l.Key, l.OldTags = store.SealedKey{Box: []byte{1}}, [][8]byte{{}}
	u.Admit(l)
	if u.KeyVersion != 1 || u.PrevKey.Box != nil {
		t.Fatalf("version %d, previous %v", u.KeyVersion, u.PrevKey)
	}
}

func TestAmend(t *testing.T) {
	login2 := login(2)
	login2.Key, login2.UnionID = key(2), "u"
	var was store.User
	was.Admit(login(1))
	was.Admit(login2)
	number := []byte("sealed")
	for _, tt := range []struct {
		name string
		a    store.Amendment
		res  store.Amended
		want func(*store.User)
	}{
		{"nothing", store.Amendment{}, store.Amended{UnionIDWas: "u"}, func(*store.User) {}},
		{"unionid", store.Amendment{UnionID: "v"}, store.Amended{UnionIDWas: "u", UnionIDChanged: true}, func(u *store.User) { u.UnionID = "v" }},
		{"the same unionid", store.Amendment{UnionID: "u"}, store.Amended{UnionIDWas: "u"}, func(*store.User) {}},
		{"number", store.Amendment{Phone: number}, store.Amended{UnionIDWas: "u"}, func(u *store.User) { u.Phone = number }},
		{"key", store.Amendment{Key: key(3), KeyWas: key(2).Tag}, store.Amended{UnionIDWas: "u", KeySet: true}, func(u *store.User) { u.Key, u.PrevKey, u.KeyVersion = key(3), key(2), 3 }},
		{"key that is not the one before", store.Amendment{Key: key(3), KeyWas: key(1).Tag}, store.Amended{UnionIDWas: "u"}, func(*store.User) {}},
		{"no key", store.Amendment{KeyWas: key(2).Tag}, store.Amended{UnionIDWas: "u"}, func(*store.User) {}},
		{"the same key", store.Amendment{Key: key(2), KeyWas: key(2).Tag}, store.Amended{UnionIDWas: "u", KeySet: true}, func(*store.User) {}},
		{"the same key, resealed", store.Amendment{Key: key(3), KeyWas: key(2).Tag, OldTags: [][8]byte{key(2).Tag}}, store.Amended{UnionIDWas: "u", KeySet: true}, func(u *store.User) { u.Key = key(3) }},
	} {
		got, want := was, was
		tt.want(&want)
		if res := got.Amend(tt.a); res != tt.res || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %+v; want %+v, %+v", tt.name, res, got, tt.res, want)
		}
	}
	var first store.User
	if res := first.Amend(store.Amendment{UnionID: "u", Key: key(1)}); res != (store.Amended{UnionIDChanged: true, KeySet: true}) || first.KeyVersion != 1 || first.PrevKey.Box != nil {
		t.Errorf("of a user without a key: %+v, %+v", res, first)
	}
}

// TestAdmitKeepsPhone: a login does not know the number, so it says nothing about it.
func TestAdmitKeepsPhone(t *testing.T) {
	u := store.User{Phone: []byte("sealed")}
	u.Admit(login(1))
	if string(u.Phone) != "sealed" {
		t.Errorf("left %q", u.Phone)
	}
}

func TestDrop(t *testing.T) {
	var u store.User
	for n := range byte(3) {
		u.Admit(login(n + 1))
	}
	before := listed(u)
	if u.Drop(digest(7)) || !slices.Equal(listed(u), before) {
		t.Fatal("dropping an unlisted session changed the list")
	}
	if !u.Drop(digest(2)) || !slices.Equal(listed(u), []store.Digest{digest(1), digest(3)}) {
		t.Fatalf("left %x", listed(u))
	}
	if u.Drop(digest(2)) {
		t.Fatal("dropped twice")
	}
}

func TestUserIDHash(t *testing.T) {
	long := store.UserID{AppID: string(make([]byte, 150)), OpenID: string(make([]byte, 150))}
	for _, u := range []store.UserID{alice, {}, long} {
		sum := sha256.Sum256([]byte(u.AppID + "\x00" + u.OpenID))
		if got := u.Hash(); got != [16]byte(sum[:16]) {
			t.Errorf("%d byte appid: %x, want %x", len(u.AppID), got, sum[:16])
		}
	}
	if (store.UserID{AppID: "ab", OpenID: "c"}).Hash() == (store.UserID{AppID: "a", OpenID: "bc"}).Hash() {
		t.Error("the border between appid and openid is not part of the hash")
	}
	if n := testing.AllocsPerRun(100, func() { alice.Hash() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDigestIsZero(t *testing.T) {
	if !(store.Digest{}).IsZero() || digest(1).IsZero() {
		t.Error("IsZero tells the wrong ones")
	}
}

func sameKey(a, b store.SealedKey) bool { return a.Tag == b.Tag && slices.Equal(a.Box, b.Box) }
