package redis

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// farFixture is a store that takes its server for far away, through a proxy that
// counts the commands for users' records.
func farFixture(t *testing.T, srv *redistest.Server) (f *fixture, users *atomic.Int64) {
	t.Helper()
	users = new(atomic.Int64)
	f = fixtureAt(t, srv)
	p := redistest.StartProxy(t, f.srv.Addr)
	p.LoseWhen(func(request []byte) *redistest.Loss {
		users.Add(int64(bytes.Count(request, []byte(f.cfg.Prefix+"u:{"))))
		return nil
	})
	cfg := with(f.cfg, p.Addr)
	cfg.pace = pace{interval: time.Minute, overdue: time.Minute, hopeless: 3 * time.Minute}
	f.Store = mustOpen(t, cfg)
	f.link().rtt.Store(int64(cfg.ReadTimeout))
	return f, users
}

// TestLookup_FarAway_TakesOneRound: the script finds the user as Go does, and gets
// what two rounds get.
func TestLookup_FarAway_TakesOneRound(t *testing.T) {
	t.Parallel()
	f, users := farFixture(t, redistest.Shared(t))
	for _, n := range []int{1, 18, 28, 36, 37, 44, 45, 46, 100, 127} {
		l := mustLogin(t, f, newLogin(userOf(strings.Repeat("o", n))))
		users.Store(0)
		far, err := f.Lookup(t.Context(), l.Digest)
		must(t, err)
		if users.Load() != 0 {
			t.Errorf("openid of %d bytes: asked for the user in a round of its own", n)
		}
		f.noFar.Store(true)
		near, err := f.Lookup(t.Context(), l.Digest)
		f.noFar.Store(false)
		must(t, err)
		if fmt.Sprint(far) != fmt.Sprint(near) || far.Session.User != l.User {
			t.Errorf("openid of %d bytes: %v, want %v", n, far, near)
		}
	}
	if _, err := f.Lookup(t.Context(), store.Digest{1}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown session: %v", err)
	}
}

// TestLookup_FarAway_AsksTwiceIfItMust: of records that the script cannot read, and of
// servers that forbid it.
func TestLookup_FarAway_AsksTwiceIfItMust(t *testing.T) {
	t.Parallel()
	t.Run("long name", func(t *testing.T) {
		t.Parallel()
		f, _ := farFixture(t, redistest.Shared(t))
		l := mustLogin(t, f, newLogin(userOf(strings.Repeat("o", 128))))
		if !accepted(t, f, l.Digest) || f.noFar.Load() {
			t.Error("refused, or the script is no longer used")
		}
	})
	t.Run("scripts that declare no keys are forbidden", func(t *testing.T) {
		t.Parallel()
		f, _ := farFixture(t, redistest.Start(t))
		l := mustLogin(t, f, newLogin(userOf("oAlice")))
		f.do("ACL", "SETUSER", "default", "-eval", "-evalsha")
		if !accepted(t, f, l.Digest) || !f.noFar.Load() {
			t.Error("refused, or not noticed")
		}
	})
	t.Run("record damaged", func(t *testing.T) {
		t.Parallel()
		f, _ := farFixture(t, redistest.Shared(t))
		l := mustLogin(t, f, newLogin(userOf("oAlice")))
		for _, value := range []string{"", "\x01", f.get(sessionKey(l.Digest))[:60]} {
			f.do("SET", f.cfg.Prefix+sessionKey(l.Digest), value)
			if accepted(t, f, l.Digest) {
				t.Errorf("%q is accepted", value)
			}
		}
		f.do("DEL", f.cfg.Prefix+sessionKey(l.Digest))
		f.do("LPUSH", f.cfg.Prefix+sessionKey(l.Digest), "x")
		if accepted(t, f, l.Digest) {
			t.Error("a list is accepted")
		}
	})
}

// TestLink_FarAway_WarnsOnce: one line with the cure, when two rounds do not fit.
func TestLink_FarAway_WarnsOnce(t *testing.T) {
	notShort(t)
	t.Parallel()
	core, logs := observer.New(zap.WarnLevel)
	srv := redistest.Start(t, redistest.With("appendonly yes"))
	p := redistest.StartProxy(t, srv.Addr)
	p.Delay(20 * time.Millisecond)
	cfg := config(p.Addr)
	cfg.Logger, cfg.ReadTimeout = zap.New(core), 60*time.Millisecond
	s := mustOpen(t, cfg)
	far := func() int { return logs.FilterMessageSnippet("redis is far away").Len() }
	await(t, "the warning", func() bool { return far() > 0 })
	heard := s.Heard()
	await(t, "more heartbeats", func() bool { return s.Heard().Sub(heard) > time.Second })
	e := logs.FilterMessageSnippet("redis is far away").All()[0].ContextMap()
	if far() != 1 || !strings.HasPrefix(fmt.Sprint(e["cure"]), "set read_timeout ") {
		t.Errorf("%d lines, the first %v", far(), e)
	}
}

// TestLookup_Late_IsAnsweredAndCounted: a look-up outlives the check that gave up, and
// counts as a call that failed.
func TestLookup_Late_IsAnsweredAndCounted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := mustLogin(t, f, newLogin(userOf("oAlice")))
	p := redistest.StartProxy(t, f.srv.Addr)
	cfg := with(f.cfg, p.Addr)
	cfg.ReadTimeout = 10 * time.Millisecond
	cfg.pace = pace{interval: time.Minute, overdue: time.Minute, hopeless: 3 * time.Minute}
	s := mustOpen(t, cfg)
	p.Delay(20 * time.Millisecond)
	await(t, "a look-up is answered late", func() bool {
		_, err := s.Lookup(t.Context(), l.Digest)
		return err == nil && s.link().failure.Load() != nil
	})
}
