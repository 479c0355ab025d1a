package redis

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

const emptied = "session store was emptied or replaced"

// watched is a store with its log, and its reports that the records were replaced.
type watched struct {
	*Store
	logs     *observer.ObservedLogs
	replaced chan store.Change
}

func openWatched(t *testing.T, cfg Config) *watched {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	cfg.Logger, cfg.pace.interval = zap.New(core), 10*time.Millisecond
	w := &watched{logs: logs, replaced: make(chan store.Change, 100)}
	s, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	s.Watch(func(c store.Change) {
		if c.What == store.RecordsReplaced {
			w.replaced <- c
		}
	})
	w.Store = s
	await(t, "the store has an identity", func() bool {
		_, err := s.Identity(t.Context())
		return err == nil && s.Health(t.Context()) == nil && s.link().records.Load().id != ""
	})
	return w
}

// knowsLogins waits until the store has seen that its records hold logins.
func (w *watched) knowsLogins(t *testing.T) {
	t.Helper()
	await(t, "the store knows of logins", func() bool { return w.link().records.Load().used })
}

func (w *watched) lines(text string) int { return w.logs.FilterMessageSnippet(text).Len() }

// TestIdentity_RecordsGone_IsToldOnce: by each gate, however they went. A store that
// never had a login has nothing to lose.
func TestIdentity_RecordsGone_IsToldOnce(t *testing.T) {
	t.Parallel()
	for name, empty := range map[string]func(*redistest.Server){
		"FLUSHALL": func(srv *redistest.Server) { srv.Do("FLUSHALL") },
		"FLUSHDB":  func(srv *redistest.Server) { srv.Do("FLUSHDB") },
		"SWAPDB":   func(srv *redistest.Server) { srv.Do("SWAPDB", "0", "1") },
		"restart without its data": func(srv *redistest.Server) {
			srv.Kill()
			srv.Restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			cfg := config(srv.Addr)
			a, b := openWatched(t, cfg), openWatched(t, cfg)
			first, err := a.Identity(t.Context())
			must(t, err)
			if first.Created.IsZero() {
				t.Error("a new store has no time of its begin")
			}
			mustLogin(t, a, newLogin(userOf("oAlice")))
			for range 2 {
				a.knowsLogins(t)
				b.knowsLogins(t)
				empty(srv)
				<-a.replaced
				<-b.replaced
				await(t, "the store takes a login", func() bool {
					_, err := b.Login(t.Context(), newLogin(userOf("oBob")))
					return err == nil
				})
			}
			for _, w := range []*watched{a, b} {
				id, err := w.Identity(t.Context())
				must(t, err)
				same := id.ID == first.ID && name != "SWAPDB"
				if n := w.lines(emptied); n != 2 || same {
					t.Errorf("%d lines, identity %v, was %v", n, id, first)
				}
			}
		})
	}
}

// TestIdentity_NoLoss_IsNotTold: an empty store that is emptied is no loss, nor is a
// restart that keeps the records.
func TestIdentity_NoLoss_IsNotTold(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, redistest.With("appendonly yes"),
		redistest.With("appendfsync always"))
	w := openWatched(t, config(srv.Addr))
	srv.Do("FLUSHALL")
	// A login before the gate has seen the new identity would count for the old one.
	await(t, "the gate knows the new identity", func() bool {
		id, err := w.Identity(t.Context())
		return err == nil && w.link().records.Load().id == id.String()
	})
	mustLogin(t, w, newLogin(userOf("oAlice")))
	w.knowsLogins(t)
	srv.Kill()
	srv.Restart()
	await(t, "the contact is back", func() bool { return w.Health(t.Context()) == nil })
	beats(t, w.Store)
	if n := w.lines(emptied); n != 0 {
		t.Errorf("%d lines: %v", n, w.logs.All())
	}
}

// TestIdentity_OlderRecords_HaveNoBegin: a store that the first release has filled gets
// an identity without the time of its begin.
func TestIdentity_OlderRecords_HaveNoBegin(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mustLogin(t, f, newLogin(userOf("oAlice")))
	must(t, f.Close())
	f.do("DEL", f.cfg.Prefix+"id:{0}")
	w := openWatched(t, f.cfg)
	id, err := w.Identity(t.Context())
	must(t, err)
	if !id.Created.IsZero() || id.ID == "" {
		t.Errorf("%+v", id)
	}
}

// TestIdentity_OnePrimaryEmptied_IsTold: a cluster of which one primary has lost its
// records keeps its identity.
func TestIdentity_OnePrimaryEmptied_IsTold(t *testing.T) {
	notShort(t)
	t.Parallel()
	cl := redistest.StartCluster(t, 3, 0)
	cfg := config(cl.Primaries[0].Addr)
	cfg.Cluster = true
	w := openWatched(t, cfg)
	mustLogin(t, w, newLogin(userOf("oAlice")))
	w.knowsLogins(t)
	was, err := w.Identity(t.Context())
	must(t, err)
	for i, n := range cl.Primaries {
		n.Do("FLUSHALL")
		<-w.replaced
		if is, err := w.Identity(t.Context()); err != nil || is.ID != was.ID {
			t.Errorf("node %d: identity %v, was %v: %v", i, is, was, err)
		}
		mustLogin(t, w, newLogin(userOf(fmt.Sprint("o", i)))) // makes the epochs anew
		w.knowsLogins(t)
	}
	if n := w.lines("part of the session store was emptied"); n != 3 {
		t.Errorf("%d lines: %v", n, w.logs.All())
	}
}

// beats waits for more heartbeats, of which one checks the identity.
func beats(t *testing.T, s *Store) {
	t.Helper()
	heard, wait := s.Heard(), (identityEvery+2)*s.config().pace.interval
	await(t, "more heartbeats have answers", func() bool { return s.Heard().Sub(heard) > wait })
}
