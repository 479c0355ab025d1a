package redis_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// roundsEnv sets the number of kills.
const roundsEnv = "WXGATE_TEST_KILL_ROUNDS"

// TestP2_KilledServerLosesNothing kills the server in the middle of many logins
// and finds every one that was acknowledged when it is back (DESIGN.md P2).
// With "appendfsync everysec" that is not so: while an fsync takes long, the
// server acknowledges up to two seconds of writes that it has not even given to
// the kernel.
func TestP2_KilledServerLosesNothing(t *testing.T) {
	t.Parallel()
	rounds := 3
	if v := os.Getenv(roundsEnv); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q", roundsEnv, v)
		}
		rounds = n
	}
	srv := redistest.Start(
		t,
		redistest.With("appendonly yes"),
		redistest.With("appendfsync always"),
	)
	cfg := config(srv.Addr)
	cfg.WriteTimeout = time.Second // of the calls that the killed server leaves
	s := mustOpen(t, cfg)
	total := 0
	for range rounds {
		acked := loginsUntil(t, s, 100, srv.Kill)
		srv.Restart()
		lost := 0
		for _, d := range acked {
			var rec store.Record
			var err error
			await(t, "the store answers", func() bool { // it may be loading its file
				rec, err = s.Lookup(t.Context(), d)
				return !errors.Is(err, store.ErrUnavailable)
			})
			if err != nil || rec.Current != rec.Session.Epochs {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("%d of %d acknowledged logins are lost", lost, len(acked))
		}
		total += len(acked)
	}
	t.Logf("%d kills: %d logins acknowledged", rounds, total)
}

// loginsUntil logs in from many goroutines, calls kill after n acknowledged
// logins, and returns all sessions that were acknowledged.
func loginsUntil(t *testing.T, s store.Store, n int, kill func()) []store.Digest {
	var mu sync.Mutex
	var acked []store.Digest
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				l := newLogin(userOf("o"+strconv.Itoa(w)+"-"+strconv.Itoa(n/10)), maxPerUser(20))
				if _, err := s.Login(context.Background(), l); err != nil {
					checkErr(t, err)
					continue
				}
				mu.Lock()
				acked = append(acked, l.Digest)
				mu.Unlock()
			}
		})
	}
	await(t, "there are logins", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(acked) >= n
	})
	kill()
	stop.Store(true)
	wg.Wait()
	return acked
}

// TestRevocationReachesReplica: when a revocation is answered, the replica that
// would be promoted has it.
func TestRevocationReachesReplica(t *testing.T) {
	t.Parallel()
	w := redistest.StartReplicaWithSentinel(t, 1)
	cfg := config("")
	cfg.Addresses, cfg.Sentinel = w.Addresses(), &redis.Sentinel{Master: w.Master}
	core, logs := observer.New(zap.InfoLevel)
	cfg.Logger = zap.New(core)
	s := mustOpen(t, cfg)
	replica := raw(t, w.Replica.Addr)
	id := userOf("oAlice")
	h := id.Hash()
	user, app, all := cfg.Prefix+"u:{"+hexOf(
		h[:],
	)+"}", cfg.Prefix+"e:{app:"+id.AppID+"}", cfg.Prefix+"e:{all}"
	get := func(key string) string {
		v, err := do(replica, "GET", key).ToString()
		must(t, err)
		return v
	}
	const lateLine, againLine = "a revocation did not reach a replica in time; a failover may lose it", "revocations reach a replica in time again"
	late := func() bool { return logs.FilterMessage(lateLine).Len() > 0 } // a busy machine may hold the replica up

	l := newLogin(id)
	_, err := s.Login(t.Context(), l)
	must(t, err)
	must(
		t,
		s.RevokeUser(t.Context(), id),
	) // the first revocation may come before the heartbeat has seen the replica
	await(t, "the replica is seen", s.Replicas)
	await(
		t,
		"the replica has all",
		func() bool { n, err := do(replica, "EXISTS", user, app, all).AsInt64(); return err == nil && n == 3 },
	)
	for range 200 {
		for key, revoke := range map[string]func() error{
			user: func() error { return s.RevokeUser(t.Context(), id) },
			app:  func() error { return s.RevokeApp(t.Context(), id.AppID) },
			all:  func() error { return s.RevokeAll(t.Context()) },
		} {
			before := get(key)
			must(t, revoke())
			if get(key) == before && !late() {
				t.Fatalf("the replica has not heard of the revocation of %s", key)
			}
		}
		l := newLogin(id)
		_, err := s.Login(t.Context(), l)
		must(t, err)
		session := cfg.Prefix + "s:{" + hexOf(l.Digest[:]) + "}"
		await(
			t,
			"the replica has the session",
			func() bool { n, err := do(replica, "EXISTS", session).AsInt64(); return err == nil && n == 1 },
		)
		must(t, s.End(t.Context(), l.Digest))
		if n, err := do(replica, "EXISTS", session).AsInt64(); err != nil || n != 0 && !late() {
			t.Fatalf("the replica has not heard of the end of a session: %v", err)
		}
	}
	logs.TakeAll()

	// A replica that does not answer holds nothing up for long, and is told of once.
	w.Replica.Pause()
	for range 3 {
		must(t, s.RevokeUser(t.Context(), id))
	}
	w.Replica.Resume()
	await(t, "a revocation reaches the replica", func() bool {
		must(t, s.RevokeUser(t.Context(), id))
		return logs.FilterMessage(againLine).Len() > 0
	})
	if lines := logs.FilterMessageSnippet("reach a replica").All(); len(lines) != 2 ||
		lines[0].Message != lateLine ||
		lines[1].Message != againLine {
		t.Errorf("logged %v", lines)
	}
}
