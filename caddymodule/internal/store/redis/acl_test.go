package redis_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
	"github.com/wxgate/wxgate/caddymodule/internal/store/storetest"
)

// leastRights is all that the ACL user of a gate needs, as the README says it; a cluster needs clusterRights, too, a database other than 0 needs +select.
const (
	leastRights   = "~wxgate:* -@all +client|tracking +role +get +set +del +unlink +pexpire +pttl +hset +hgetall +sadd +smembers +scan +info +time +eval +evalsha +wait +ping"
	clusterRights = "+cluster|slots +cluster|nodes"
	shardsRight   = "+cluster|shards" // from version 8 on
)

// TestLeastRights: a user who may do nothing but what the README says can do all that a store does, and nothing is tried in vain.
func TestLeastRights(t *testing.T) {
	for name, test := range map[string]struct {
		rights, tried string
		start         func(*testing.T, redistest.Option) (redis.Config, []*redistest.Server)
	}{
		"single": {leastRights, leastRights, func(t *testing.T, user redistest.Option) (redis.Config, []*redistest.Server) {
			s := redistest.Start(t, user)
			return redis.Config{Addresses: []string{s.Addr}}, []*redistest.Server{s}
		}},
		"cluster": {leastRights + " " + clusterRights + " " + shardsRight, clusterRights, func(t *testing.T, user redistest.Option) (redis.Config, []*redistest.Server) {
			c := redistest.StartCluster(t, 3, 0, user)
			return redis.Config{Addresses: c.Addresses(), Cluster: true}, c.Primaries
		}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, servers := test.start(t, redistest.With("user gate on >open-sesame "+test.rights))
			cfg.Username, cfg.Password = "gate", "open-sesame"
			var n atomic.Int64
			fresh := func(t *testing.T) func() (*redis.Store, error) {
				own := cfg
				own.Prefix = fmt.Sprintf("wxgate:%d:", n.Add(1))
				own.ReadTimeout, own.WriteTimeout = 5*time.Second, 10*time.Second
				return func() (*redis.Store, error) { return open(t, own) }
			}
			if !cfg.Cluster {
				storetest.Run(t, storetest.Harness{New: func(t *testing.T) storetest.Opener {
					f := fresh(t)
					return func() (store.Store, error) { return f() }
				}})
			}
			storetest.RunShared(t, storetest.SharedHarness{New: func(t *testing.T) func() (store.Shared, error) {
				f := fresh(t)
				return func() (store.Shared, error) { return f() }
			}})
			used := ""
			for _, s := range servers {
				stats := s.Do("INFO", "commandstats")
				text, err := stats.ToString()
				if err != nil {
					t.Fatal(err)
				}
				used += text
				log := s.Do("ACL", "LOG")
				entries, err := log.ToArray()
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					m, _ := e.AsStrMap()
					if !strings.HasPrefix(m["object"], "config|") { // asked once, and left in peace when it is not told
						t.Errorf("denied: %s %s", m["reason"], m["object"])
					}
				}
			}
			for _, right := range strings.Fields(test.tried) {
				if command, ok := strings.CutPrefix(right, "+"); ok && command != "wait" && !strings.Contains(used, "cmdstat_"+command+":") {
					t.Errorf("not needed: %s", right)
				}
			}
		})
	}
}
