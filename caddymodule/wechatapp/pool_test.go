package wechatapp

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// storeApp is an app's JSON whose store is a switchStore on a path.
func storeApp(path, rest string) string {
	return caddytest.AppJSON(
		fmt.Sprintf(
			`"api":{"base_url":"http://127.0.0.1:1"},"store":{"type":"switch","path":%q%s}`, path,
			rest,
		),
	)
}

// coreOf tells which core an App holds.
func coreOf(t *testing.T, a *App) any {
	t.Helper()
	var h holdings
	c, err := takeCore(&h, a.opener, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Delete(h.keys[0]); err != nil {
		t.Fatal(err)
	}
	return c
}

func startedOn(t *testing.T, path string) *App {
	t.Helper()
	t.Setenv("WX_SECRET", caddytest.Canary)
	a, _ := provision(t, storeApp(path, ""))
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	return a
}

// opens runs f and returns how many stores were opened and closed meanwhile.
func opens(f func()) (opened, closed int32) {
	o, c := caddytest.Opened.Load(), caddytest.Closed.Load()
	f()
	return caddytest.Opened.Load() - o, caddytest.Closed.Load() - c
}

// TestThreat32_OneCoreForOnePath: however a path is written, the gate opens its
// database once. A second open of the same file would fail: it is locked.
func TestThreat32_OneCoreForOnePath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("WX_DIR", dir)
	t.Setenv("WX_SECRET", caddytest.Canary)
	var apps []*App
	start := func(path string) *App {
		t.Helper()
		a := boltApp(t, path)
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, path := range []string{
		dir + "/x.db", dir + "/./a/../x.db", "x.db", "./a/../x.db", dir + "//x.db",
		"{env.WX_DIR}/x.db",
	} {
		apps = append(apps, start(path))
	}
	other := start(dir + "/y.db")
	if coreOf(t, other) == coreOf(t, apps[0]) {
		t.Error("two databases share a core")
	}
	other.Close()
	for _, a := range apps {
		if coreOf(t, a) != coreOf(t, apps[0]) {
			t.Errorf("another core for %s", a.opener.Identity())
		}
		if a.live.Load().limiter != apps[0].live.Load().limiter {
			t.Error("another limiter")
		}
	}
	for _, a := range apps {
		if _, err := a.Live(t.Context()); err != nil {
			t.Errorf("closed under a configuration that runs: %v", err)
		}
		a.Close()
	}
	start(dir + "/x.db").Close() // not locked: the last one closed it
}

// TestThreat32_ReloadTimeline plays a reload and a stop: what is shared stays
// open, the replaced configuration lingers, and the last request in it decides
// when it goes.
func TestThreat32_ReloadTimeline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	synctest.Test(t, func(t *testing.T) {
		first := startedOn(t, path)
		second := startedOn(t, path) // before the old configuration is cleaned up
		if coreOf(t, first) != coreOf(t, second) {
			t.Fatal("the reload opened the store again")
		}
		_, closed := opens(func() {
			if err := first.Stop(); err != nil {
				t.Error(err)
			}
			if err := first.Cleanup(); err != nil {
				t.Error(err)
			}
			time.Sleep(Linger + time.Second)
			synctest.Wait()
		})
		if closed != 0 {
			t.Error("the store was closed under the new configuration")
		}
		if _, closed = opens(func() {
			if err := second.Cleanup(); err != nil {
				t.Error(err)
			}
			time.Sleep(Linger - time.Nanosecond)
			synctest.Wait()
		}); closed != 0 {
			t.Error("closed before it had lingered")
		}
		if _, closed = opens(func() {
			time.Sleep(time.Nanosecond)
			synctest.Wait()
		}); closed != 1 {
			t.Error("not closed after it had lingered")
		}
	})
}

// TestThreat32_FailedStart holds that a refused configuration returns its holdings,
// and the running one keeps its own.
func TestThreat32_FailedStart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		running := startedOn(t, dir+"/s.db")

		refused, _ := provision(t, storeApp(dir+"/other.db", `,"refuse":true`))
		if err := refused.Start(); err == nil {
			t.Error("started")
		}
		if len(refused.held.keys) != 0 {
			t.Errorf("holds %v", refused.held.keys)
		}

		// Refused after it has taken the core that the running configuration
		// uses, and one of its own.
		for _, path := range []string{dir + "/s.db", dir + "/third.db"} {
			late, _ := provision(t, storeApp(path, ""))
			late.API.BaseURL = "not a URL"
			want := int32(0)
			if path == dir+"/third.db" {
				want = 1
			}
			// At once: the process may end before Cleanup's time is over.
			opened, closed := opens(func() {
				if err := late.Start(); err == nil {
					t.Error("started")
				}
			})
			if opened != want || closed != want || len(late.held.keys) != 0 {
				t.Errorf(
					"%s: opened %d and closed %d stores, want %d; holds %v", path, opened, closed,
					want, late.held.keys,
				)
			}
			opened, closed = opens(func() {
				if err := late.Cleanup(); err != nil {
					t.Error(err)
				}
				time.Sleep(Linger)
				synctest.Wait()
			})
			if opened != 0 || closed != 0 {
				t.Errorf("%s: closed %d stores later", path, closed)
			}
		}
		if err := refused.Cleanup(); err != nil {
			t.Error(err)
		}
		if _, closed := opens(func() { time.Sleep(Linger); synctest.Wait() }); closed != 0 {
			t.Error("the running configuration lost its store")
		}
		if _, closed := opens(running.Close); closed != 1 {
			t.Error("references are left over")
		}
	})
}

// TestThreat32_RejectedChangesNothing: the limits of a configuration that fails
// to start do not apply to the running one.
func TestThreat32_RejectedChangesNothing(t *testing.T) {
	dir := t.TempDir()
	running := startedOn(t, dir+"/s.db")
	defer running.Close()
	late := provisionf(t, `"store":{"type":"switch","path":%q,"refuse":true},`+
		`"login_rate":{"in_flight":1}`, dir+"/t.db")
	if err := late.Start(); err == nil {
		t.Fatal("started")
	}
	limiter := running.live.Load().limiter
	for range 2 {
		leave, _, by := limiter.Begin(t.Context(), netip.Addr{})
		if by != "" {
			t.Fatal("the limit of the rejected configuration applies")
		}
		defer leave(false)
	}
}

// TestCleanupWithoutStart: `caddy validate` does that, and every configuration
// that fails half-way.
func TestCleanupWithoutStart(t *testing.T) {
	t.Setenv("WX_SECRET", caddytest.Canary)
	synctest.Test(t, func(t *testing.T) { // which would end with a deadlock if a timer were left
		a, _ := provision(t, storeApp(filepath.Join(t.TempDir(), "s.db"), ""))
		opened, closed := opens(func() {
			for _, a := range []*App{a, new(App)} { // the second one was not even provisioned
				if err := a.Cleanup(); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(2 * Linger)
		})
		if opened != 0 || closed != 0 {
			t.Errorf("opened %d, closed %d", opened, closed)
		}
	})
}

// TestValidateOpensNothing: it may run beside the real server, as another user,
// on another machine.
func TestValidateOpensNothing(t *testing.T) {
	caddytest.SetSecrets(t)
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	validate := func(app string) error {
		return caddy.Validate(&caddy.Config{
			Logging: caddytest.Quiet(),
			AppsRaw: caddy.ModuleMap{"wechat": json.RawMessage(app)},
		})
	}
	own := `"store":{"type":"bolt","path":"` + filepath.Join(data, "own", "s.db") + `"}`
	for _, store := range []string{"", own} {
		if err := validate(caddytest.AppJSON(store)); err != nil {
			t.Error(err)
		}
	}
	if got := caddytest.Files(t, data); len(got) > 0 {
		t.Errorf("made %v", got)
	}

	// Validate passes also for a file that another gate has open; Start must not.
	db := filepath.Join(data, "s.db")
	running := startedOn(t, db)
	defer running.Close()
	if _, err := os.Stat(db); err != nil {
		t.Fatal("this test shows nothing:", err)
	}
	if opened, _ := opens(func() {
		if err := validate(storeApp(db, "")); err != nil {
			t.Error(err)
		}
	}); opened != 0 {
		t.Error("opened the store")
	}
}

// TestReloadChangesLimits: the limiter lives on, with the limits of the
// configuration that started last.
func TestReloadChangesLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	first := startedOn(t, path)
	defer first.Close()
	second := provisionf(t, `"store":{"type":"switch","path":%q},"login_rate":{"in_flight":1}`,
		path)
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	leave, _, by := first.live.Load().BeginLogin(t.Context(), netip.Addr{})
	if by != "" {
		t.Fatal("nobody is let in")
	}
	defer leave(nil)
	if _, _, by := second.live.Load().BeginLogin(t.Context(), netip.Addr{}); by == "" {
		t.Error("the new limit does not apply")
	}
}

// TestCoreRefused holds that a refused core closes its store.
func TestCoreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	for range 2 { // or the second would find the file locked
		st, err := bolt.Open(bolt.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newPooledCore(st, zap.NewNop(), -1); err == nil {
			t.Fatal("a cache of a negative size was made")
		}
	}
}
