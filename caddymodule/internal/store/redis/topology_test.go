package redis

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

func sentinelConfig(w *redistest.Watched) Config {
	return Config{
		Addresses: w.Addresses(), Sentinel: &Sentinel{Master: w.Master}, pace: defaultPace,
	}
}

func clusterConfig(c *redistest.Cluster) Config {
	return Config{Addresses: c.Addresses(), Cluster: true, pace: defaultPace}
}

func TestSentinels_Asked_FindThePrimary(t *testing.T) {
	t.Parallel()
	w := redistest.StartReplicaWithSentinel(t, 1, redistest.Password("open-sesame"))
	cfg := sentinelConfig(w)
	cfg.Password = "open-sesame"
	g := openLink(t, cfg)
	g.awaitUp(t)
	if !g.replicas() {
		t.Error("the gate does not know the replica")
	}
	must(t, g.set(t, "k"))
	w.Primary.Do("GET", "k")
	w.Replica.Kill()
	await(t, "the gate knows its loss", func() bool { return !g.replicas() })
	const lost, again = "no replica follows redis any more", "a replica follows redis again"
	await(t, "its loss is logged", func() bool { return g.logged(lost) == 1 })
	w.Replica.Restart()
	await(t, "its return is logged", func() bool { return g.logged(again) == 1 })
	if g.logged(lost) != 1 {
		t.Error("logged more than once")
	}
}

// Without an answer of a sentinel, another primary may take writes: this one stays in
// use, but the gate hears nothing from it.
func TestP3_NoSentinel_NothingIsHeard(t *testing.T) {
	notShort(t)
	t.Parallel()
	w := redistest.StartReplicaWithSentinel(t, 2)
	g := openLink(t, sentinelConfig(w))
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

func TestP3_Failover_NothingIsMissed(t *testing.T) {
	notShort(t)
	t.Parallel()
	for name, happens := range map[string]func(*redistest.Watched){
		"by hand": (*redistest.Watched).Failover,
		"after a death": func(w *redistest.Watched) {
			w.Primary.Kill()
			w.AwaitPromotion()
		},
		"after a pause, from which the old one comes back": func(w *redistest.Watched) {
			w.Primary.Pause()
			w.AwaitPromotion()
			w.Primary.Resume()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := redistest.StartReplicaWithSentinel(t, 3)
			o := watchOver(t, openLink(t, sentinelConfig(w)), openLink(t, sentinelConfig(w)))
			happens(w)
			o.heals()
			g := o.listening
			if got := g.now.Load().data.Nodes(); got[w.Replica.Addr] == nil {
				t.Errorf("requests go to %v, not to the new primary", got)
			}
		})
	}
}

func TestCluster_OneAddress_UsesAll(t *testing.T) {
	notShort(t)
	t.Parallel()
	c := redistest.StartCluster(t, 3, 0)
	cfg := clusterConfig(c)
	cfg.Addresses = cfg.Addresses[:1]
	g := openLink(t, cfg)
	g.awaitUp(t)
	for i := range 50 {
		must(t, g.set(t, "k"+strconv.Itoa(i)))
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

func TestP3_ClusterChanges_NothingIsMissed(t *testing.T) {
	notShort(t)
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
			c.Replicas[0].Await(redistest.Has("role:master"), "INFO", "replication")
		},
		"a primary comes back as a replica": func(_ *testing.T, _ *witness, c *redistest.Cluster) {
			c.Primaries[0].Pause()
			c.Replicas[0].Await(redistest.Has("role:master"), "INFO", "replication")
			c.Primaries[0].Resume()
		},
		"a failover by hand": func(_ *testing.T, _ *witness, c *redistest.Cluster) {
			c.Replicas[1].Do("CLUSTER", "FAILOVER")
			c.Replicas[1].Await(redistest.Has("role:master"), "INFO", "replication")
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
					s.Await(redistest.Has(c.Replicas[2].ID()), "CLUSTER", "NODES")
				}
			}
			w := watchOver(t, openLink(t, clusterConfig(c)), openLink(t, clusterConfig(c)))
			happens(t, w, c)
			w.heals()
		})
	}
}

// While the first slot of a new primary is on its way, that primary takes writes, and no
// gate has a tracker there.
func TestP3_FirstSlotOfNewPrimary_NothingIsMissed(t *testing.T) {
	notShort(t)
	t.Parallel()
	c := redistest.StartCluster(t, 2, 0)
	empty := redistest.StartNode(t)
	c.Primaries[0].Meet(empty)
	g := openLink(t, clusterConfig(c))
	g.awaitUp(t)
	for _, s := range c.Primaries {
		s.Await(redistest.Has(empty.ID()), "CLUSTER", "NODES")
	}
	empty.Await(redistest.Has("cluster_state:ok"), "CLUSTER", "INFO")
	from := c.Primaries[0]
	slot, d := 0, digestOf(0)
	for n := 0; ; n++ { // a session in the part of the first primary
		d = digestOf(n)
		if slot = slotOf(hexOf(d[:])); slot < slotCount/2 {
			break
		}
	}
	empty.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "IMPORTING", from.ID())
	from.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "MIGRATING", empty.ID())
	must(t, g.set(t, g.cfg.Prefix+"i:s:{"+hexOf(d[:])+"}"))
	acknowledged := time.Now()
	time.Sleep(3 * defaultPace.interval)
	heard := g.heard()
	if g.reports() == 1 && heard.After(acknowledged) {
		t.Error("Heard has moved on over a change that was not reported")
	}
	if _, err := g.client(); err != nil {
		t.Errorf("the move of a slot is an outage: %v", err)
	}
	for _, s := range []*redistest.Server{empty, from, c.Primaries[1]} {
		s.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "NODE", empty.ID())
	}
	g.awaitUp(t)
	if g.reports() < 2 {
		t.Error("the new contact was not reported")
	}
}

func TestAgree_Answers_DecideSure(t *testing.T) {
	a, b, x := primary{id: "a"}, primary{id: "b"}, primary{id: "x"}
	both, others := answer{view: view{a, b}}, answer{view: view{b, x}}
	more := answer{view: view{a, b, x}}
	moves := func(to ...string) answer { return answer{view: both.view, moving: to} }
	for name, test := range map[string]struct {
		answers     []answer
		sure, again bool
	}{
		"no cluster":                      {[]answer{{}, {}}, true, false},
		"all name us":                     {[]answer{both, both}, true, false},
		"one names others":                {[]answer{both, others}, false, false},
		"the other names others":          {[]answer{{view: view{a, x}}, both}, false, false},
		"all name others":                 {[]answer{others, others}, false, true},
		"all name one more":               {[]answer{more, more}, false, true},
		"a slot moves between us":         {[]answer{both, moves("a")}, true, false},
		"a slot moves to one without any": {[]answer{both, moves("a", "x")}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			sure, err := agree(view{a, b}, test.answers)
			if sure != test.sure || errors.Is(err, errAgain) != test.again {
				t.Errorf("%v, %v", sure, err)
			}
		})
	}
}

func TestMovingTo_OwnLine_IsRead(t *testing.T) {
	const nodes = "id1 127.0.0.1:1@2 master - 0 1 2 connected 5461-10922 [7->-id9]\n" +
		"id2 127.0.0.1:2@3,host,shard-id=x myself,master - 0 1 2 connected 0-5460 11000 " +
		"[1->-id3] [2-<-id4] [3->-id5]\n\n" +
		"id6 :0@0 master,noaddr - 0\n"
	if got := movingTo(nodes); !slices.Equal(got, []string{"id3", "id5"}) {
		t.Errorf("%q", got)
	}
}

// move gives some slots of one primary to another, as an operator does.
func move(t *testing.T, c *redistest.Cluster, from, to *redistest.Server) {
	t.Helper()
	fromID, toID := from.ID(), to.ID()
	for slot := range 30 {
		n := strconv.Itoa(slot)
		to.Do("CLUSTER", "SETSLOT", n, "IMPORTING", fromID)
		from.Do("CLUSTER", "SETSLOT", n, "MIGRATING", toID)
		for range 200 { // the server refuses keys that exist at both, until they expire
			m := from.Do("CLUSTER", "GETKEYSINSLOT", n, "1000")
			keys, err := m.AsStrSlice()
			must(t, err)
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

func TestSlotOf_Tag_IsRedisSlot(t *testing.T) {
	t.Parallel()
	s := redistest.StartNode(t)
	for _, tag := range []string{"", "0", "123456789", "wxgate", zeros(64)} {
		m := s.Do("CLUSTER", "KEYSLOT", tag)
		if want, err := m.AsInt64(); err != nil || slotOf(tag) != int(want) {
			t.Errorf("%q: %d, not %d (%v)", tag, slotOf(tag), want, err)
		}
	}
}

// TestCluster_SlotsMove_SessionIsFound: while the cluster moves the slots of a user and
// of a session, the session is found and the user logs in.
func TestCluster_SlotsMove_SessionIsFound(t *testing.T) {
	notShort(t)
	t.Parallel()
	c := redistest.StartCluster(t, 2, 0)
	cfg := config("")
	cfg.Addresses, cfg.Cluster = c.Addresses(), true
	s := mustOpen(t, cfg)
	l := mustLogin(t, s, newLogin(userOf("oAlice")))
	h := l.User.Hash()
	for _, tag := range []string{hexOf(h[:]), hexOf(l.Digest[:])} {
		slot := slotOf(tag)
		from, to := c.Primaries[0], c.Primaries[1]
		if slot >= slotCount/2 {
			from, to = to, from
		}
		to.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "IMPORTING", from.ID())
		from.Do("CLUSTER", "SETSLOT", strconv.Itoa(slot), "MIGRATING", to.ID())
	}
	if !accepted(t, s, l.Digest) {
		t.Error("the session does not hold")
	}
	again := mustLogin(t, s, newLogin(l.User))
	if !accepted(t, s, l.Digest) || !accepted(t, s, again.Digest) {
		t.Error("the sessions do not hold")
	}
	s.Touch(again.Digest, again.UsedUntil.Add(time.Second))
	must(t, s.RevokeAll(t.Context()))
	if accepted(t, s, again.Digest) {
		t.Error("a revoked session holds")
	}
}
