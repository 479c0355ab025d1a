package redis

import (
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// roundsEnv sets the number of kills.
const roundsEnv = "WXGATE_TEST_KILL_ROUNDS"

// TestP2_ServerKilled_KeepsEachLogin kills the server in the middle of many logins and
// finds each acknowledged one after the restart. With "appendfsync everysec" a slow
// disk may cost some (docs/stores.md#redis-durability).
func TestP2_ServerKilled_KeepsEachLogin(t *testing.T) {
	t.Parallel()
	kills := rounds(3, 1)
	if v := os.Getenv(roundsEnv); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q", roundsEnv, v)
		}
		kills = n
	}
	quick := func(c *Config) { c.WriteTimeout = time.Second } // of calls to the dead server
	f := fixtureAt(t, redistest.Start(t,
		redistest.With("appendonly yes"), redistest.With("appendfsync always")), quick)
	total := 0
	for range kills {
		acked := loginsUntil(t, f, 100, f.srv.Kill)
		f.srv.Restart()
		lost := 0
		for _, d := range acked {
			var rec store.Record
			var err error
			await(t, "the store answers", func() bool { // the server may be loading its file
				rec, err = f.Lookup(t.Context(), d)
				return !isUnavailable(err)
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
	t.Logf("%d kills: %d logins acknowledged", kills, total)
}

// loginsUntil logs in from many goroutines, calls kill after n acknowledged logins, and
// returns all acknowledged sessions.
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

// TestRevocation_Answered_IsAtReplica: the replica that a failover would promote has
// each answered revocation. A busy machine may delay the replica; the log says so.
func TestRevocation_Answered_IsAtReplica(t *testing.T) {
	t.Parallel()
	notShort(t)
	w := redistest.StartReplicaWithSentinel(t, 1)
	cfg := config("")
	cfg.Addresses, cfg.Sentinel = w.Addresses(), &Sentinel{Master: w.Master}
	core, logs := observer.New(zap.InfoLevel)
	cfg.Logger = zap.New(core)
	s := mustOpen(t, cfg)
	replica := raw(t, w.Replica.Addr)
	get := func(key string) string {
		v, err := text(do(replica, "GET", cfg.Prefix+key))
		must(t, err)
		return v
	}
	const late = "a revocation did not reach a replica in time; a failover may lose it"
	const inTime = "revocations reach a replica in time again"
	logged := func(line string) bool { return logs.FilterMessage(line).Len() > 0 }

	ctx, id := t.Context(), userOf("oAlice")
	mustLogin(t, s, newLogin(id))
	// It may come before the heartbeat has seen the replica.
	must(t, s.RevokeUser(ctx, id, store.EndRevoked))
	await(t, "the replica is seen", s.link().replicas)
	revocations := map[string]func() error{
		userKey(id):                func() error { return s.RevokeUser(ctx, id, store.EndRevoked) },
		"e:{app:" + id.AppID + "}": func() error { return s.RevokeApp(ctx, id.AppID) },
		"e:{all}":                  func() error { return s.RevokeAll(ctx) },
	}
	for key := range revocations {
		await(t, "the replica has all", func() bool { return get(key) != "" })
	}
	for range rounds(200, 20) {
		for key, revoke := range revocations {
			before := get(key)
			must(t, revoke())
			if get(key) == before && !logged(late) {
				t.Fatalf("the replica has the epoch before the revocation of %s", key)
			}
		}
		l := mustLogin(t, s, newLogin(id))
		await(t, "the replica has it", func() bool { return get(sessionKey(l.Digest)) != "" })
		must(t, s.End(ctx, l.Digest, store.EndLogout))
		if get(sessionKey(l.Digest)) != "" && !logged(late) {
			t.Fatal("the replica has a session after its end")
		}
	}
	logs.TakeAll()

	w.Replica.Pause() // revocations go on; the log says once that they wait in vain
	for range 3 {
		must(t, s.RevokeUser(ctx, id, store.EndRevoked))
	}
	w.Replica.Resume()
	await(t, "a revocation reaches the replica", func() bool {
		must(t, s.RevokeUser(ctx, id, store.EndRevoked))
		return logged(inTime)
	})
	lines := logs.FilterMessageSnippet("reach a replica").All()
	if len(lines) != 2 || lines[0].Message != late || lines[1].Message != inTime {
		t.Errorf("logged %v", lines)
	}
}
