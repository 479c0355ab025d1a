package redistest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Watched is a primary with a replica and the sentinels that watch them.
type Watched struct {
	Primary, Replica *Server // as they were at the start
	Sentinels        []*Server
	Master           string // the name that the sentinels know the primary by

	tb testing.TB
}

// StartReplicaWithSentinel starts two servers, each with the options, and n sentinels that declare a primary down which has not answered for half a second.
func StartReplicaWithSentinel(tb testing.TB, n int, opts ...Option) *Watched {
	tb.Helper()
	w := &Watched{tb: tb, Master: "mymaster"}
	w.Primary = Start(tb, opts...)
	w.Replica = Start(tb, append(opts, With("replicaof 127.0.0.1 "+w.Primary.Port()))...)
	w.Replica.Await(has("master_link_status:up"), "INFO", "replication")
	w.Primary.Await(has("state=online"), "INFO", "replication")
	for range n {
		s := newServer(tb)
		s.sentinel = true
		s.lines = []string{
			"bind 127.0.0.1", "protected-mode no", "dir " + s.Dir,
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %s %d", w.Master, w.Primary.Port(), n/2+1),
			"sentinel down-after-milliseconds " + w.Master + " 500",
			"sentinel failover-timeout " + w.Master + " 3000",
		}
		if w.Primary.password != "" {
			s.lines = append(s.lines, "sentinel auth-pass "+w.Master+" "+w.Primary.password)
		}
		s.start()
		w.Sentinels = append(w.Sentinels, s)
	}
	for _, s := range w.Sentinels {
		s.Await(has("slaves=1,sentinels="+fmt.Sprint(n)), "INFO", "sentinel")
	}
	return w
}

// Addresses are those of the sentinels.
func (w *Watched) Addresses() []string { return addresses(w.Sentinels) }

// Failover makes the sentinels promote the replica while the primary lives, and returns when all of them say so.
func (w *Watched) Failover() {
	w.tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		err := w.Sentinels[0].Try("SENTINEL", "FAILOVER", w.Master).Error() // NOGOODSLAVE until the replica was seen often enough
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			w.tb.Fatalf("failing over: %v", err)
		}
	}
	w.AwaitPromotion()
}

// AwaitPromotion returns when all sentinels name the replica as the primary.
func (w *Watched) AwaitPromotion() {
	w.tb.Helper()
	for _, s := range w.Sentinels {
		s.Await(has("address="+w.Replica.Addr), "INFO", "sentinel")
	}
}

// has is a condition for Await.
func has(part string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, part) }
}

func addresses(servers []*Server) []string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr
	}
	return list
}
