package redis

import (
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

func sentinelConfig(w *redistest.Watched) Config {
	return Config{Addresses: w.Addresses(), Sentinel: &Sentinel{Master: w.Master}}
}

func clusterConfig(c *redistest.Cluster) Config {
	return Config{Addresses: c.Addresses(), Cluster: true}
}

func TestSentinelsFindThePrimary(t *testing.T) {
	t.Parallel()
	w := redistest.StartReplicaWithSentinel(t, 1, redistest.Password("open-sesame"))
	cfg := sentinelConfig(w)
	cfg.Password = "open-sesame"
	g := open(t, cfg)
	g.awaitUp(t)
	if !g.replicas() {
		t.Error("the replica is not known of")
	}
	if err := g.set(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	w.Primary.Do("GET", "k")
	w.Replica.Kill()
	await(t, "the replica is known to be gone", func() bool { return !g.replicas() })
	await(
		t,
		"that is told",
		func() bool { return g.logged("no replica follows redis any more") == 1 },
	)
	w.Replica.Restart()
	await(
		t,
		"its return is told",
		func() bool { return g.logged("a replica follows redis again") == 1 },
	)
	if g.logged("no replica follows") != 1 {
		t.Error("told more than once")
	}
}

// As long as no sentinel answers, it cannot be known whether another primary
// takes writes: what is heard of this one proves nothing, though it can be
// used.
func TestP3_WithoutSentinelsNothingIsHeard(t *testing.T) {
	NotShort(t)
	t.Parallel()
	w := redistest.StartReplicaWithSentinel(t, 2)
	g := open(t, sentinelConfig(w))
	g.awaitUp(t)
	w.Sentinels[0].Pause()
	time.Sleep(time.Second)
	g.awaitUp(t) // one is enough
	w.Sentinels[1].Pause()
	await(t, "Heard stands still", func() bool { return time.Since(g.heard()) > time.Second })
	if _, err := g.client(); err != nil || g.health() != nil {
		t.Error("the server cannot be used without the sentinels")
	}
	w.Sentinels[1].Resume()
	g.awaitUp(t)
}

func TestP3_NothingIsMissedInAFailover(t *testing.T) {
	NotShort(t)
	t.Parallel()
	for name, happens := range map[string]func(*testing.T, *redistest.Watched){
		"by hand": func(_ *testing.T, w *redistest.Watched) { w.Failover() },
		"after a death": func(_ *testing.T, w *redistest.Watched) {
			w.Primary.Kill()
			w.AwaitPromotion()
		},
		"after a pause, from which the old one comes back": func(_ *testing.T, w *redistest.Watched) {
			w.Primary.Pause()
			w.AwaitPromotion()
			w.Primary.Resume()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := redistest.StartReplicaWithSentinel(t, 3)
			o := watchOver(t, open(t, sentinelConfig(w)), open(t, sentinelConfig(w)))
			happens(t, w)
			o.heals()
			g := o.listening
			if got := g.now.Load().data.Nodes(); got[w.Replica.Addr] == nil {
				t.Errorf("requests go to %v, not to the new primary", got)
			}
		})
	}
}

func TestClusterIsUsedWhole(t *testing.T) {
	NotShort(t)
	t.Parallel()
	c := redistest.StartCluster(t, 3, 0)
	cfg := clusterConfig(c)
	cfg.Addresses = cfg.Addresses[:1]
	g := open(t, cfg)
	g.awaitUp(t)
	for i := range 50 {
		if err := g.set(t.Context(), "k"+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range c.Primaries {
		size := s.Do("KEYS", g.cfg.Prefix+"h:*")
		if list, err := size.AsStrSlice(); err != nil || len(list) == 0 {
			t.Errorf("primary %d was not asked to write: %v", i, list)
		}
	}
	c.Primaries[2].Kill()
	g.awaitDown(t)
	c.Primaries[2].Restart()
	g.awaitUp(t)
}

func TestP3_NothingIsMissedInACluster(t *testing.T) {
	NotShort(t)
	t.Parallel()
	for name, happens := range map[string]func(*testing.T, *witness, *redistest.Cluster){
		"one connection is ended": func(t *testing.T, w *witness, c *redistest.Cluster) {
			for range 3 {
				killTrackers(t, c.Primaries[1])
				w.heals()
			}
		},
		"a primary dies": func(_ *testing.T, _ *witness, c *redistest.Cluster) {
			c.Primaries[0].Kill()
			c.Replicas[0].Await(contains("role:master"), "INFO", "replication")
		},
		"a primary pauses and comes back as a replica": func(_ *testing.T, _ *witness, c *redistest.Cluster) {
			c.Primaries[0].Pause()
			c.Replicas[0].Await(contains("role:master"), "INFO", "replication")
			c.Primaries[0].Resume()
		},
		"a failover by hand": func(_ *testing.T, _ *witness, c *redistest.Cluster) {
			c.Replicas[1].Do("CLUSTER", "FAILOVER")
			c.Replicas[1].Await(contains("role:master"), "INFO", "replication")
		},
		"slots move to another primary": func(t *testing.T, w *witness, c *redistest.Cluster) {
			move(t, c, c.Primaries[0], c.Primaries[1])
		},
		"slots move to a new primary": func(t *testing.T, w *witness, c *redistest.Cluster) {
			move(t, c, c.Primaries[0], c.Replicas[2]) // made a primary without slots
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := redistest.StartCluster(t, 3, 1)
			if strings.HasSuffix(name, "a new primary") {
				c.Replicas[2].Do("CLUSTER", "RESET", "SOFT")
				c.Primaries[0].Meet(c.Replicas[2])
				for _, s := range c.Primaries {
					s.Await(contains(c.Replicas[2].ID()), "CLUSTER", "NODES")
				}
			}
			w := watchOver(t, open(t, clusterConfig(c)), open(t, clusterConfig(c)))
			happens(t, w, c)
			w.heals()
		})
	}
}

// While the first slot of a new primary is on its way, changes are made there
// that nobody who listens to the old ones hears of.
func TestP3_NothingIsMissedInTheFirstSlotOfANewPrimary(t *testing.T) {
	NotShort(t)
	t.Parallel()
	c := redistest.StartCluster(t, 2, 0)
	empty := redistest.StartNode(t)
	c.Primaries[0].Meet(empty)
	g := open(t, clusterConfig(c))
	g.awaitUp(t)
	for _, s := range c.Primaries {
		s.Await(contains(empty.ID()), "CLUSTER", "NODES")
	}
	empty.Await(contains("cluster_state:ok"), "CLUSTER", "INFO")
	from := c.Primaries[0]
	slot, d := 0, digestOf(0)
	for n := 0; ; n++ { // a session in the part of the first primary
		d = digestOf(n)
		if slot = slotOf(hex.EncodeToString(d[:])); slot < slotCount/2 {
			break
		}
	}
	empty.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "IMPORTING", from.ID())
	from.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "MIGRATING", empty.ID())
	if err := g.set(t.Context(), g.cfg.Prefix+"i:s:{"+hex.EncodeToString(d[:])+"}"); err != nil {
		t.Fatal(err)
	}
	acknowledged := time.Now()
	time.Sleep(3 * defaultPace.interval)
	g.mu.Lock()
	heard, n := g.heard(), len(g.changes)
	g.mu.Unlock()
	if n == 1 && heard.After(acknowledged) {
		t.Error("Heard has moved on over a change that was not reported")
	}
	if _, err := g.client(); err != nil {
		t.Errorf("the move of a slot is an outage: %v", err)
	}
	for _, s := range []*redistest.Server{empty, from, c.Primaries[1]} {
		s.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "NODE", empty.ID())
	}
	g.awaitUp(t)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.changes) < 2 {
		t.Error("what was missed is not made up for")
	}
}

func TestAgree(t *testing.T) {
	a, b, x := primary{id: "a"}, primary{id: "b"}, primary{id: "x"}
	both := answer{view: view{a, b}}
	for name, test := range map[string]struct {
		answers     []answer
		sure, again bool
	}{
		"no cluster":                      {[]answer{{}, {}}, true, false},
		"all name us":                     {[]answer{both, both}, true, false},
		"one names others":                {[]answer{both, {view: view{b, x}}}, false, false},
		"the other names others":          {[]answer{{view: view{a, x}}, both}, false, false},
		"all name others":                 {[]answer{{view: view{b, x}}, {view: view{b, x}}}, false, true},
		"all name one more":               {[]answer{{view: view{a, b, x}}, {view: view{a, b, x}}}, false, true},
		"a slot moves between us":         {[]answer{both, {view: both.view, moving: []string{"a"}}}, true, false},
		"a slot moves to one without any": {[]answer{both, {view: both.view, moving: []string{"a", "x"}}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			sure, err := agree(view{a, b}, test.answers)
			if sure != test.sure || errors.Is(err, errAgain) != test.again {
				t.Errorf("%v, %v", sure, err)
			}
		})
	}
}

func TestMovingTo(t *testing.T) {
	const nodes = "id1 127.0.0.1:1@2 master - 0 1 2 connected 5461-10922 [7->-id9]\n" +
		"id2 127.0.0.1:2@3,host,shard-id=x myself,master - 0 1 2 connected 0-5460 11000 [1->-id3] [2-<-id4] [3->-id5]\n\n" +
		"id6 :0@0 master,noaddr - 0\n"
	if got := movingTo(nodes); !slices.Equal(got, []string{"id3", "id5"}) {
		t.Errorf("%q", got)
	}
}

func contains(part string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, part) }
}

// move gives some slots of one primary to another, as an operator does.
func move(t *testing.T, c *redistest.Cluster, from, to *redistest.Server) {
	t.Helper()
	fromID, toID := from.ID(), to.ID()
	for slot := range 30 {
		n := strconv.Itoa(slot)
		to.Do("CLUSTER", "SETSLOT", n, "IMPORTING", fromID)
		from.Do("CLUSTER", "SETSLOT", n, "MIGRATING", toID)
		for range 200 { // what has come to be at both is refused, until it expires
			m := from.Do("CLUSTER", "GETKEYSINSLOT", n, "1000")
			keys, err := m.AsStrSlice()
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) == 0 {
				break
			}
			for _, k := range keys {
				from.Try("MIGRATE", "127.0.0.1", to.Port(), k, "0", "1000")
			}
			time.Sleep(20 * time.Millisecond)
		}
		for _, s := range append([]*redistest.Server{to, from}, c.Primaries...) {
			s.Do("CLUSTER", "SETSLOT", n, "NODE", toID)
		}
	}
}

func TestSlotOf(t *testing.T) {
	t.Parallel()
	s := redistest.StartNode(t)
	for _, tag := range []string{"", "0", "123456789", "wxgate", hex.EncodeToString(make([]byte, 32))} {
		m := s.Do("CLUSTER", "KEYSLOT", tag)
		if want, err := m.AsInt64(); err != nil || slotOf(tag) != int(want) {
			t.Errorf("%q: %d, not %d (%v)", tag, slotOf(tag), want, err)
		}
	}
}
