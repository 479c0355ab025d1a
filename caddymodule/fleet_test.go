package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func init() { caddy.RegisterModule(new(fleetStore)) }

// fleetStore is the bolt store in the role of one that gates share, as the module wechat.stores.fleet.
type fleetStore struct{ BoltStore }

// What all fleetStores share; a test that sets one sets it back.
var (
	fleetDown    atomic.Bool
	fleetHeard   atomic.Int64 // age in nanoseconds
	fleetLookups atomic.Int32
	fleetSpent   struct {
		sync.Mutex
		keys []string
		rate store.Rate
		wait time.Duration
	}
)

func (fleetStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "wechat.stores.fleet", New: func() caddy.Module { return new(fleetStore) }}
}

func (s *fleetStore) Identity() string { return "fleet:" + s.path }

func (s *fleetStore) Open(log *zap.Logger) (store.Store, error) {
	st, err := s.BoltStore.Open(log)
	return fleetLink{st}, err
}

// fleetLink is a store.Shared that has nobody to share with.
type fleetLink struct{ store.Store }

var _ store.Shared = fleetLink{}

func (fleetLink) up() error {
	if fleetDown.Load() {
		return store.ErrUnavailable
	}
	return nil
}

func (fleetLink) Watch(func(store.Change)) {}
func (fleetLink) Heard() time.Time         { return time.Now().Add(-time.Duration(fleetHeard.Load())) }

func (f fleetLink) Lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	fleetLookups.Add(1)
	if err := f.up(); err != nil {
		return store.Record{}, err
	}
	return f.Store.Lookup(ctx, d)
}

func (f fleetLink) MasterKeys(ctx context.Context) (map[store.MasterKeyID]time.Time, error) {
	if err := f.up(); err != nil {
		return nil, err
	}
	return f.Store.MasterKeys(ctx)
}

func (f fleetLink) Spend(_ context.Context, key string, r store.Rate) (time.Duration, error) {
	fleetSpent.Lock()
	defer fleetSpent.Unlock()
	fleetSpent.keys, fleetSpent.rate = append(fleetSpent.keys, key), r
	return fleetSpent.wait, f.up()
}

// provisionFleet provisions an app whose store is a fleetStore on a path.
func provisionFleet(t testing.TB, path, rest string) *App {
	t.Helper()
	t.Setenv("WX_SECRET", canary)
	a, _ := provisionApp(t, withApp(fmt.Sprintf(`"api":{"base_url":"http://127.0.0.1:1"},"store":{"type":"fleet","path":%q}%s`, path, rest)))
	return a
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
	a.lease.close()
}

// logIn makes a session by way of an app's store.
func logIn(t testing.TB, a *App) {
	t.Helper()
	s := session.New(session.Config{Core: a.live.Load().core, WeChat: exchanger{}, Apps: a.apps, Keys: a.ring, TTL: 48 * time.Hour})
	if _, err := s.Login(t.Context(), session.LoginRequest{AppID: a.apps[0].ID, Code: fmt.Sprint("alice.", codes.Add(1))}); err != nil {
		t.Fatal(err)
	}
}

// logToMemory sends what Caddy logs to a name.
func logToMemory(t *testing.T, name string) {
	t.Helper()
	err := caddy.Load([]byte(`{"admin":{"disabled":true,"config":{"persist":false}},"logging":{"logs":{"default":{"writer":{"output":"memory","name":"`+name+`"},"level":"INFO"}}}}`), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestP4_StartStoreDown: a gate starts while the store that it shares is away. Its keys are checked as soon as the store answers; one that is missing by then is told loudly, and again from
// time to time, and does not end the gate.
func TestP4_StartStoreDown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	const withRing = `,"seal_key":"{env.WX_RING}"`
	t.Setenv("WX_RING", sealKey)
	a := provisionFleet(t, path, withRing)
	t.Setenv("WX_RING", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=") // of another gate; each lacks that of the other
	b, again := provisionFleet(t, path, withRing), provisionFleet(t, path, withRing)
	logToMemory(t, "fleet")
	start := func(a *App) {
		t.Helper()
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		defer fleetDown.Store(false)
		fleetDown.Store(true)
		began := time.Now()
		start(a)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("started after %v", d)
		}
		time.Sleep(time.Hour)
		fleetDown.Store(false)
		logIn(t, a)
		time.Sleep(24 * time.Hour)
		if got := written("fleet"); strings.Contains(got, "key ring") {
			t.Errorf("logged %s", got)
		}
		end(t, a)

		// Where the store is there, a gate that lacks a key does not start.
		if err := b.Start(); !errors.Is(err, session.ErrKeyMissing) {
			t.Fatalf("got %v", err)
		}
		end(t, b)
		fleetDown.Store(true)
		start(again)
		fleetDown.Store(false)
		time.Sleep(90 * time.Minute)
		if got := written("fleet"); strings.Count(got, "the key ring is incomplete") != 2 || !holds(got, `"level":"error"`, a.ring.Signer().String(), "needed until") {
			t.Errorf("logged %s", got)
		}
		end(t, again)
	})
}

// TestStartFewMomentsLate: opening a shared store only begins to connect, so a start does not take the first moments for an outage and skip the check.
func TestStartFewMomentsLate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	t.Setenv("WX_RING", sealKey)
	a := provisionFleet(t, path, `,"seal_key":"{env.WX_RING}"`)
	t.Setenv("WX_RING", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=")
	late := provisionFleet(t, path, `,"seal_key":"{env.WX_RING}"`)
	synctest.Test(t, func(t *testing.T) {
		defer fleetDown.Store(false)
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		logIn(t, a)
		end(t, a)
		fleetDown.Store(true)
		time.AfterFunc(time.Second, func() { fleetDown.Store(false) })
		if err := late.Start(); !errors.Is(err, session.ErrKeyMissing) {
			t.Errorf("got %v", err)
		}
		end(t, late)
	})
}

// TestReloadChangesStaleness: max_staleness is that of the configuration which runs, and that of a refused one is forgotten.
func TestReloadChangesStaleness(t *testing.T) {
	defer fleetHeard.Store(0)
	path := filepath.Join(t.TempDir(), "s.db")
	first := startFleet(t, path, "")
	defer end(t, first)
	live := first.live.Load()
	s := session.New(session.Config{Core: live.core, WeChat: exchanger{}, Apps: first.apps, Keys: first.ring, TTL: time.Hour})
	out, err := s.Login(t.Context(), session.LoginRequest{AppID: first.apps[0].ID, Code: fmt.Sprint("alice.", codes.Add(1))})
	if err != nil {
		t.Fatal(err)
	}
	believes := func(a *App) bool {
		for range 1000 { // until the cache has taken it, if it is to be asked at all
			before := fleetLookups.Load()
			if _, err := a.live.Load().sessions.Authenticate(t.Context(), out.Token); err != nil {
				t.Fatal(err)
			}
			if fleetLookups.Load() == before {
				return true
			}
		}
		return false
	}
	for _, step := range []struct {
		age  time.Duration
		want bool
	}{{29 * time.Second, true}, {31 * time.Second, false}} {
		fleetHeard.Store(int64(step.age))
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

// TestThreat26_SharedRate: the rate per client is counted by all gates together, under the name that the gate's own limit knows a client by, and after that one.
func TestThreat26_SharedRate(t *testing.T) {
	defer fleetDown.Store(false)
	path := filepath.Join(t.TempDir(), "s.db")
	for name, tt := range map[string]struct {
		rate, client string
		empty        time.Duration // what the shared bucket says
		down         bool
		wait         time.Duration // 0: let in
		keys         string
		at           store.Rate
	}{
		"let in":         {client: "203.0.113.7", keys: "203.0.113.7/32", at: store.Rate{Every: 2 * time.Second, Burst: 30}},
		"refused":        {client: "203.0.113.7", empty: time.Minute, wait: time.Minute, keys: "203.0.113.7/32", at: store.Rate{Every: 2 * time.Second, Burst: 30}},
		"IPv6":           {client: "2001:db8:1:2:3::4", keys: "2001:db8:1:2::/64", at: store.Rate{Every: 2 * time.Second, Burst: 30}},
		"IPv4 as IPv6":   {client: "::ffff:203.0.113.7", keys: "203.0.113.7/32", at: store.Rate{Every: 2 * time.Second, Burst: 30}},
		"no answer":      {client: "203.0.113.7", empty: time.Minute, down: true, keys: "203.0.113.7/32", at: store.Rate{Every: 2 * time.Second, Burst: 30}},
		"load balancer":  {client: "10.0.0.1", empty: time.Minute},
		"switched off":   {rate: "off", client: "203.0.113.7", empty: time.Minute},
		"given for all":  {rate: "6/m", client: "10.0.0.1", keys: "10.0.0.1/32", at: store.Rate{Every: 10 * time.Second, Burst: 6}},
		"no clock ticks": {rate: "2147483647/s", client: "203.0.113.7", keys: "203.0.113.7/32", at: store.Rate{Every: 1, Burst: 1<<31 - 1}},
	} {
		t.Run(name, func(t *testing.T) {
			a := startFleet(t, path, fmt.Sprintf(`,"login_rate":{"per_client":%q}`, tt.rate))
			defer end(t, a)
			spent := spending(tt.empty)
			fleetDown.Store(tt.down)
			defer fleetDown.Store(false)
			wait, ok := a.live.Load().letIn(t.Context(), netip.MustParseAddr(tt.client))
			if ok != (tt.wait == 0) || !ok && wait != tt.wait {
				t.Errorf("let in %v, wait %v", ok, wait)
			}
			if keys, at := spent(); keys != tt.keys || at != tt.at {
				t.Errorf("spent %q at %v", keys, at)
			}
		})
	}
}

// spending makes the shared bucket empty for a time; spent tells what has been asked of it since.
func spending(empty time.Duration) (spent func() (keys string, at store.Rate)) {
	fleetSpent.Lock()
	defer fleetSpent.Unlock()
	fleetSpent.keys, fleetSpent.rate, fleetSpent.wait = nil, store.Rate{}, empty
	return func() (string, store.Rate) {
		fleetSpent.Lock()
		defer fleetSpent.Unlock()
		return strings.Join(fleetSpent.keys, " "), fleetSpent.rate
	}
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, io.EOF
}

// TestThreat26_SharedRateAnswer: whom the other gates have let in too often is told when to come back, before the body is read; and whom this one refuses is not counted by the others.
func TestThreat26_SharedRateAnswer(t *testing.T) {
	t.Setenv("WX_SECRET", canary)
	a, ctx := provisionApp(t, withApp(fmt.Sprintf(`"api":{"base_url":"http://127.0.0.1:1"},"store":{"type":"fleet","path":%q},"login_rate":{"per_client":"2/h"}`, filepath.Join(t.TempDir(), "s.db"))))
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	defer end(t, a)
	g := new(Gate)
	if err := g.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	g.log = zap.NewNop()
	spent := spending(1500 * time.Millisecond)
	for _, want := range []string{"2", "2", "1800"} { // the third time by the gate's own limit
		r, rec := request("POST", "/wx/login", "")
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, "203.0.113.7")
		r.Body = io.NopCloser(unread{t})
		if err := g.ServeHTTP(rec, r, &next{}); err != nil {
			t.Fatal(err)
		}
		if got := rec.Header().Get("Retry-After"); rec.Code != http.StatusTooManyRequests || got != want || code(t, rec) != "rate_limited" {
			t.Errorf("%d, Retry-After %q, want %q", rec.Code, got, want)
		}
	}
	if keys, _ := spent(); keys != "203.0.113.7/32 203.0.113.7/32" {
		t.Errorf("spent %q", keys)
	}
}
