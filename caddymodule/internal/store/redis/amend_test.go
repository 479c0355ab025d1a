package redis_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// TestLostAmend loses each request and each answer of an amendment, once with
// nothing else going on and once with a login of the user before it is tried
// again. It is answered and done, and done once; only what the answer tells of
// it may be wrong, if the record has changed meanwhile.
func TestLostAmend(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv.Addr)
	cfg := config(p.Addr)
	s, beside := mustOpen(t, cfg), mustOpen(t, with(cfg, srv.Addr))
	fresh := store.SealedKey{Tag: [8]byte{7, 7}, Box: []byte("fresh")}
	users := 0
	for _, then := range []bool{false, true} {
		n := losses(t, p, s, false, func(t *testing.T, l *loss) (func(), func(*testing.T)) {
			users++
			first := newLogin(userOf(fmt.Sprint("oAlice", users)))
			_, err := beside.Login(t.Context(), first)
			must(t, err)
			h := first.User.Hash()
			l.words = []string{hexOf(h[:])}
			second := newLogin(first.User)
			second.UnionID, second.Key = "", first.Key
			between := false
			if then {
				l.then = func() {
					between = true
					// Whatever key there is: another would be a login in
					// between, which is newer.
					if u, err := beside.User(t.Context(), first.User); err == nil {
						second.Key = u.Key
					}
					if _, err := beside.Login(t.Context(), second); err != nil {
						t.Error(err)
					}
				}
			}
			var res store.Amended
			return func() {
					res, err = s.Amend(
						t.Context(),
						first.User,
						store.Amendment{
							UnionID: "found",
							Key:     fresh,
							KeyWas:  first.Key.Tag,
							Phone:   []byte("sealed"),
						},
					)
				}, func(t *testing.T) {
					must(t, err)
					if want := (store.Amended{UnionIDWas: first.UnionID, UnionIDChanged: true, KeySet: true}); !then &&
						res != want {
						t.Errorf("answered %+v, want %+v", res, want)
					}
					u, err := beside.User(t.Context(), first.User)
					must(t, err)
					if u.UnionID != "found" || string(u.Phone) != "sealed" ||
						u.Key.Tag != fresh.Tag ||
						u.PrevKey.Tag != first.Key.Tag ||
						u.KeyVersion != 2 {
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

// TestAmendKeys: what an amendment leaves in the engine lives as long as the
// user's record, and gates are told of what they show and of nothing else.
func TestAmendKeys(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	s, c := mustOpen(t, cfg), raw(t, srv.Addr)
	l := newLogin(userOf("oAlice"))
	l.UnionID = ""
	_, err := s.Login(t.Context(), l)
	must(t, err)
	h := l.User.Hash()
	record, told := "u:{"+hexOf(h[:])+"}", "i:u:{"+hexOf(h[:])+"}"
	for _, step := range []struct {
		name  string
		a     store.Amendment
		tells bool
	}{
		{"key", store.Amendment{Key: store.SealedKey{Tag: [8]byte{7}, Box: []byte("fresh")}, KeyWas: l.Key.Tag}, false},
		{"unionid", store.Amendment{UnionID: "found"}, true},
		{"the same unionid", store.Amendment{UnionID: "found"}, false},
		{"number", store.Amendment{Phone: []byte("sealed")}, true},
	} {
		must(t, do(c, "DEL", cfg.Prefix+told).Error())
		before := keys(t, c, cfg)[record]
		_, err := s.Amend(t.Context(), l.User, step.a)
		must(t, err)
		ttls := keys(t, c, cfg)
		if _, ok := ttls[told]; ok != step.tells {
			t.Errorf("%s: told: %v, want %v", step.name, ok, step.tells)
		}
		if left := ttls[record]; left > before || left < before-time.Minute.Milliseconds() {
			t.Errorf("%s: the record has %d ms to live, had %d", step.name, left, before)
		}
		for name, left := range ttls {
			if strings.HasPrefix(name, "n:{") && left < ttls[record] {
				t.Errorf(
					"%s: the index has %d ms to live, the record %d",
					step.name,
					left,
					ttls[record],
				)
			}
		}
	}
	if ids, err := s.ByUnionID(t.Context(), "found"); err != nil || len(ids) != 1 {
		t.Errorf("found by the unionid: %v, %v", ids, err)
	}
}
