package redis_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

func userOf(openID string) store.UserID {
	return store.UserID{AppID: "wx0123456789abcdef", OpenID: openID}
}

// newLogin is a login of an hour that begins now.
func newLogin(id store.UserID, edit ...func(*store.Login)) store.Login {
	now := time.UnixMilli(time.Now().UnixMilli())
	l := store.Login{
		User:      id,
		UnionID:   "union of " + id.OpenID,
		Key:       store.SealedKey{Tag: [8]byte{1}, Box: make([]byte, 54)},
		Created:   now,
		Expires:   now.Add(time.Hour),
		UsedUntil: now.Add(time.Minute),
	}
	rand.Read(l.Digest[:])
	for _, e := range edit {
		e(&l)
	}
	return l
}

func maxPerUser(n int) func(*store.Login)    { return func(l *store.Login) { l.MaxPerUser = n } }
func ends(d store.Digest) func(*store.Login) { return func(l *store.Login) { l.Ends = d } }

// accepted reports whether the session holds. An error other than that it is
// not there fails the test.
func accepted(t testing.TB, s store.Store, d store.Digest) bool {
	t.Helper()
	rec, err := s.Lookup(context.Background(), d)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("lookup: %v", err)
	}
	return err == nil && rec.Current == rec.Session.Epochs
}

func mustOpen(t testing.TB, cfg redis.Config) *redis.Store {
	t.Helper()
	s, err := open(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t interface {
	Helper()
	Fatal(...any)
}, err error,
) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// raw is a connection beside the store, for what a store does not do.
func raw(t testing.TB, addr string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(
		rueidis.ClientOption{
			InitAddress:       []string{addr},
			ForceSingleClient: true,
			DisableCache:      true,
		},
	)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func do(c rueidis.Client, args ...string) rueidis.RedisResult {
	return c.Do(context.Background(), c.B().Arbitrary(args...).Build())
}

// TestDamagedNeverAccepts: whatever becomes of the records that a session hangs
// on, it is not accepted unless all are as they were written, and the next
// login works. When a session was last seen never becomes later.
func TestDamagedNeverAccepts(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	s, c := mustOpen(t, cfg), raw(t, srv.Addr)
	id := userOf("oAlice")
	hash := id.Hash()
	other := newLogin(userOf("oBob"))
	_, err := s.Login(t.Context(), other)
	must(t, err)
	otherHash := other.User.Hash()
	others := cfg.Prefix + "u:{" + hex.EncodeToString(otherHash[:]) + "}"
	rapid.Check(t, func(rt *rapid.T) {
		l := newLogin(id)
		_, err := s.Login(t.Context(), l)
		must(rt, err)
		d := hex.EncodeToString(l.Digest[:])
		kind := rapid.SampledFrom([]string{"s", "u", "e:app", "e:all"}).Draw(rt, "record")
		key := map[string]string{
			"s":     cfg.Prefix + "s:{" + d + "}",
			"u":     cfg.Prefix + "u:{" + hex.EncodeToString(hash[:]) + "}",
			"e:app": cfg.Prefix + "e:{app:" + id.AppID + "}",
			"e:all": cfg.Prefix + "e:{all}",
		}[kind]
		was, err := do(c, "GET", key).ToString()
		must(rt, err)
		b := []byte(was)
		damages := []string{"flip", "flip", "cut", "grow", "delete", "list", "foreign"}
		if kind == "s" {
			damages = damages[:6] // a session does not bear its name
		}
		damage := rapid.SampledFrom(damages).Draw(rt, "damage")
		switch damage {
		case "flip":
			b[rapid.IntRange(0, len(b)-1).Draw(rt, "byte")] ^= byte(
				rapid.IntRange(1, 255).Draw(rt, "bits"),
			)
			must(rt, do(c, "SET", key, string(b)).Error())
		case "cut":
			must(
				rt,
				do(c, "SET", key, was[:rapid.IntRange(0, len(was)-1).Draw(rt, "length")]).Error(),
			)
		case "grow":
			must(
				rt,
				do(
					c,
					"APPEND",
					key,
					string(rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(rt, "tail")),
				).Error(),
			)
		case "delete":
			must(rt, do(c, "DEL", key).Error())
		case "list":
			must(rt, do(c, "DEL", key).Error())
			must(rt, do(c, "RPUSH", key, was).Error())
		case "foreign":
			foreign := hexOf(rapid.SliceOfNDistinct(rapid.Byte(), 8, 8, rapid.ID).Draw(rt, "epoch"))
			if kind == "u" {
				foreign, err = do(c, "GET", others).ToString()
				must(rt, err)
			}
			must(rt, do(c, "SET", key, foreign).Error())
		}
		rec, err := s.Lookup(t.Context(), l.Digest)
		switch {
		case err == nil && rec.Current == rec.Session.Epochs:
			rt.Fatalf("accepted: %+v", rec)
		case err != nil && !errors.Is(err, store.ErrNotFound):
			rt.Fatal(err)
		}
		if damage == "delete" && !errors.Is(err, store.ErrNotFound) {
			rt.Fatalf("without the record: %v", err)
		}
		if u, err := s.User(t.Context(), id); kind == "u" && !errors.Is(err, store.ErrNotFound) {
			rt.Fatalf("user %+v, %v", u, err)
		}
		again := newLogin(id)
		_, err = s.Login(t.Context(), again)
		must(rt, err)
		if !accepted(t, s, again.Digest) || accepted(t, s, l.Digest) {
			rt.Fatal("the next login does not hold, or it brought back the damaged one")
		}
	})
}

func TestDamagedTouch(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	s, c := mustOpen(t, cfg), raw(t, srv.Addr)
	l := newLogin(userOf("oAlice"))
	_, err := s.Login(t.Context(), l)
	must(t, err)
	key := cfg.Prefix + "t:{" + hex.EncodeToString(l.Digest[:]) + "}"
	seen := func() time.Time {
		rec, err := s.Lookup(t.Context(), l.Digest)
		must(t, err)
		return rec.Session.UsedUntil
	}
	at := l.UsedUntil.Add(time.Minute)
	s.Touch(l.Digest, at)
	await(t, "the touch is written", func() bool { return seen().Equal(at) })
	was, err := do(c, "GET", key).ToString()
	must(t, err)
	for i := range len(was) {
		for bit := range 8 {
			b := []byte(was)
			b[i] ^= 1 << bit
			must(t, do(c, "SET", key, string(b)).Error())
			if got := seen(); got.After(at) {
				t.Fatalf("a flipped bit in byte %d let the session be used until %v", i, got)
			}
		}
	}
	for _, v := range []string{"", "x", was + "0", strings.Repeat("9", 24)} {
		must(t, do(c, "SET", key, v).Error())
		if got := seen(); got.After(l.UsedUntil) {
			t.Errorf("note %q: used until %v", v, got)
		}
	}
	// All that cannot be read counts as no touch, so a new one takes its place.
	must(t, do(c, "SET", key, "x").Error())
	s.Touch(l.Digest, at.Add(time.Minute))
	await(t, "the next touch is written", func() bool { return seen().Equal(at.Add(time.Minute)) })
}

// TestForeignKeys: a key of another kind under a name of ours, whoever made it,
// is a damaged record: it is logged, no call fails for it, and the next write
// takes its place.
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	core, logs := observer.New(zap.InfoLevel)
	cfg := config(srv.Addr)
	cfg.Logger = zap.New(core)
	s, c := mustOpen(t, cfg), raw(t, srv.Addr)
	id := userOf("oAlice")
	l := newLogin(id, func(l *store.Login) { l.UnionID = "u" })
	_, err := s.Login(t.Context(), l)
	must(t, err)
	rate := store.Rate{Every: time.Hour, Burst: 1}
	_, err = s.Spend(t.Context(), "bucket", rate)
	must(t, err)
	s.Touch(l.Digest, l.UsedUntil.Add(time.Minute))
	must(t, s.Flush())
	list, err := do(c, "KEYS", `wx\\gate\*\[*`).AsStrSlice()
	must(t, err)
	n := 0
	for _, key := range list {
		kind := strings.TrimPrefix(key, cfg.Prefix)[:1]
		if kind == "h" || kind == "i" {
			continue
		}
		n++
		if _, err := do(c, "DEL", key).AsInt64(); err != nil {
			t.Fatal(err)
		}
		must(t, do(c, "XADD", key, "*", "a", "b").Error())
	}
	if n != 9 {
		t.Errorf("%d keys are replaced: %q", n, list)
	}
	if accepted(t, s, l.Digest) {
		t.Error("the session holds")
	}
	if _, err := s.User(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("user: %v", err)
	}
	if ids, err := s.ByUnionID(t.Context(), "u"); err != nil || len(ids) != 0 {
		t.Errorf("by unionid: %v, %v", ids, err)
	}
	if needs, err := s.MasterKeys(t.Context()); err != nil || len(needs) != 0 {
		t.Errorf("master keys: %v, %v", needs, err)
	}
	must(t, s.Dump(t.Context(), func(store.Item) error { return nil }))
	_, err = s.Stats(t.Context())
	must(t, err)
	if logs.FilterMessageSnippet("damaged record").Len() == 0 ||
		logs.FilterMessageSnippet("calls to redis fail").Len() != 0 {
		t.Errorf("logged %v", logs.All())
	}

	for range 2 { // what it takes the place of, then its own
		if wait, err := s.Spend(t.Context(), "bucket", rate); err != nil {
			t.Errorf("spend: %v, %v", wait, err)
		}
	}
	next := newLogin(id, func(l *store.Login) { l.UnionID = "u" })
	_, err = s.Login(t.Context(), next)
	must(t, err)
	if !accepted(t, s, next.Digest) || accepted(t, s, l.Digest) {
		t.Error("the next login does not hold, or it brought back the damaged one")
	}
	note := cfg.Prefix + "t:{" + hexOf(next.Digest[:]) + "}"
	must(t, do(c, "DEL", note).Error())
	must(t, do(c, "XADD", note, "*", "a", "b").Error())
	s.Touch(next.Digest, next.UsedUntil.Add(time.Minute))
	must(t, s.Flush())
	if rec, err := s.Lookup(t.Context(), next.Digest); err != nil ||
		!rec.Session.UsedUntil.Equal(next.UsedUntil.Add(time.Minute)) {
		t.Errorf("used until %v, %v", rec.Session.UsedUntil, err)
	}
	if ids, err := s.ByUnionID(t.Context(), "u"); err != nil || len(ids) != 1 {
		t.Errorf("by unionid: %v, %v", ids, err)
	}
	if needs, err := s.MasterKeys(t.Context()); err != nil ||
		needs[next.MasterKey].Before(next.Expires) {
		t.Errorf("master keys: %v, %v", needs, err)
	}
	for name, revoke := range map[string]func() error{
		"End":        func() error { return s.End(t.Context(), next.Digest) },
		"RevokeUser": func() error { return s.RevokeUser(t.Context(), id) },
		"Forget":     func() error { return s.Forget(t.Context(), id) },
		"RevokeApp":  func() error { return s.RevokeApp(t.Context(), id.AppID) },
		"RevokeAll":  func() error { return s.RevokeAll(t.Context()) },
	} {
		h := id.Hash()
		for _, key := range []string{"s:{" + hexOf(next.Digest[:]), "u:{" + hexOf(h[:]), "e:{app:" + id.AppID, "e:{all"} {
			must(t, do(c, "DEL", cfg.Prefix+key+"}").Error())
			must(t, do(c, "RPUSH", cfg.Prefix+key+"}", "x").Error())
		}
		if err := revoke(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestP4_FailingCallsAreTold: an outage that only calls notice is told once,
// and not for a caller who gave up.
func TestP4_FailingCallsAreTold(t *testing.T) {
	redis.NotShort(t)
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	p := redistest.StartProxy(t, redistest.Start(t).Addr)
	cfg := config(p.Addr)
	cfg.Logger, cfg.ReadTimeout = zap.New(core), 200*time.Millisecond
	s := mustOpen(t, cfg)
	told := func() int { return logs.FilterMessageSnippet("calls to redis fail").Len() }
	beat := func() {
		heard := s.Heard()
		await(
			t,
			"two more heartbeats are answered",
			func() bool { return s.Heard().Sub(heard) > 300*time.Millisecond },
		)
	}
	for range 50 { // the library takes one of its connections by chance, and makes it when it is first needed
		if _, err := s.Lookup(t.Context(), store.Digest{1}); !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
	}
	beat()
	p.ForgetData()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := s.Lookup(ctx, store.Digest{1}); !errors.Is(err, store.ErrUnavailable) {
		t.Fatal(err)
	}
	beat()
	if told() != 0 {
		t.Errorf("told of a caller who gave up: %v", logs.All())
	}
	for range 3 {
		p.ForgetData()
		for range 5 {
			if _, err := s.Lookup(t.Context(), store.Digest{1}); !errors.Is(
				err,
				store.ErrUnavailable,
			) &&
				!errors.Is(err, store.ErrNotFound) {
				t.Fatal(err)
			}
		}
	}
	beat()
	if told() != 1 {
		t.Errorf("logged %v", logs.All())
	}
}

// TestForeignNames: names that none of ours has, in the index of a unionid and
// among the keys of users, are passed by.
func TestForeignNames(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	s, c := mustOpen(t, cfg), raw(t, srv.Addr)
	l := newLogin(userOf("oAlice"), func(l *store.Login) { l.UnionID = "u" })
	_, err := s.Login(t.Context(), l)
	must(t, err)
	list, err := do(c, "KEYS", `*n:*`).AsStrSlice()
	must(t, err)
	if len(list) != 1 {
		t.Fatalf("the index is %q", list)
	}
	for _, name := range []string{"", "x", "00", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("0", 34), strings.Repeat("0", 4096), strings.Repeat("g", 32)} {
		must(t, do(c, "SADD", list[0], name).Error())
		must(t, do(c, "SET", cfg.Prefix+"u:{"+name+"}", "x").Error())
	}
	if ids, err := s.ByUnionID(t.Context(), "u"); err != nil || len(ids) != 1 || ids[0] != l.User {
		t.Errorf("by unionid: %v, %v", ids, err)
	}
	n := 0
	must(t, s.Dump(t.Context(), func(it store.Item) error {
		n++
		return nil
	}))
	if n != 1 {
		t.Errorf("%d users are read out", n)
	}
}
