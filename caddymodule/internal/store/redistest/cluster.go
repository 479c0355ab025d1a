package redistest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// Cluster is a cluster in which each primary has an equal share of the slots. Its
// fields keep the roles that the nodes had at the start; the replicas of the first
// primary come first.
type Cluster struct {
	Primaries, Replicas []*Server
}

const slots = 16384

// StartCluster starts n primaries with the given number of replicas each, on Redis
// 7.0 or later. With replicas it fails over a node that has not answered for a second.
func StartCluster(tb testing.TB, n, replicas int, opts ...Option) *Cluster {
	tb.Helper()
	c := new(Cluster)
	for i := range n * (1 + replicas) {
		s := StartNode(tb, opts...)
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i >= n {
			c.Replicas = append(c.Replicas, s)
			continue
		}
		c.Primaries = append(c.Primaries, s)
		first, last := i*slots/n, (i+1)*slots/n-1
		s.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
	}
	c.join(replicas)
	if replicas == 0 { // then a slow node would only be an outage, as on a busy machine
		for _, s := range c.Primaries {
			s.Do("CONFIG", "SET", "cluster-node-timeout", "60000")
		}
	}
	return c
}

// StartNode starts a node that is in no cluster yet.
func StartNode(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	return Start(tb, append([]Option{
		With("cluster-enabled yes"),
		With("cluster-node-timeout 1000"),
		With("cluster-port " + strconv.Itoa(freePort(tb))),
		With("cluster-allow-replica-migration no"),
	}, opts...)...)
}

// join makes the nodes know one another, then gives the primaries their replicas.
// A replica can be promoted only when all nodes know whose replica it is.
func (c *Cluster) join(replicas int) {
	c.Primaries[0].tb.Helper()
	all := append(c.Primaries[:len(c.Primaries):len(c.Primaries)], c.Replicas...)
	for _, s := range all[1:] {
		all[0].Meet(s)
	}
	known := fmt.Sprintf("cluster_known_nodes:%d", len(all))
	for _, s := range all {
		s.Await(func(info string) bool {
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, known)
		}, "CLUSTER", "INFO")
	}
	for i, r := range c.Replicas {
		r.Do("CLUSTER", "REPLICATE", c.Primaries[i/replicas].ID())
	}
	for _, r := range c.Replicas {
		r.Await(Has("master_link_status:up"), "INFO", "replication")
	}
	for _, s := range all {
		s.Await(func(nodes string) bool {
			return strings.Count(nodes, "slave ") == len(c.Replicas)
		}, "CLUSTER", "NODES")
	}
}

// Meet makes other known to the cluster of s.
func (s *Server) Meet(other *Server) {
	s.tb.Helper()
	bus := other.Do("CONFIG", "GET", "cluster-port")
	m, err := bus.AsStrMap()
	s.must(err)
	s.Do("CLUSTER", "MEET", "127.0.0.1", other.Port(), m["cluster-port"])
}

// ID returns the name of the node in its cluster.
func (s *Server) ID() string {
	s.tb.Helper()
	m := s.Do("CLUSTER", "MYID")
	id, err := m.ToString()
	s.must(err)
	return id
}

// Addresses returns the addresses of the primaries.
func (c *Cluster) Addresses() []string { return addresses(c.Primaries) }
