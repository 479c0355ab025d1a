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
	l := store.Login{User: id, UnionID: "union of " + id.OpenID, Key: store.SealedKey{Tag: [8]byte{1}, Box: make([]byte, 54)}, Created: now, Expires: now.Add(time.Hour)}
	rand.Read(l.Digest[:])
	for _, e := range edit {
		e(&l)
	}
	return l
}

func maxPerUser(n int) func(*store.Login)    { return func(l *store.Login) { l.MaxPerUser = n } }
func ends(d store.Digest) func(*store.Login) { return func(l *store.Login) { l.Ends = d } }

// accepted reports whether the session holds. An error other than that it is not there fails the test.
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
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true})
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func do(c rueidis.Client, args ...string) rueidis.RedisResult {
	return c.Do(context.Background(), c.B().Arbitrary(args...).Build())
}

// TestDamagedNeverAccepts: whatever becomes of the records that a session hangs on, it is not accepted unless all are as they were written, and the next login works. When a session was last
// seen never becomes later.
func TestDamagedNeverAccepts(t *testing.T) {
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
			b[rapid.IntRange(0, len(b)-1).Draw(rt, "byte")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "bits"))
			must(rt, do(c, "SET", key, string(b)).Error())
		case "cut":
			must(rt, do(c, "SET", key, was[:rapid.IntRange(0, len(was)-1).Draw(rt, "length")]).Error())
		case "grow":
			must(rt, do(c, "APPEND", key, string(rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(rt, "tail"))).Error())
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
		case err != nil && errors.Is(err, store.ErrNotFound) == errors.Is(err, store.ErrUnavailable):
			rt.Fatal(err)
		}
		if damage == "delete" && !errors.Is(err, store.ErrNotFound) {
			rt.Fatalf("without the record: %v", err)
		}
		if u, err := s.User(t.Context(), id); kind == "u" && damage != "list" && !errors.Is(err, store.ErrNotFound) {
			rt.Fatalf("user %+v, %v", u, err)
		}
		if errors.Is(err, store.ErrUnavailable) {
			must(rt, do(c, "DEL", key).Error()) // not a string: somebody else's key, and for a person to look at
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
		return rec.Session.LastSeen
	}
	at := l.Created.Add(time.Minute)
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
				t.Fatalf("a flipped bit in byte %d made the session last seen at %v", i, got)
			}
		}
	}
	for _, v := range []string{"", "x", was + "0", strings.Repeat("9", 24)} {
		must(t, do(c, "SET", key, v).Error())
		if got := seen(); got.After(l.Created) {
			t.Errorf("touch record %q: last seen %v", v, got)
		}
	}
	// All that cannot be read counts as no touch, so a new one takes its place.
	must(t, do(c, "SET", key, "x").Error())
	s.Touch(l.Digest, at.Add(time.Minute))
	await(t, "the next touch is written", func() bool { return seen().Equal(at.Add(time.Minute)) })
}
