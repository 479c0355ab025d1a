package wechatapp

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// TestP7_RefusedConfigIsServedByTheRunning: the listeners of a configuration may be
// open before its App fails to start. The running App serves requests from them.
func TestP7_RefusedConfigIsServedByTheRunning(t *testing.T) {
	dir := t.TempDir()
	now := startedOn(t, filepath.Join(dir, "s.db"))
	defer now.Close()
	refused := provisionf(t, `"store":{"type":"switch","path":%q,"refuse":true}`,
		filepath.Join(dir, "t.db"))
	got := make(chan *Live)
	go func() { // before it is known how the start ends
		live, _ := refused.Live(t.Context())
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
		go func() {
			live, _ := refused.Live(t.Context())
			got <- live
		}()
	}
	<-got
}

// TestP7_RefusedLaterRestoresLimits: when another app of the configuration
// fails after ours has started, the shared limits are those of the running
// configuration again.
func TestP7_RefusedLaterRestoresLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	first := startedOn(t, path)
	second := provisionf(t, `"store":{"type":"switch","path":%q},"login_rate":{"in_flight":1}`,
		path)
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	if err := second.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if Current() != first {
		t.Error("the refused configuration is still the current one")
	}
	for range 2 {
		leave, _, by := first.live.Load().BeginLogin(t.Context(), netip.Addr{})
		if by != "" {
			t.Fatal("the limit of the refused configuration applies")
		}
		defer leave(nil)
	}
	first.Cleanup()
	first.Close()
	second.Close()
}

// P7: a new master key of a configuration that comes to nothing is not needed.
func TestP7_RefusedLater_LeavesNoKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	keys := caddytest.NewMasterKeys(2)
	old, young := keys[0], keys[1]
	start := func(ring string) *App {
		t.Helper()
		t.Setenv("WX_SECRET", caddytest.Canary)
		t.Setenv("WX_SEAL_KEY", ring)
		a := provisionf(t, `"store":{"type":"switch","path":%q},"seal_key":"{env.WX_SEAL_KEY}"`,
			path)
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		return a
	}
	first := start(old)
	defer first.Cleanup()
	if err := start(young + "," + old).Cleanup(); err != nil {
		t.Fatal(err)
	}
	if needs, err := first.live.Load().Sessions.MasterKeys(t.Context()); err != nil ||
		len(needs) != 0 {
		t.Errorf("needed are %v, %v", needs, err)
	}
	again := start(old)
	defer again.Cleanup()
}

// TestP7_NeverStartedIsServedByTheRunning: as when another app of the
// configuration fails before ours would have been started.
func TestP7_NeverStartedIsServedByTheRunning(t *testing.T) {
	dir := t.TempDir()
	now := startedOn(t, filepath.Join(dir, "s.db"))
	defer now.Close()
	refused := provisionf(t, `"store":{"type":"switch","path":%q}`,
		filepath.Join(dir, "t.db"))
	if err := refused.Cleanup(); err != nil {
		t.Fatal(err)
	}
	live, err := refused.Live(t.Context())
	if err != nil || live != now.live.Load() {
		t.Fatalf("served by %p, %v", live, err)
	}
}

// TestReplacedConfigIsForgotten: however often a server is reloaded, no old
// configuration stays in memory.
func TestReplacedConfigIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s.db")
		last := startedOn(t, path)
		before := len(started.apps)
		for range 3 {
			next := startedOn(t, path)
			last.Cleanup()
			if Current() != next || len(started.apps) != before {
				t.Error("the old configuration is still held")
			}
			last = next
		}
		last.Cleanup()
		if Current() == last {
			t.Error("a stopped configuration is the current one")
		}
		time.Sleep(2 * Linger)
	})
}

// TestKeyRingChecked: a key that sessions need is missed at the start, by name,
// and nothing is changed; with it back, all is as before.
func TestKeyRingChecked(t *testing.T) {
	t.Setenv("WX_SECRET", caddytest.Canary)
	masters := caddytest.NewMasterKeys(2)
	older, newest := masters[0], masters[1]
	path := filepath.Join(t.TempDir(), "s.db")
	provisionWith := func(ring string) *App {
		t.Setenv("WX_SEAL_KEY", ring)
		return provisionf(t, `"seal_key":"{env.WX_SEAL_KEY}","store":{"type":"bolt","path":%q}`,
			path)
	}
	first := provisionWith(older)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	out, err := session.New(session.Config{
		Core:   first.live.Load().Core,
		WeChat: caddytest.Exchanger{},
		Apps:   first.apps,
		Keys:   first.ring,
		TTL:    time.Hour,
	}).Login(t.Context(), session.LoginRequest{
		AppID: caddytest.AppID,
		Code:  caddytest.NewCode("ada"),
	})
	if err != nil {
		t.Fatal(err)
	}
	name := first.ring.Signer().String()
	first.Close()

	without := provisionWith(newest)
	err = without.Start()
	if !errors.Is(err, session.ErrKeyMissing) || !strings.Contains(err.Error(), name) ||
		strings.Contains(err.Error(), older) || without.live.Load() != nil {
		t.Errorf("started without a key that is needed: %v", err)
	}
	without.Close()

	with := provisionWith(newest + "," + older)
	if err := with.Start(); err != nil {
		t.Fatal(err)
	}
	defer with.Close()
	if _, err := with.live.Load().Sessions.Authenticate(t.Context(), out.Token); err != nil {
		t.Errorf("with the key back the session is gone: %v", err)
	}
}
