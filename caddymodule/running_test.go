package caddymodule

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestP7_RefusedConfigIsServedByTheRunning: the listeners of a configuration may be open before its App fails to start. Whoever comes in by them is served as if it had never been.
func TestP7_RefusedConfigIsServedByTheRunning(t *testing.T) {
	dir := t.TempDir()
	now := started(t, filepath.Join(dir, "s.db"))
	defer now.lease.close()
	refused, _ := provisionApp(t, withApp(fmt.Sprintf(`"store":{"type":"switch","path":%q,"refuse":true}`, filepath.Join(dir, "t.db"))))
	got := make(chan *running)
	go func() { // before it is known how the start ends
		live, _ := refused.enter(t.Context())
		got <- live
	}()
	if err := refused.Start(); err == nil {
		t.Fatal("started")
	}
	for range 2 {
		live := <-got
		if live == nil || live != now.live.Load() {
			t.Fatalf("served by %p, not by what is running", live)
		}
		live.lease.leave()
		go func() {
			live, _ := refused.enter(t.Context())
			got <- live
		}()
	}
	(<-got).lease.leave()
}

// TestP7_RefusedLaterRestoresLimits: when another app of the configuration fails after ours has started, the shared limits are those of the running configuration again.
func TestP7_RefusedLaterRestoresLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	first := started(t, path)
	second, _ := provisionApp(t, withApp(fmt.Sprintf(`"store":{"type":"switch","path":%q},"login_rate":{"in_flight":1}`, path)))
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	if err := second.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if current.Load() != first {
		t.Error("the refused configuration is still the current one")
	}
	for range 2 {
		leave, ok := first.live.Load().limiter.Begin()
		if !ok {
			t.Fatal("the limit of the refused configuration applies")
		}
		defer leave()
	}
	first.Cleanup()
	first.lease.close()
	second.lease.close()
}

// P7: a new master key of a configuration that comes to nothing is not needed.
func TestP7_RefusedLater_LeavesNoKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	keys := newMasters(2)
	old, young := keys[0], keys[1]
	start := func(ring string) *App {
		t.Helper()
		t.Setenv("WX_SECRET", canary)
		t.Setenv("WX_SEAL_KEY", ring)
		a, _ := provisionApp(t, withApp(fmt.Sprintf(`"store":{"type":"switch","path":%q},"seal_key":"{env.WX_SEAL_KEY}"`, path)))
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.lease.close)
		return a
	}
	first := start(old)
	defer first.Cleanup()
	if err := start(young + "," + old).Cleanup(); err != nil {
		t.Fatal(err)
	}
	if needs, err := first.live.Load().sessions.MasterKeys(t.Context()); err != nil || len(needs) != 0 {
		t.Errorf("needed are %v, %v", needs, err)
	}
	again := start(old)
	defer again.Cleanup()
}

// TestP7_NeverStartedIsServedByTheRunning: as when another app of the configuration fails before ours would have been started.
func TestP7_NeverStartedIsServedByTheRunning(t *testing.T) {
	dir := t.TempDir()
	now := started(t, filepath.Join(dir, "s.db"))
	defer now.lease.close()
	refused, _ := provisionApp(t, withApp(fmt.Sprintf(`"store":{"type":"switch","path":%q}`, filepath.Join(dir, "t.db"))))
	if err := refused.Cleanup(); err != nil {
		t.Fatal(err)
	}
	live, err := refused.enter(t.Context())
	if err != nil || live != now.live.Load() {
		t.Fatalf("served by %p, %v", live, err)
	}
	live.lease.leave()
}

// TestReplacedConfigIsForgotten: however often a server is reloaded, no old configuration stays in memory.
func TestReplacedConfigIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s.db")
		last := started(t, path)
		for range 3 {
			next := started(t, path)
			if next.previous.Load() != last {
				t.Error("what was running is not known")
			}
			last.Cleanup()
			if current.Load() != next || next.previous.Load() != nil || last.previous.Load() != nil {
				t.Error("the old configuration is still held")
			}
			last = next
		}
		last.Cleanup()
		if current.Load() == last {
			t.Error("a stopped configuration is the current one")
		}
		time.Sleep(2 * linger)
	})
}
