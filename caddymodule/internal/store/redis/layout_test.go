package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

func TestOpenRefuses(t *testing.T) {
	for name, cfg := range map[string]redis.Config{
		"no address":              {},
		"a brace in the prefix":   {Addresses: []string{"localhost:1"}, Prefix: "x{y}:"},
		"a database of a cluster": {Addresses: []string{"localhost:1"}, Cluster: true, DB: 1},
		"sentinels of a cluster":  {Addresses: []string{"localhost:1"}, Cluster: true, Sentinel: &redis.Sentinel{Master: "m"}},
		"sentinels of nothing":    {Addresses: []string{"localhost:1"}, Sentinel: &redis.Sentinel{}},
	} {
		if s, err := redis.Open(cfg); err == nil {
			t.Errorf("%s: opened", name)
			s.Close()
		}
	}
}

func TestConfig_OnlyAddresses_HasDefaults(t *testing.T) {
	c, err := redis.Complete(redis.Config{Addresses: []string{"localhost:1"}})
	if err != nil || c.Prefix != "wxgate:" || c.DialTimeout != time.Second ||
		c.ReadTimeout != 80*time.Millisecond || c.WriteTimeout != 2*time.Second || c.Logger == nil {
		t.Errorf("%+v, %v", c, err)
	}
}

// keys returns the keys of the store with their times to live, in milliseconds.
func keys(t testing.TB, c rueidis.Client, cfg redis.Config) map[string]int64 {
	t.Helper()
	all, err := do(c, "KEYS", "*").AsStrSlice()
	must(t, err)
	ttls := make(map[string]int64)
	for _, k := range all {
		if name, ok := strings.CutPrefix(k, cfg.Prefix); ok {
			ttls[name], err = do(c, "PTTL", k).AsInt64()
			must(t, err)
		}
	}
	return ttls
}

// TestLifetimes: every record is named as documented and goes by itself when it
// is of no use any more, and none before.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	s, c := mustOpen(t, cfg), raw(t, srv.Addr)
	ctx := t.Context()
	short := newLogin(userOf("oShort"))
	long := newLogin(
		userOf("oLong"),
		func(l *store.Login) { l.Expires = l.Created.Add(400 * 24 * time.Hour) },
	)
	for _, l := range []store.Login{short, long} {
		_, err := s.Login(ctx, l)
		must(t, err)
	}
	s.Touch(short.Digest, short.UsedUntil.Add(time.Second))
	s.Touch(store.Digest{1}, short.Created.Add(time.Second)) // of no session
	_, err := s.Spend(ctx, "key", store.Rate{Every: time.Minute, Burst: 5})
	must(t, err)
	touched := "t:{" + hexOf(short.Digest[:]) + "}"
	await(t, "the touch is written", func() bool { return keys(t, c, cfg)[touched] > 0 })

	h1, h2 := short.User.Hash(), long.User.Hash()
	const day = 24 * time.Hour
	want := map[string]time.Duration{
		"s:{" + hexOf(short.Digest[:]) + "}": time.Hour,
		"s:{" + hexOf(long.Digest[:]) + "}":  400 * day,
		touched:                              time.Hour,
		"t:{" + hexOf(long.Digest[:]) + "}":  400 * day,
		"u:{" + hexOf(h1[:]) + "}":           180 * day,
		"u:{" + hexOf(h2[:]) + "}":           401 * day,
		"e:{app:" + short.User.AppID + "}":   0,
		"e:{all}":                            0,
		"k":                                  0,
		"m":                                  0,
	}
	got := keys(t, c, cfg)
	for name, ttl := range want {
		left, ok := got[name]
		delete(got, name)
		if low := ttl - time.Minute/2; !ok || ttl == 0 && left != -1 ||
			ttl > 0 && (left > ttl.Milliseconds() || left < low.Milliseconds()) {
			t.Errorf(
				"%s: %v left (there: %v), want %v",
				name,
				time.Duration(left)*time.Millisecond,
				ok,
				ttl,
			)
		}
	}
	for name, left := range got {
		most := 10 * time.Second // what gates tell one another
		switch {
		case strings.HasPrefix(name, "t:{"):
			most = 0
		case strings.HasPrefix(name, "b:{"):
			most = time.Minute
		case strings.HasPrefix(name, "n:{"):
			most = 404 * day
		}
		if left < 0 || left > most.Milliseconds() {
			t.Errorf(
				"%s: %v left, want at most %v",
				name,
				time.Duration(left)*time.Millisecond,
				most,
			)
		}
	}
}

// TestOrdinaryLoginTellsNobody: a gate drops nothing from its cache because
// somebody logs in, be it for the first time, again, or with what is known.
func TestOrdinaryLoginTellsNobody(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	s, c := mustOpen(t, cfg), raw(t, srv.Addr)
	_, err := s.Login(t.Context(), newLogin(userOf("oFirst"))) // makes the epochs, which is told
	must(t, err)
	for name := range keys(t, c, cfg) {
		if strings.HasPrefix(name, "i:") {
			must(t, do(c, "DEL", cfg.Prefix+name).Error())
		}
	}
	for range 2 {
		for _, openID := range []string{"oAlice", "oBob"} {
			_, err := s.Login(t.Context(), newLogin(userOf(openID), maxPerUser(3)))
			must(t, err)
		}
	}
	l := newLogin(userOf("oAlice"))
	l.UnionID = ""
	l.Key.Tag[0]++
	_, err = s.Login(t.Context(), l)
	must(t, err)
	s.Touch(l.Digest, l.Created.Add(time.Second))
	must(t, s.Close())
	for name := range keys(t, c, cfg) {
		if strings.HasPrefix(name, "i:s:") || strings.HasPrefix(name, "i:u:") ||
			strings.HasPrefix(name, "i:e:") {
			t.Errorf("told %s", name)
		}
	}
}

// TestErrorsKeepSecrets: an engine that does not know a command repeats what it
// was sent, and none of that may get into an error or a log (DESIGN.md P6).
func TestErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	core, logs := observer.New(zap.DebugLevel)
	cfg.Logger = zap.New(core)
	s := mustOpen(t, cfg)
	l := newLogin(userOf("oAlice"))
	l.Key.Box = []byte("box box box")
	_, err := s.Login(t.Context(), l)
	must(t, err)

	// The same server, as a store meets it that finds the commands renamed.
	broken := redistest.Start(
		t,
		redistest.With(`rename-command GET ""`),
		redistest.With(`rename-command EVALSHA ""`),
		redistest.With(`rename-command HGETALL ""`),
		redistest.With(`rename-command SMEMBERS ""`),
	)
	cfg.Addresses = []string{broken.Addr}
	b := mustOpen(t, cfg)
	var said []string
	for name, call := range map[string]func(context.Context) error{
		"Lookup":     func(ctx context.Context) error { _, err := b.Lookup(ctx, l.Digest); return err },
		"Login":      func(ctx context.Context) error { _, err := b.Login(ctx, l); return err },
		"End":        func(ctx context.Context) error { return b.End(ctx, l.Digest) },
		"MasterKeys": func(ctx context.Context) error { _, err := b.MasterKeys(ctx); return err },
		"ByUnionID":  func(ctx context.Context) error { _, err := b.ByUnionID(ctx, l.UnionID); return err },
		"Spend": func(ctx context.Context) error {
			_, err := b.Spend(ctx, l.User.OpenID, store.Rate{Every: time.Second, Burst: 1})
			return err
		},
	} {
		err := call(t.Context())
		if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotFound) ||
			!strings.Contains(err.Error(), "unknown command") {
			t.Errorf("%s: %v", name, err)
		}
		said = append(said, fmt.Sprint(err))
	}
	b.Touch(l.Digest, l.Created.Add(time.Second))
	must(t, b.Close())
	for _, e := range logs.All() {
		said = append(said, fmt.Sprint(e.Message, e.ContextMap()))
	}
	secrets := []string{
		hexOf(l.Digest[:]),
		string(l.Digest[:]),
		l.User.OpenID,
		l.UnionID,
		"box box",
	}
	for _, text := range said {
		if slices.ContainsFunc(secrets, func(x string) bool { return strings.Contains(text, x) }) ||
			strings.Contains(text, "args") {
			t.Errorf("%q", text)
		}
	}
}

// TestTouchOutlivesOutage: what was seen during an outage is written after it,
// as far as there is room, and touching waits for nothing.
func TestTouchOutlivesOutage(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, redistest.With("appendonly yes"))
	cfg := config(srv.Addr)
	cfg.WriteTimeout = 3 * time.Second // of the trial write that the dead server leaves
	s := mustOpen(t, cfg)
	var all []store.Login
	for i := range 20 {
		l := newLogin(userOf(fmt.Sprint("o", i)))
		_, err := s.Login(t.Context(), l)
		must(t, err)
		all = append(all, l)
	}
	srv.Kill()
	await(t, "the outage is known", func() bool { return s.Health(t.Context()) != nil })
	for _, l := range all {
		s.Touch(l.Digest, l.UsedUntil.Add(time.Minute))
	}
	if err := s.Flush(); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("writing in an outage: %v", err)
	}
	for i := range 100_000 { // bounded: these are strangers, most of which find no room
		s.Touch(store.Digest{1, byte(i), byte(i >> 8), byte(i >> 16)}, all[0].Created)
	}
	if n := s.PendingTouches(); n > 8192 {
		t.Errorf("%d touches wait", n)
	}
	srv.Restart()
	await(t, "all touches are written", func() bool {
		return !slices.ContainsFunc(all, func(l store.Login) bool {
			rec, err := s.Lookup(t.Context(), l.Digest)
			return err != nil || !rec.Session.UsedUntil.Equal(l.UsedUntil.Add(time.Minute))
		})
	})
}

// TestCallsAreBounded: a call on an engine that hangs returns by itself and
// says that the engine is unavailable.
func TestCallsAreBounded(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	l := newLogin(userOf("oAlice"))
	_, err := mustOpen(t, cfg).Login(t.Context(), l)
	must(t, err)
	cfg.ReadTimeout, cfg.WriteTimeout = 30*time.Millisecond, 60*time.Millisecond
	s := mustOpen(t, cfg)
	srv.Pause()
	defer srv.Resume()
	for name, call := range map[string]func(context.Context) error{
		"Login":      func(ctx context.Context) error { _, err := s.Login(ctx, newLogin(userOf("oAlice"))); return err },
		"Lookup":     func(ctx context.Context) error { _, err := s.Lookup(ctx, l.Digest); return err },
		"User":       func(ctx context.Context) error { _, err := s.User(ctx, l.User); return err },
		"End":        func(ctx context.Context) error { return s.End(ctx, l.Digest) },
		"RevokeUser": func(ctx context.Context) error { return s.RevokeUser(ctx, l.User) },
		"RevokeAll":  func(ctx context.Context) error { return s.RevokeAll(ctx) },
		"Health":     func(ctx context.Context) error { return s.Health(ctx) },
	} {
		if err := call(context.Background()); !errors.Is(err, store.ErrUnavailable) ||
			errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStatsOfMany: the walk counts each record once, beside the keys of others
// and of fleets whose prefix resembles ours.
func TestStatsOfMany(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, redistest.With("maxmemory 64mb"))
	cfg := config(srv.Addr)
	s, c := mustOpen(t, cfg), raw(t, srv.Addr)
	const n = 3000
	for i := range n {
		must(t, do(c, "SET", fmt.Sprint("foreign:s:{", i, "}"), "x").Error())
		must(t, do(c, "SET", fmt.Sprint("wxYgateY1Y:s:{", i, "}"), "x", "PX", "100000000").Error())
	}
	var last time.Time
	for i := range n / 2 {
		l := newLogin(userOf(fmt.Sprint("o", i%1000)))
		_, err := s.Login(t.Context(), l)
		must(t, err)
		last = l.Expires
	}
	st, err := s.Stats(t.Context())
	must(t, err)
	if st.Sessions != n/2 || st.Users != 1000 || st.LastExpiry.Before(last) ||
		st.LastExpiry.After(last.Add(time.Minute)) {
		t.Errorf("%+v, last session until %v", st, last)
	}
	if st.Bytes != 64<<20 || st.FreeBytes <= 0 || st.FreeBytes >= st.Bytes {
		t.Errorf("of 64 MiB: %+v", st)
	}
}
