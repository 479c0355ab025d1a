package store_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func TestNewItem(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	u := store.User{ID: alice, UnionID: "u", Epoch: 3, Key: key(1)}
	rows := make(map[store.Digest]store.Session)
	good := store.Session{User: alice, Created: now.Add(-time.Minute), UsedUntil: now, Expires: now.Add(time.Minute), Epochs: store.Epochs{Global: 1, App: 2, User: 3}}
	for n, edit := range []func(*store.Session){
		0: func(*store.Session) {},
		1: func(s *store.Session) { s.Expires = now },
		2: func(s *store.Session) { s.Epochs.Global++ },
		3: func(s *store.Session) { s.Epochs.App++ },
		4: func(s *store.Session) { s.Epochs.User++ },
		5: func(s *store.Session) { s.User.OpenID = "another" },
		6: func(s *store.Session) { s.UsedUntil = now.Add(-time.Second) },
		7: nil, // the list has it, the store has not
	} {
		d := digest(byte(n))
		u.Sessions = append(u.Sessions, store.SessionRef{Digest: d, Created: good.Created, Expires: good.Expires})
		if edit != nil {
			s := good
			edit(&s)
			rows[d] = s
		}
	}
	before := slices.Clone(u.Sessions)
	it := store.NewItem(u, store.Epochs{Global: 1, App: 2, User: 99}, now, func(d store.Digest) (store.Session, bool) {
		s, ok := rows[d]
		return s, ok
	})
	if !slices.Equal(listed(it.User), []store.Digest{digest(0), digest(6)}) || !slices.Equal(it.Sessions, []store.Session{rows[digest(0)], rows[digest(6)]}) {
		t.Errorf("it holds %x, %v", listed(it.User), it.Sessions)
	}
	if it.User.ID != alice || it.User.UnionID != "u" || !sameKey(it.User.Key, key(1)) {
		t.Errorf("the user is %v", it.User)
	}
	if !slices.Equal(u.Sessions, before) {
		t.Error("the user's own list has changed")
	}
}

func TestMerge(t *testing.T) {
	at := func(n int) time.Time { return time.UnixMilli(int64(n)) }
	ref := func(n byte) store.SessionRef {
		return store.SessionRef{Digest: digest(n), Created: at(int(n)), Expires: at(1000)}
	}
	own := store.User{
		ID: alice, UnionID: "own", Epoch: 7, KeyVersion: 5, Key: key(1), PrevKey: key(2), Phone: []byte("own"), LastLogin: at(50), Sessions: []store.SessionRef{ref(10), ref(50)},
	}
	for _, tt := range []struct {
		name  string
		other func(*store.User)
		want  func(*store.User)
	}{
		{"the same", func(*store.User) {}, func(*store.User) {}},
		{"earlier", func(o *store.User) {
			o.LastLogin, o.UnionID, o.Phone, o.KeyVersion, o.Key, o.Sessions = at(40), "other", []byte("other"), 9, key(3), []store.SessionRef{ref(40)}
		}, func(w *store.User) { w.Sessions = []store.SessionRef{ref(10), ref(40), ref(50)} }},
		{"later", func(o *store.User) {
			o.LastLogin, o.UnionID, o.Phone, o.KeyVersion, o.Key, o.PrevKey, o.Sessions = at(60), "other", []byte("other"), 9, key(3), key(4), []store.SessionRef{ref(50), ref(60)}
		}, func(w *store.User) {
			w.LastLogin, w.UnionID, w.Phone, w.KeyVersion, w.Key, w.PrevKey, w.Sessions = at(60), "other", []byte("other"), 9, key(3), key(4), []store.SessionRef{ref(10), ref(50), ref(60)}
		}},
		{"later, from a store that has seen fewer keys", func(o *store.User) {
			o.LastLogin, o.KeyVersion, o.Key, o.PrevKey = at(60), 1, key(3), store.SealedKey{}
		}, func(w *store.User) { w.LastLogin, w.KeyVersion, w.Key, w.PrevKey = at(60), 6, key(3), key(1) }},
		{"later with the same key", func(o *store.User) { o.LastLogin, o.KeyVersion, o.PrevKey = at(60), 1, store.SealedKey{} }, func(w *store.User) { w.LastLogin = at(60) }},
		{"later without unionid and number", func(o *store.User) { o.LastLogin, o.UnionID, o.Phone = at(60), "", nil }, func(w *store.User) { w.LastLogin = at(60) }},
		{"at once with a later key", func(o *store.User) { o.KeyVersion, o.Key = 6, key(3) }, func(w *store.User) { w.KeyVersion, w.Key = 6, key(3) }},
		{"at once with an earlier key", func(o *store.User) { o.KeyVersion, o.Key = 4, key(3) }, func(*store.User) {}},
		{"another epoch", func(o *store.User) { o.Epoch, o.LastLogin = 8, at(60) }, func(w *store.User) { w.LastLogin = at(60) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, other, want := own, own, own
			tt.other(&other)
			tt.want(&want)
			got.Merge(other)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			if got.Merge(other); !reflect.DeepEqual(got, want) {
				t.Errorf("merging again makes it %v", got)
			}
		})
	}
	t.Run("unionid and number known only to the earlier", func(t *testing.T) {
		got, other := own, own
		got.UnionID, got.Phone, other.LastLogin = "", nil, at(40)
		if got.Merge(other); got.UnionID != "own" || string(got.Phone) != "own" {
			t.Errorf("it is %q, %q", got.UnionID, got.Phone)
		}
	})
}
