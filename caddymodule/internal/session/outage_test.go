package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	lineDown = "session store is unavailable"
	lineBack = "session store is back"
)

// watch makes a logger whose messages can be read back, but for those about
// pending revocations.
func watch(t *testing.T) (func(*session.CoreConfig, *session.Config), func(want ...string)) {
	core, logs := observer.New(zap.DebugLevel)
	check := func(want ...string) {
		t.Helper()
		var got []string
		for _, e := range logs.TakeAll() {
			if e.Message != lineDone {
				got = append(got, e.Message)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
	}
	return withCore(func(c *session.CoreConfig) { c.Logger = zap.New(core) }), check
}

// TestP4_Outage_IsLoggedOnce: however many requests notice it.
func TestP4_Outage_IsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, logged := watch(t)
		g := newGate(t, logger)
		ctx, token := context.Background(), g.login("alice").Token
		everything := func() {
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() { _, _ = g.Authenticate(ctx, token) })
				wg.Go(func() { _, _ = g.Authenticate(ctx, g.keys.Mint(nobody)) })
				req := request(fmt.Sprint("bob#", codes.Add(1)), phone)
				wg.Go(func() { _, _ = g.Login(ctx, req) })
				wg.Go(func() { _ = g.Logout(ctx, g.keys.Mint(nobody)) })
				wg.Go(func() { _ = g.RevokeUser(ctx, user("nobody"), endRevoked) })
			}
			wg.Wait()
			time.Sleep(time.Minute) // for what is pending
		}
		everything()
		logged()
		for range 3 {
			g.store.SetDown(true)
			everything()
			everything()
			logged(lineDown)
			g.store.SetDown(false)
			everything()
			everything()
			logged(lineBack)
		}
	})
}

// TestP4_Outage_FullDisk_IsLoggedOnce: it fails every write and no read. A
// look-up does not end what a login has noticed.
func TestP4_Outage_FullDisk_IsLoggedOnce(t *testing.T) {
	logger, logged := watch(t)
	g := newGate(t, logger)
	tokens := make([]string, 10)
	for i := range tokens {
		tokens[i] = g.login("alice").Token
	}
	full := true
	g.store.Before = func(_ context.Context, op string) error {
		if full && op != "Lookup" {
			return fmt.Errorf("%w: disk full", store.ErrUnavailable)
		}
		return nil
	}
	for _, token := range tokens {
		_, err := g.Login(t.Context(), request("bob", phone))
		unavailable(t, err)
		g.accept(token)
	}
	logged(lineDown)
	full = false
	g.accept(tokens[0])
	g.login("bob")
	g.refuse(g.keys.Mint(nobody), session.ErrUnknown)
	logged(lineBack)
}

// TestP4_Outage_SharedStore_IsForDebugging: a shared store logs its outages
// itself. Looking at an empty bucket is no recovery where nothing can be
// written.
func TestP4_Outage_SharedStore_IsForDebugging(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	gates, _ := newFleet(t, 1, withCore(func(c *session.CoreConfig) { c.Logger = zap.New(core) }))
	g := gates[0]
	full := true
	g.store.Before = func(_ context.Context, op string) error {
		if full && op == "Health" {
			return fmt.Errorf("%w: out of memory", store.ErrUnavailable)
		}
		return nil
	}
	login := func() error {
		_, err := g.Login(t.Context(), request(fmt.Sprint("bob#", codes.Add(1)), phone))
		return err
	}
	for range 5 {
		if err := login(); !errors.Is(err, session.ErrUnavailable) {
			t.Fatal(err)
		}
		g.core.Spend(t.Context(), "bob", store.Rate{Every: time.Hour, Burst: 1})
	}
	full = false
	for range 5 {
		g.must(login())
	}
	var got []string
	for _, e := range logs.TakeAll() {
		got = append(got, e.Message)
		if e.Level != zap.DebugLevel {
			t.Errorf("%s: %q", e.Level, e.Message)
		}
	}
	if want := []string{lineDown, lineBack}; !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}

func TestOutage_CallerGivesUp_IsNone(t *testing.T) {
	logger, logged := watch(t)
	g := newGate(t, logger)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := g.Login(ctx, session.LoginRequest{AppID: appA, Code: "bob"})
	if !errors.Is(err, session.ErrUnavailable) {
		t.Error(err)
	}
	unavailable(t, g.RevokeAll(ctx))
	unavailable(t, g.RevokeApp(ctx, appA))
	unavailable(t, g.RevokeUser(ctx, alice, endRevoked))
	unavailable(t, g.Logout(ctx, g.keys.Mint(nobody)))
	logged()
}

func TestOutage_Transitions_AreLogged(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	o := &session.Outage{Subject: "the moon", Log: zap.New(core)}
	o.Note(nil)
	if o.Down() || logs.Len() != 0 {
		t.Error("down before anything failed")
	}
	for range 3 {
		o.Note(errors.New("gone"))
		if !o.Down() {
			t.Error("not down after a failure")
		}
	}
	o.Note(nil)
	o.Note(nil)
	if o.Down() {
		t.Error("down after an answer")
	}
	got := logs.AllUntimed()
	if len(got) != 2 ||
		got[0].Message != "the moon is unavailable" || got[0].Level != zap.ErrorLevel ||
		got[1].Message != "the moon is back" || got[1].Level != zap.InfoLevel ||
		got[0].ContextMap()["error"] != "gone" {
		t.Errorf("logged %+v", got)
	}
}
