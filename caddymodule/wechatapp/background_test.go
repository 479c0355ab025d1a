package wechatapp

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// provisionFleet provisions an app whose store is a fleetStore on a path.
func provisionFleet(t testing.TB, path, rest string) *App {
	t.Helper()
	t.Setenv("WX_SECRET", caddytest.Canary)
	return provisionf(t, `"api":{"base_url":"http://127.0.0.1:1"},`+
		`"store":{"type":"fleet","path":%q}%s`, path, rest)
}

func startFleet(t testing.TB, path, rest string) *App {
	t.Helper()
	a := provisionFleet(t, path, rest)
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	return a
}

// end stops an app, with all that it started, at once.
func end(t testing.TB, a *App) {
	t.Helper()
	if err := a.Cleanup(); err != nil {
		t.Error(err)
	}
	a.Close()
}

// logIn makes a session by way of an app's store.
func logIn(t testing.TB, a *App) {
	t.Helper()
	s := session.New(session.Config{
		Core:   a.live.Load().Core,
		WeChat: caddytest.Exchanger{},
		Apps:   a.apps,
		Keys:   a.ring,
		TTL:    48 * time.Hour,
	})
	alice := session.LoginRequest{AppID: a.apps[0].ID, Code: caddytest.NewCode("alice")}
	if _, err := s.Login(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
}

// TestP4_StartStoreDown: a gate starts while the store that it shares is away.
// Its keys are checked as soon as the store answers; one that is missing by
// then is told loudly, and again from time to time, and does not end the gate.
func TestP4_StartStoreDown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	const withRing = `,"seal_key":"{env.WX_RING}"`
	t.Setenv("WX_RING", caddytest.SealKey)
	a := provisionFleet(t, path, withRing)
	t.Setenv(
		"WX_RING", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=",
	) // of another gate; each lacks that of the other
	b, again := provisionFleet(t, path, withRing), provisionFleet(t, path, withRing)
	caddytest.LogToMemory(t, "fleet")
	start := func(a *App) {
		t.Helper()
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		defer caddytest.Fleet.Down.Store(false)
		caddytest.Fleet.Down.Store(true)
		began := time.Now()
		start(a)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("started after %v", d)
		}
		time.Sleep(time.Hour)
		caddytest.Fleet.Down.Store(false)
		logIn(t, a)
		time.Sleep(24 * time.Hour)
		if got := caddytest.Written("fleet"); strings.Contains(got, "key ring") {
			t.Errorf("logged %s", got)
		}
		end(t, a)

		// Where the store is there, a gate that lacks a key does not start.
		if err := b.Start(); !errors.Is(err, session.ErrKeyMissing) {
			t.Fatalf("got %v", err)
		}
		end(t, b)
		caddytest.Fleet.Down.Store(true)
		start(again)
		caddytest.Fleet.Down.Store(false)
		time.Sleep(90 * time.Minute)
		got := caddytest.Written("fleet")
		if strings.Count(got, "the key ring is incomplete") != 2 ||
			!caddytest.Holds(got, `"level":"error"`, a.ring.Signer().String(), "needed until") {
			t.Errorf("logged %s", got)
		}
		end(t, again)
	})
}

// TestStartFewMomentsLate: opening a shared store only begins to connect, so a
// start does not take the first moments for an outage and skip the check.
func TestStartFewMomentsLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	t.Setenv("WX_RING", caddytest.SealKey)
	a := provisionFleet(t, path, `,"seal_key":"{env.WX_RING}"`)
	t.Setenv("WX_RING", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=")
	late := provisionFleet(t, path, `,"seal_key":"{env.WX_RING}"`)
	synctest.Test(t, func(t *testing.T) {
		defer caddytest.Fleet.Down.Store(false)
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		logIn(t, a)
		end(t, a)
		caddytest.Fleet.Down.Store(true)
		time.AfterFunc(time.Second, func() { caddytest.Fleet.Down.Store(false) })
		if err := late.Start(); !errors.Is(err, session.ErrKeyMissing) {
			t.Errorf("got %v", err)
		}
		end(t, late)
	})
}

// TestReloadChangesStaleness: max_staleness is that of the configuration which
// runs, and that of a refused one is forgotten.
func TestReloadChangesStaleness(t *testing.T) {
	defer caddytest.Fleet.Age.Store(0)
	path := filepath.Join(t.TempDir(), "s.db")
	first := startFleet(t, path, "")
	defer end(t, first)
	live := first.live.Load()
	s := session.New(session.Config{
		Core:   live.Core,
		WeChat: caddytest.Exchanger{},
		Apps:   first.apps,
		Keys:   first.ring,
		TTL:    time.Hour,
	})
	alice := session.LoginRequest{AppID: first.apps[0].ID, Code: caddytest.NewCode("alice")}
	out, err := s.Login(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	believes := func(a *App) bool {
		for range 1000 { // until the cache has taken it, if it is to be asked at all
			before := caddytest.Fleet.Lookups.Load()
			if _, err := a.live.Load().Sessions.Authenticate(t.Context(), out.Token); err != nil {
				t.Fatal(err)
			}
			if caddytest.Fleet.Lookups.Load() == before {
				return true
			}
		}
		return false
	}
	for _, step := range []struct {
		age  time.Duration
		want bool
	}{{29 * time.Second, true}, {31 * time.Second, false}} {
		caddytest.Fleet.Age.Store(int64(step.age))
		if got := believes(first); got != step.want {
			t.Errorf("not heard of the store for %v: cache believed %v", step.age, got)
		}
	}
	second := startFleet(t, path, `,"max_staleness":60000000000`)
	if !believes(second) {
		t.Error("the new limit does not apply")
	}
	end(t, second)
	if believes(first) {
		t.Error("the limit of the refused configuration applies")
	}
}

// TestThreat26_SharedRate: the rate per client is counted by all gates
// together, under the name that the gate's own limit knows a client by, and
// after that one.
func TestThreat26_SharedRate(t *testing.T) {
	defer caddytest.Fleet.Down.Store(false)
	path := filepath.Join(t.TempDir(), "s.db")
	const addr, key, minute = "203.0.113.7", "203.0.113.7/32", time.Minute
	normal := store.Rate{Every: 100 * time.Millisecond, Burst: 600}
	slow := store.Rate{Every: 10 * time.Second, Burst: 6}
	fast := store.Rate{Every: 1, Burst: 1<<31 - 1}
	for name, tt := range map[string]struct {
		rate, client string
		empty        time.Duration // wait of the shared bucket
		down         bool
		wait         time.Duration // 0: let in
		keys         string
		at           store.Rate
	}{
		"let in":         {client: addr, keys: key, at: normal},
		"refused":        {client: addr, empty: minute, wait: minute, keys: key, at: normal},
		"IPv6":           {client: "2001:db8:1:2:3::4", keys: "2001:db8:1:2::/64", at: normal},
		"IPv4 as IPv6":   {client: "::ffff:" + addr, keys: key, at: normal},
		"no answer":      {client: addr, empty: minute, down: true, keys: key, at: normal},
		"load balancer":  {client: "10.0.0.1", empty: minute},
		"switched off":   {rate: "off", client: addr, empty: minute},
		"given for all":  {rate: "6/m", client: "10.0.0.1", keys: "10.0.0.1/32", at: slow},
		"no clock ticks": {rate: "2147483647/s", client: addr, keys: key, at: fast},
	} {
		t.Run(name, func(t *testing.T) {
			a := startFleet(t, path, fmt.Sprintf(`,"login_rate":{"per_client":%q}`, tt.rate))
			defer end(t, a)
			spent := caddytest.Spend(tt.empty)
			caddytest.Fleet.Down.Store(tt.down)
			defer caddytest.Fleet.Down.Store(false)
			wait, by := a.live.Load().AllowLogin(t.Context(), netip.MustParseAddr(tt.client))
			want := map[bool]limit.Limit{true: limit.OfClient}[tt.wait > 0]
			if by != want || by != "" && wait != tt.wait {
				t.Errorf("refused by %q, wait %v", by, wait)
			}
			if keys, at := spent(); keys != tt.keys || at != tt.at {
				t.Errorf("spent %q at %v", keys, at)
			}
		})
	}
}

// TestClockWatch_EachChange_IsToldOnce: a jump is one line, and so is a clock that was
// never set; what NTP does slowly is none.
func TestClockWatch_EachChange_IsToldOnce(t *testing.T) {
	const jumped = "clock of this machine jumped"
	const unset, set = "clock of this machine is not set", "clock of this machine is set"
	begin := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	boot := time.Unix(3, 0)
	type look struct {
		wall   time.Time
		passed time.Duration
	}
	for name, tt := range map[string]struct {
		looks []look
		want  []string
	}{
		"steady": {[]look{{begin, 0}, {begin.Add(time.Second), time.Second}}, nil},
		"slewed": {[]look{{begin, 0}, {begin.Add(2 * time.Second), time.Second}}, nil},
		"ahead and back": {[]look{
			{begin, 0},
			{begin.AddDate(10, 0, 0), time.Second},
			{begin.AddDate(10, 0, 0).Add(time.Second), time.Second},
			{begin.Add(3 * time.Second), time.Second},
		}, []string{jumped, jumped}},
		"booted without a clock": {[]look{
			{boot, 0}, {boot.Add(time.Second), time.Second}, {begin, time.Second},
		}, []string{unset, jumped, set}},
	} {
		t.Run(name, func(t *testing.T) {
			core, lines := observer.New(zap.InfoLevel)
			var w clockWatch
			for _, l := range tt.looks {
				w.tell(zap.New(core), l.wall, l.passed)
			}
			got := lines.All()
			if len(got) != len(tt.want) {
				t.Fatalf("%d lines, want %d: %v", len(got), len(tt.want), got)
			}
			for i, line := range got {
				if line.Message != tt.want[i] {
					t.Errorf("line %d: %q, want %q", i, line.Message, tt.want[i])
				}
			}
		})
	}
}

// TestWeChatClock_Differs_IsToldOnce: and once when it agrees again; a difference near the
// limit, which is known to about a second, makes no lines.
func TestWeChatClock_Differs_IsToldOnce(t *testing.T) {
	core, lines := observer.New(zap.InfoLevel)
	var w weChatClock
	for _, ahead := range []time.Duration{0, 4, 5, -6, -4, -6, 90, -3, -2, 0, 4} {
		w.tell(zap.New(core), weixin.Clock{Ahead: ahead * time.Second})
	}
	var got []string
	for _, line := range lines.All() {
		got = append(got, line.Message)
	}
	want := []string{
		"clock of this machine differs from WeChat's",
		"clock of this machine agrees with WeChat's again",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
