package redis

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
	"github.com/wxgate/wxgate/caddymodule/internal/store/storetest"
)

// leastRights are all rights that the ACL user of a gate needs, as the README
// names them. A cluster needs clusterRights, too, a database other than 0 needs
// +select.
const (
	leastRights = "-@all +client|tracking +role +get +set +del +unlink +pexpire +pttl +hset " +
		"+hgetall +sadd +smembers +scan +info +time +eval +evalsha +wait +ping"
	clusterRights = "+cluster|slots +cluster|nodes"
	shardsRight   = "+cluster|shards" // from version 8 on
)

// topologies are the ways in which an operator runs the engine. Where rights
// are given, the suites run as a user who has no others.
var topologies = map[string]struct {
	rights, used string
	start        func(*testing.T, ...redistest.Option) (Config, []*redistest.Server)
}{
	"single": {
		rights: leastRights,
		used:   leastRights,
		start: func(t *testing.T, opts ...redistest.Option) (Config, []*redistest.Server) {
			s := redistest.Start(t, opts...)
			return Config{Addresses: []string{s.Addr}}, []*redistest.Server{s}
		},
	},
	"sentinel": {
		start: func(t *testing.T, opts ...redistest.Option) (Config, []*redistest.Server) {
			w := redistest.StartReplicaWithSentinel(t, 1, opts...)
			return Config{
				Addresses: w.Addresses(),
				Sentinel:  &Sentinel{Master: w.Master},
			}, nil
		},
	},
	"cluster": {
		rights: leastRights + " " + clusterRights + " " + shardsRight,
		used:   clusterRights,
		start: func(t *testing.T, opts ...redistest.Option) (Config, []*redistest.Server) {
			c := redistest.StartCluster(t, 3, 0, opts...)
			return Config{Addresses: c.Addresses(), Cluster: true}, c.Primaries
		},
	},
}

// TestContract_EachTopology_LeastRights runs the suites in each topology, and checks
// that the rights in the README are enough and none is too many. Behind sentinels the
// calls are those of a single server, but for what waits for the replica: there the
// suites of shared stores are enough.
func TestContract_EachTopology_LeastRights(t *testing.T) {
	for name, topology := range topologies {
		t.Run(name, func(t *testing.T) {
			if name != "single" {
				notShort(t)
			}
			t.Parallel()
			var opts []redistest.Option
			if topology.rights != "" {
				const keys = `~wx\\gate\*\[* ` // the prefixes of config
				opts = append(
					opts,
					redistest.With("user gate on >open-sesame "+keys+topology.rights),
				)
			}
			cfg, servers := topology.start(t, opts...)
			if topology.rights != "" {
				cfg.Username, cfg.Password = "gate", "open-sesame"
			}
			runSuites(t, name != "sentinel", func() Config {
				fresh := config("")
				fresh.Addresses, fresh.Sentinel = cfg.Addresses, cfg.Sentinel
				fresh.Cluster = cfg.Cluster
				fresh.Username, fresh.Password = cfg.Username, cfg.Password
				return fresh
			})
			if run := flag.Lookup("test.run").Value.String(); strings.Count(run, "/") < 2 {
				checkRights(t, servers, topology.used) // all suites have run
			}
		})
	}
}

// TestReference_Rights_AreThoseOfTheSuites holds that the rights in the reference are
// those with which the suites run, and one that is optional.
func TestReference_Rights_AreThoseOfTheSuites(t *testing.T) {
	text, err := os.ReadFile("../../../docs/reference.md")
	must(t, err)
	line := regexp.MustCompile(`(?m)^ACL SETUSER \S+ on \S+ resetchannels ~wxgate:\* (.+)$`)
	found := line.FindAllSubmatch(text, -1)
	if len(found) != 1 {
		t.Fatalf("%d lines that grant rights, want one", len(found))
	}
	got, want := strings.Fields(string(found[0][1])), strings.Fields(leastRights+" +config|get")
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("the reference grants %q, the suites run with %q", got, want)
	}
}

// runSuites runs the suites at the same time, each test with keys of its own: all, or
// those of shared stores only.
func runSuites(t *testing.T, all bool, fresh func() Config) {
	t.Run("suites", func(t *testing.T) {
		harness := storetest.Harness{New: func(t *testing.T) storetest.Opener {
			cfg := fresh()
			return func() (store.Store, error) { return open(t, cfg) }
		}}
		if all {
			t.Run("Store", func(t *testing.T) {
				t.Parallel()
				storetest.Run(t, harness)
			})
		}
		t.Run("Dump", func(t *testing.T) {
			t.Parallel()
			storetest.RunDump(t, harness)
		})
		t.Run("Shared", func(t *testing.T) {
			t.Parallel()
			storetest.RunShared(
				t,
				storetest.SharedHarness{New: func(t *testing.T) func() (store.Shared, error) {
					cfg := fresh()
					return func() (store.Shared, error) { return Open(cfg) }
				}},
			)
		})
	})
}

// checkRights fails the test when the servers have denied a command, or none of
// them has seen one of the commands that used names.
func checkRights(t *testing.T, servers []*redistest.Server, used string) {
	t.Helper()
	seen := ""
	for _, s := range servers {
		stats := s.Do("INFO", "commandstats")
		text, err := stats.ToString()
		must(t, err)
		seen += text
		log := s.Do("ACL", "LOG")
		entries, err := log.ToArray()
		must(t, err)
		for _, e := range entries {
			m, _ := e.AsStrMap()
			if !strings.HasPrefix(m["object"], "config|") { // optional: asked once
				t.Errorf("denied: %s %s", m["reason"], m["object"])
			}
		}
	}
	for _, right := range strings.Fields(used) {
		command, ok := strings.CutPrefix(right, "+")
		if ok && command != "wait" && !strings.Contains(seen, "cmdstat_"+command+":") {
			t.Errorf("not needed: %s", right)
		}
	}
}
