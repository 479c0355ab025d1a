package redis_test

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
)

var prefixes atomic.Int64

// config is for a machine that does much else, with keys that no other call
// uses, and with what a pattern takes for something else.
func config(addr string) redis.Config {
	return redis.Config{
		Addresses: []string{addr}, Prefix: fmt.Sprintf(`wx\gate*[%d]?:`, prefixes.Add(1)),
		DialTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
	}
}

// open returns when the store is in contact with its server: until then every
// call fails at once.
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

// TestMain runs more tests at a time than there are processors, since most of
// them wait, and collects garbage less often, since they open many connections.
// In the end it looks for goroutines that are left: the library's client of a
// cluster takes some seconds to end its own.
func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(400)
	if !isSet("test.parallel") {
		_ = flag.Set("test.parallel", "10")
	}
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

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}
