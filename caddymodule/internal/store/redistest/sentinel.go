package redistest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Watched is a primary with a replica, and the sentinels that watch them. Its fields
// keep the roles that the servers had at the start.
type Watched struct {
	Primary, Replica *Server
	Sentinels        []*Server
	Master           string // the sentinels' name for the primary

	tb testing.TB
}

// StartReplicaWithSentinel starts two servers with the options, and n sentinels. They
// have the patience for a busy machine until AwaitPromotion.
func StartReplicaWithSentinel(tb testing.TB, n int, opts ...Option) *Watched {
	tb.Helper()
	w := &Watched{tb: tb, Master: "mymaster"}
	w.Primary = Start(tb, opts...)
	w.Replica = Start(tb, append(opts, With("replicaof 127.0.0.1 "+w.Primary.Port()))...)
	w.Replica.Await(Has("master_link_status:up"), "INFO", "replication")
	w.Primary.Await(Has("state=online"), "INFO", "replication")
	for range n {
		s := newServer(tb)
		s.sentinel = true
		s.lines = []string{
			"bind 127.0.0.1", "protected-mode no", "dir " + s.Dir,
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %s %d", w.Master, w.Primary.Port(), n/2+1),
			"sentinel down-after-milliseconds " + w.Master + " 60000",
			"sentinel failover-timeout " + w.Master + " 3000",
		}
		if w.Primary.password != "" {
			s.lines = append(s.lines, "sentinel auth-pass "+w.Master+" "+w.Primary.password)
		}
		s.start()
		w.Sentinels = append(w.Sentinels, s)
	}
	for _, s := range w.Sentinels {
		s.Await(Has(fmt.Sprintf("slaves=1,sentinels=%d", n)), "INFO", "sentinel")
	}
	return w
}

// Addresses returns the addresses of the sentinels.
func (w *Watched) Addresses() []string { return addresses(w.Sentinels) }

// Failover makes the sentinels promote the replica while the primary lives, and
// returns when all of them say so. At first the sentinels may not know the replica
// well enough (NOGOODSLAVE).
func (w *Watched) Failover() {
	w.tb.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = w.Sentinels[0].Try("SENTINEL", "FAILOVER", w.Master).Error(); err == nil {
			w.awaitPromotion()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.tb.Fatalf("failing over: %v", err)
}

// AwaitPromotion makes the sentinels declare a primary down after half a second
// without an answer. It returns when all of them name the replica as the primary.
func (w *Watched) AwaitPromotion() {
	w.tb.Helper()
	for _, s := range w.Sentinels {
		s.Do("SENTINEL", "SET", w.Master, "down-after-milliseconds", "500")
	}
	w.awaitPromotion()
}

func (w *Watched) awaitPromotion() {
	w.tb.Helper()
	for _, s := range w.Sentinels {
		s.Await(Has("address="+w.Replica.Addr), "INFO", "sentinel")
	}
}

// Has is a condition for Await.
func Has(part string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, part) }
}

func addresses(servers []*Server) []string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr
	}
	return list
}
