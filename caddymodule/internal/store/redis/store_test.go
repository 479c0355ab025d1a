package redis_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
	"github.com/wxgate/wxgate/caddymodule/internal/store/storetest"
)

var prefixes atomic.Int64

// config is for a machine that does much else, with keys that no other call uses, and with what a pattern takes for something else.
func config(addr string) redis.Config {
	return redis.Config{
		Addresses: []string{addr}, Prefix: fmt.Sprintf(`wx\gate*[%d]?:`, prefixes.Add(1)),
		DialTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
	}
}

// open returns when the store is in contact with its server: until then every call fails at once.
func open(t testing.TB, cfg redis.Config) (*redis.Store, error) {
	s, err := redis.Open(cfg)
	if err != nil {
		return nil, err
	}
	await(t, "the store is in contact", func() bool { return s.Health(t.Context()) == nil })
	return s, nil
}

// await waits until ok, and fails the test when that never comes.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for patience := time.After(20 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestMain looks for goroutines that are left. The library's client of a cluster takes some seconds to end its own.
func TestMain(m *testing.M) {
	code := m.Run()
	var left error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if left = goleak.Find(); left == nil {
			break
		}
	}
	if left != nil {
		fmt.Fprintln(os.Stderr, left)
		code = max(code, 1)
	}
	os.Exit(code)
}

// topologies are the ways in which the engine is run, each with what makes a configuration for keys that nobody has used.
var topologies = map[string]func(t *testing.T) func() redis.Config{
	"single": func(t *testing.T) func() redis.Config {
		srv := redistest.Start(t)
		return func() redis.Config { return config(srv.Addr) }
	},
	"sentinel": func(t *testing.T) func() redis.Config {
		w := redistest.StartReplicaWithSentinel(t, 1)
		return func() redis.Config {
			cfg := config("")
			cfg.Addresses, cfg.Sentinel = w.Addresses(), &redis.Sentinel{Master: w.Master}
			return cfg
		}
	},
	"cluster": func(t *testing.T) func() redis.Config {
		c := redistest.StartCluster(t, 3, 0)
		return func() redis.Config {
			cfg := config("")
			cfg.Addresses, cfg.Cluster = c.Addresses(), true
			return cfg
		}
	},
}

func TestContract(t *testing.T) {
	for name, start := range topologies {
		t.Run(name, func(t *testing.T) {
			fresh := start(t)
			storetest.Run(t, storetest.Harness{New: func(t *testing.T) storetest.Opener {
				cfg := fresh()
				return func() (store.Store, error) { return open(t, cfg) }
			}})
		})
	}
}

func TestSharedContract(t *testing.T) {
	for name, start := range topologies {
		t.Run(name, func(t *testing.T) {
			fresh := start(t)
			storetest.RunShared(t, storetest.SharedHarness{New: func(t *testing.T) func() (store.Shared, error) {
				cfg := fresh()
				return func() (store.Shared, error) { return redis.Open(cfg) }
			}})
		})
	}
}
