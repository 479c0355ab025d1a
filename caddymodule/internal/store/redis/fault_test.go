package redis

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// TestLookup_RecordDamaged_NeverAccepts: a session holds only while all its records
// are as a gate wrote them, and the next login works.
func TestLookup_RecordDamaged_NeverAccepts(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := userOf("oAlice")
	bob := mustLogin(t, f, newLogin(userOf("oBob"))).User
	rapid.Check(t, func(rt *rapid.T) {
		l := mustLogin(rt, f, newLogin(id))
		keys := []string{
			sessionKey(l.Digest), userKey(id), "e:{app:" + id.AppID + "}", "e:{all}",
		}
		name := rapid.SampledFrom(keys).Draw(rt, "record")
		damages := []string{"flip", "flip", "cut", "grow", "delete", "list", "foreign"}
		if name == keys[0] {
			damages = damages[:6] // a session does not hold its own name
		}
		damage := rapid.SampledFrom(damages).Draw(rt, "damage")
		f.damage(rt, name, damage, userKey(bob))

		rec, err := f.Lookup(t.Context(), l.Digest)
		switch {
		case err == nil && rec.Current == rec.Session.Epochs:
			rt.Fatalf("accepted: %+v", rec)
		case err != nil && !errors.Is(err, store.ErrNotFound):
			rt.Fatal(err)
		case err == nil && damage == "delete":
			rt.Fatal("found without the record")
		}
		u, err := f.User(t.Context(), id)
		if name == userKey(id) && !errors.Is(err, store.ErrNotFound) {
			rt.Fatalf("user %+v, %v", u, err)
		}
		again := mustLogin(rt, f, newLogin(id))
		if !accepted(rt, f, again.Digest) || accepted(rt, f, l.Digest) {
			rt.Fatal("the next login does not hold, or it brought back the damaged one")
		}
	})
}

// damage changes a record; other is the key of another user's.
func (f *fixture) damage(rt *rapid.T, name, damage, other string) {
	key, was := f.cfg.Prefix+name, f.get(name)
	number := func(what string, low, high int) int {
		return rapid.IntRange(low, high).Draw(rt, what)
	}
	switch damage {
	case "flip":
		b := []byte(was)
		b[number("byte", 0, len(b)-1)] ^= byte(number("bits", 1, 255))
		f.do("SET", key, string(b))
	case "cut":
		f.do("SET", key, was[:number("length", 0, len(was)-1)])
	case "grow":
		f.do("APPEND", key, string(rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(rt, "tail")))
	case "delete":
		f.do("DEL", key)
	case "list":
		f.do("DEL", key)
		f.do("RPUSH", key, was)
	case "foreign":
		foreign := hexOf(rapid.SliceOfNDistinct(rapid.Byte(), 8, 8, rapid.ID).Draw(rt, "epoch"))
		if strings.HasPrefix(name, "u:") {
			foreign = f.get(other)
		}
		f.do("SET", key, foreign)
	}
}

// TestNote_Damaged_KeepsNoSessionAlive: a damaged note never makes a use later. It
// counts as none, so a new one takes its place.
func TestNote_Damaged_KeepsNoSessionAlive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := mustLogin(t, f, newLogin(userOf("oAlice")))
	name := noteKey(l.Digest)
	used := func() time.Time {
		rec, err := f.Lookup(t.Context(), l.Digest)
		must(t, err)
		return rec.Session.UsedUntil
	}
	at := l.UsedUntil.Add(time.Minute)
	f.Touch(l.Digest, at)
	must(t, f.flush())
	was := f.get(name)
	for i := range len(was) {
		for bit := range 8 {
			b := []byte(was)
			b[i] ^= 1 << bit
			f.do("SET", f.cfg.Prefix+name, string(b))
			if got := used(); got.After(at) {
				t.Fatalf("a flipped bit in byte %d let the session be used until %v", i, got)
			}
		}
	}
	for _, v := range []string{"", was + "0", strings.Repeat("9", noteLen), "x"} {
		f.do("SET", f.cfg.Prefix+name, v)
		if got := used(); got.After(l.UsedUntil) {
			t.Errorf("note %q: used until %v", v, got)
		}
	}
	f.Touch(l.Digest, at.Add(time.Minute))
	must(t, f.flush())
	if got := used(); !got.Equal(at.Add(time.Minute)) {
		t.Errorf("used until %v after a note, want %v", got, at.Add(time.Minute))
	}
}

// TestStore_KeyOfAnotherKind_IsReplaced: under one of our names, such a key is a
// damaged record: the store logs it, no call fails, and the next write replaces it.
func TestStore_KeyOfAnotherKind_IsReplaced(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	f := newFixture(t, func(c *Config) { c.Logger = zap.New(core) })
	ctx, id := t.Context(), userOf("oAlice")
	stream := func(name string) {
		f.do("DEL", f.cfg.Prefix+name)
		f.do("XADD", f.cfg.Prefix+name, "*", "a", "b")
	}
	byUnionID := func(want int) {
		t.Helper()
		if ids, err := f.ByUnionID(ctx, "u"); err != nil || len(ids) != want {
			t.Errorf("by unionid: %v, %v, want %d", ids, err, want)
		}
	}
	l := mustLogin(t, f, newLogin(id, unionID("u")))
	rate := store.Rate{Every: time.Hour, Burst: 1}
	_, err := f.Spend(ctx, "bucket", rate)
	must(t, err)
	f.Touch(l.Digest, l.UsedUntil.Add(time.Minute))
	must(t, f.flush())
	n := 0
	for name := range f.ttls() {
		if name[0] != 'h' && name[0] != 'i' {
			n++
			stream(name)
		}
	}
	if n != 9 {
		t.Errorf("%d keys are replaced", n)
	}

	if accepted(t, f, l.Digest) {
		t.Error("the session holds")
	}
	if _, err := f.User(ctx, id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("user: %v", err)
	}
	byUnionID(0)
	if needs, err := f.MasterKeys(ctx); err != nil || len(needs) != 0 {
		t.Errorf("master keys: %v, %v", needs, err)
	}
	must(t, f.Dump(ctx, func(store.Item) error { return nil }))
	_, err = f.Stats(ctx)
	must(t, err)
	if logs.FilterMessageSnippet("damaged record").Len() == 0 ||
		logs.FilterMessageSnippet("calls to redis fail").Len() != 0 {
		t.Errorf("logged %v", logs.All())
	}

	for range 2 { // over the stream, then over its own record
		_, err := f.Spend(ctx, "bucket", rate)
		must(t, err)
	}
	next := mustLogin(t, f, newLogin(id, unionID("u")))
	if !accepted(t, f, next.Digest) || accepted(t, f, l.Digest) {
		t.Error("the next login does not hold, or it brought back the damaged one")
	}
	stream(noteKey(next.Digest))
	f.Touch(next.Digest, next.UsedUntil.Add(time.Minute))
	must(t, f.flush())
	rec, err := f.Lookup(ctx, next.Digest)
	if err != nil || !rec.Session.UsedUntil.Equal(next.UsedUntil.Add(time.Minute)) {
		t.Errorf("used until %v, %v", rec.Session.UsedUntil, err)
	}
	byUnionID(1)
	needs, err := f.MasterKeys(ctx)
	if err != nil || needs[next.MasterKey].Before(next.Expires) {
		t.Errorf("master keys: %v, %v", needs, err)
	}
	for _, name := range []string{"End", "RevokeUser", "Forget", "RevokeApp", "RevokeAll"} {
		for _, key := range []string{
			sessionKey(next.Digest), userKey(id), "e:{app:" + id.AppID + "}", "e:{all}",
		} {
			stream(key)
		}
		if err := calls(f.Store, next)[name](ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStore_ForeignNames_AreSkipped: names of another form in the index of a unionid,
// and among the keys of users.
func TestStore_ForeignNames_AreSkipped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := mustLogin(t, f, newLogin(userOf("oAlice"), unionID("u")))
	index := string(layout(f.cfg.Prefix).union("u"))
	for _, name := range []string{
		"", "x", "00", zeros(31), zeros(33), zeros(34), zeros(4096), strings.Repeat("g", 32),
	} {
		f.do("SADD", index, name)
		f.do("SET", f.cfg.Prefix+"u:{"+name+"}", "x")
	}
	ids, err := f.ByUnionID(t.Context(), "u")
	if err != nil || len(ids) != 1 || ids[0] != l.User {
		t.Errorf("by unionid: %v, %v", ids, err)
	}
	n := 0
	must(t, f.Dump(t.Context(), func(store.Item) error { n++; return nil }))
	if n != 1 {
		t.Errorf("%d users in the dump", n)
	}
}

func zeros(n int) string { return strings.Repeat("0", n) }

// TestP4_CallsFail_IsLoggedOnce: an outage that only calls notice gets one line, and a
// caller that gave up gets none. The library takes one of its connections by chance,
// and makes it at its first use.
func TestP4_CallsFail_IsLoggedOnce(t *testing.T) {
	notShort(t)
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	p := redistest.StartProxy(t, redistest.Shared(t).Addr)
	cfg := config(p.Addr)
	cfg.Logger, cfg.ReadTimeout, cfg.pace = zap.New(core), 200*time.Millisecond, brisk
	s := mustOpen(t, cfg)
	check := func(want int) {
		t.Helper()
		beats(t, s)
		if n := logs.FilterMessageSnippet("calls to redis fail").Len(); n != want {
			t.Errorf("%d lines, want %d: %v", n, want, logs.All())
		}
	}
	for range 50 {
		if _, err := s.Lookup(t.Context(), store.Digest{1}); !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
	}
	beats(t, s)
	p.ForgetData()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := s.Lookup(ctx, store.Digest{1}); !isUnavailable(err) {
		t.Fatal(err)
	}
	check(0)
	for range 3 {
		p.ForgetData()
		for range 5 {
			_, err := s.Lookup(t.Context(), store.Digest{1})
			if !isUnavailable(err) && !errors.Is(err, store.ErrNotFound) {
				t.Fatal(err)
			}
		}
	}
	check(1)
}
