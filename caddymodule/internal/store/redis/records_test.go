package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

func TestConfig_Wrong_IsRefused(t *testing.T) {
	at := []string{"localhost:1"}
	for name, cfg := range map[string]Config{
		"no address":            {},
		"brace in the prefix":   {Addresses: at, Prefix: "x{y}:"},
		"database of a cluster": {Addresses: at, Cluster: true, DB: 1},
		"sentinel of a cluster": {Addresses: at, Cluster: true, Sentinel: &Sentinel{Master: "m"}},
		"sentinel of nothing":   {Addresses: at, Sentinel: &Sentinel{}},
	} {
		if s, err := Open(cfg); err == nil {
			t.Errorf("%s: opened", name)
			s.Close()
		}
	}
}

func TestConfig_OnlyAddresses_HasDefaults(t *testing.T) {
	c, err := Config{Addresses: []string{"localhost:1"}}.complete()
	if err != nil || c.Prefix != "wxgate:" || c.DialTimeout != time.Second ||
		c.ReadTimeout != 80*time.Millisecond || c.WriteTimeout != 2*time.Second || c.Logger == nil {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestOpen_EngineUp_IsReady: a gate that starts beside a healthy engine has no outage
// to report.
func TestOpen_EngineUp_IsReady(t *testing.T) {
	t.Parallel()
	s, err := Open(config(redistest.Shared(t).Addr))
	must(t, err)
	defer s.Close()
	must(t, s.Health(t.Context()))
	if _, err := s.Lookup(t.Context(), store.Digest{1}); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}

func TestP4_OpenWhileDown_Succeeds(t *testing.T) {
	t.Parallel()
	s, err := Open(config("127.0.0.1:1"))
	must(t, err)
	defer s.Close()
	if err := s.Health(t.Context()); !isUnavailable(err) {
		t.Error(err)
	}
}

// TestLayout_EachRecord_Expires: every record has the documented name, and expires
// when it is of no use any more, not before.
func TestLayout_EachRecord_Expires(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const day = 24 * time.Hour
	short := mustLogin(t, f, newLogin(userOf("oShort")))
	long := mustLogin(t, f, newLogin(userOf("oLong"), func(l *store.Login) {
		l.Expires = l.Created.Add(400 * day)
	}))
	f.Touch(short.Digest, short.UsedUntil.Add(time.Second))
	f.Touch(store.Digest{1}, short.Created.Add(time.Second)) // of no session
	must(t, f.flush())
	_, err := f.Spend(t.Context(), "key", store.Rate{Every: time.Minute, Burst: 5})
	must(t, err)

	const forever = 0
	want := map[string]time.Duration{
		sessionKey(short.Digest):           time.Hour,
		sessionKey(long.Digest):            400 * day,
		noteKey(short.Digest):              time.Hour,
		noteKey(long.Digest):               400 * day,
		userKey(short.User):                180 * day,
		userKey(long.User):                 401 * day,
		"e:{app:" + short.User.AppID + "}": forever,
		"e:{all}":                          forever,
		"id:{0}":                           forever,
		"k":                                forever,
		"m":                                forever,
	}
	got := f.ttls()
	for name, ttl := range want {
		left, ok := got[name]
		delete(got, name)
		good := left <= ttl && left >= ttl-time.Minute/2
		if ttl == forever {
			good = left < 0
		}
		if !ok || !good {
			t.Errorf("%s: %v left (exists: %v), want %v", name, left, ok, ttl)
		}
	}
	for name, left := range got {
		most := 10 * time.Second // heartbeats and invalidations
		switch {
		case strings.HasPrefix(name, "t:{"):
			most = 0
		case strings.HasPrefix(name, "b:{"):
			most = time.Minute
		case strings.HasPrefix(name, "n:{"):
			most = 404 * day
		}
		if left < 0 || left > most {
			t.Errorf("%s: %v left, want at most %v", name, left, most)
		}
	}
}

// TestLogin_Ordinary_TellsNoGate: a login drops nothing from a cache, be it the
// user's first, or another with the same facts.
func TestLogin_Ordinary_TellsNoGate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mustLogin(t, f, newLogin(userOf("oFirst"))) // makes the epochs, which gates must know
	told := func() (names []string) {
		for name := range f.ttls() {
			if strings.HasPrefix(name, "i:") {
				names = append(names, name)
			}
		}
		return names
	}
	for _, name := range told() {
		f.do("DEL", f.cfg.Prefix+name)
	}
	for range 2 {
		for _, openID := range []string{"oAlice", "oBob"} {
			mustLogin(t, f, newLogin(userOf(openID), maxPerUser(3)))
		}
	}
	l := newLogin(userOf("oAlice"), unionID(""))
	l.Key.Tag[0]++
	mustLogin(t, f, l)
	f.Touch(l.Digest, l.Created.Add(time.Second))
	must(t, f.Close())
	if names := told(); names != nil {
		t.Errorf("told %s", names)
	}
}

// TestAmend_EachFact_TellsWhatShows: the records of an amendment live as long as the
// user's, and gates learn only of facts that the app sees.
func TestAmend_EachFact_TellsWhatShows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := mustLogin(t, f, newLogin(userOf("oAlice"), unionID("")))
	record, told := userKey(l.User), "i:"+userKey(l.User)
	fresh := store.SealedKey{Tag: [8]byte{7}, Box: []byte("fresh")}
	for _, step := range []struct {
		name  string
		a     store.Amendment
		tells bool
	}{
		{"key", store.Amendment{Key: fresh, KeyWas: l.Key.Tag}, false},
		{"unionid", store.Amendment{UnionID: "found"}, true},
		{"the same unionid", store.Amendment{UnionID: "found"}, false},
		{"number", store.Amendment{Phone: []byte("sealed")}, true},
	} {
		f.do("DEL", f.cfg.Prefix+told)
		before := f.ttls()[record]
		_, err := f.Amend(t.Context(), l.User, step.a)
		must(t, err)
		ttls := f.ttls()
		if _, ok := ttls[told]; ok != step.tells {
			t.Errorf("%s: told: %v, want %v", step.name, ok, step.tells)
		}
		if left := ttls[record]; left > before || left < before-time.Minute {
			t.Errorf("%s: the record has %v to live, had %v", step.name, left, before)
		}
		for name, left := range ttls {
			if strings.HasPrefix(name, "n:{") && left < ttls[record] {
				t.Errorf("%s: the index has %v to live, less than the record", step.name, left)
			}
		}
	}
	ids, err := f.ByUnionID(t.Context(), "found")
	if err != nil || len(ids) != 1 {
		t.Errorf("found by the unionid: %v, %v", ids, err)
	}
}

// calls are calls on a store, by name.
func calls(s *Store, l store.Login) map[string]func(context.Context) error {
	second := func(_ any, err error) error { return err }
	rate := store.Rate{Every: time.Second, Burst: 1}
	type ctx = context.Context
	return map[string]func(context.Context) error{
		"Login":      func(c ctx) error { return second(s.Login(c, l)) },
		"Lookup":     func(c ctx) error { return second(s.Lookup(c, l.Digest)) },
		"User":       func(c ctx) error { return second(s.User(c, l.User)) },
		"End":        func(c ctx) error { return s.End(c, l.Digest, store.EndLogout) },
		"RevokeUser": func(c ctx) error { return s.RevokeUser(c, l.User, store.EndRevoked) },
		"Forget":     func(c ctx) error { return s.Forget(c, l.User, store.EndForgotten) },
		"RevokeApp":  func(c ctx) error { return s.RevokeApp(c, l.User.AppID) },
		"RevokeAll":  func(c ctx) error { return s.RevokeAll(c) },
		"MasterKeys": func(c ctx) error { return second(s.MasterKeys(c)) },
		"ByUnionID":  func(c ctx) error { return second(s.ByUnionID(c, l.UnionID)) },
		"Spend":      func(c ctx) error { return second(s.Spend(c, l.User.OpenID, rate)) },
		"Health":     s.Health,
	}
}

// TestP6_CommandUnknown_ErrorShowsNoRecord: an engine that does not know a command
// repeats its arguments. No error and no log line may hold them.
func TestP6_CommandUnknown_ErrorShowsNoRecord(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	var opts []redistest.Option
	for _, name := range []string{"GET", "EVALSHA", "HGETALL", "SMEMBERS"} {
		opts = append(opts, redistest.With("rename-command "+name+` ""`))
	}
	f := fixtureAt(t, redistest.Start(t, opts...), func(c *Config) { c.Logger = zap.New(core) })
	l := newLogin(userOf("oAlice"))
	l.Key.Box = []byte("box box box")
	var said []string
	for name, call := range calls(f.Store, l) {
		if name == "Health" {
			continue // sends no such command
		}
		err := call(t.Context())
		if !isUnavailable(err) || !strings.Contains(err.Error(), "unknown command") {
			t.Errorf("%s: %v", name, err)
		}
		said = append(said, fmt.Sprint(err))
	}
	f.Touch(l.Digest, l.Created.Add(time.Second))
	must(t, f.Close())
	for _, e := range logs.All() {
		said = append(said, fmt.Sprint(e.Message, e.ContextMap()))
	}
	secrets := []string{
		hexOf(l.Digest[:]), string(l.Digest[:]), l.User.OpenID, l.UnionID, "box box", "args",
	}
	for _, text := range said {
		if slices.ContainsFunc(secrets, func(x string) bool { return strings.Contains(text, x) }) {
			t.Errorf("%q", text)
		}
	}
}

// TestP4_EngineHangs_CallsAreBounded: each call returns by itself and says that the
// engine is unavailable.
func TestP4_EngineHangs_CallsAreBounded(t *testing.T) {
	t.Parallel()
	notShort(t)
	f := fixtureAt(t, redistest.Start(t))
	l := mustLogin(t, f, newLogin(userOf("oAlice")))
	cfg := f.cfg
	cfg.ReadTimeout, cfg.WriteTimeout = 30*time.Millisecond, 60*time.Millisecond
	s := mustOpen(t, cfg)
	f.srv.Pause()
	defer f.srv.Resume()
	for name, call := range calls(s, l) {
		if err := call(context.Background()); !isUnavailable(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTouch_Outage_IsWrittenAfterIt: notes wait in an outage, as far as there is room.
func TestTouch_Outage_IsWrittenAfterIt(t *testing.T) {
	t.Parallel()
	notShort(t)
	short := func(c *Config) { c.WriteTimeout = time.Second } // of the trial write
	f := fixtureAt(t, redistest.Start(t, redistest.With("appendonly yes")), short)
	var all []store.Login
	for i := range 20 {
		all = append(all, mustLogin(t, f, newLogin(userOf(fmt.Sprint("o", i)))))
	}
	f.srv.Kill()
	await(t, "the outage is known", func() bool { return f.Health(t.Context()) != nil })
	for _, l := range all {
		f.Touch(l.Digest, l.UsedUntil.Add(time.Minute))
	}
	if err := f.flush(); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("writing in an outage: %v", err)
	}
	for i := range 100_000 { // of no sessions; most of them find no room
		f.Touch(store.Digest{1, byte(i), byte(i >> 8), byte(i >> 16)}, all[0].Created)
	}
	if n := f.touches.Len(); n > store.MaxTouches {
		t.Errorf("%d notes wait", n)
	}
	f.srv.Restart()
	await(t, "all notes are written", func() bool {
		return !slices.ContainsFunc(all, func(l store.Login) bool {
			rec, err := f.Lookup(t.Context(), l.Digest)
			return err != nil || !rec.Session.UsedUntil.Equal(l.UsedUntil.Add(time.Minute))
		})
	})
}

// TestStats_Many_CountsOnlyOwn: the walk counts each record once, beside foreign keys
// and those of a fleet whose prefix the pattern could match.
func TestStats_Many_CountsOnlyOwn(t *testing.T) {
	t.Parallel()
	f := fixtureAt(t, redistest.Start(t, redistest.With("maxmemory 64mb")))
	at := strings.Index(f.cfg.Prefix, "[") + 1
	foreign := "wxgateY" + f.cfg.Prefix[at:at+1] + "Y:" // as the prefix reads as a pattern
	f.do("EVAL", `for i = 1, 3000 do
		redis.call('SET', 'foreign:s:{' .. i .. '}', 'x')
		redis.call('SET', ARGV[1] .. 's:{' .. i .. '}', 'x', 'PX', '100000000')
	end`, "0", foreign)
	n := rounds(1500, 300)
	users := 2 * n / 3
	var last time.Time
	for i := range n {
		last = mustLogin(t, f, newLogin(userOf(fmt.Sprint("o", i%users)))).Expires
	}
	st, err := f.Stats(t.Context())
	must(t, err)
	if st.Sessions != int64(n) || st.Users != int64(users) || st.LastExpiry.Before(last) ||
		st.LastExpiry.After(last.Add(time.Minute)) {
		t.Errorf("%+v, last session until %v", st, last)
	}
	if st.Bytes != 64<<20 || st.FreeBytes <= 0 || st.FreeBytes >= st.Bytes {
		t.Errorf("of 64 MiB: %+v", st)
	}
}
