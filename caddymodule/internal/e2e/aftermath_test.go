package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"testing"
)

// TestThreat26_Aftermath: all of it at once, with reloads in between. WeChat hears no more than the buckets hold; and when it is over, users are served as before and nothing is left of it.
func TestThreat26_Aftermath(t *testing.T) {
	w := newWorld(t, limited(strictRate))
	token := w.login(t, "ada", from("192.0.2.1"))
	w.checkAlive(t, token, w.who(appA, "ada"))
	w.mustReload(t, w.setup)
	w.checkAlive(t, token, w.who(appA, "ada"))
	goroutines, heap := w.gauge(t, "go_goroutines"), w.heapObjects(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%.0f goroutines before, and now:\n%s", goroutines, w.adminGet(t, "/debug/pprof/goroutine?debug=1"))
		}
	})

	var storm sync.WaitGroup
	for n := range 4 {
		client := fmt.Sprintf("203.0.113.%d", n)
		storm.Go(func() { w.resets(t, client, 150) })
		storm.Go(func() {
			for i := range 60 {
				conn, err := net.DialTimeout("tcp", w.addr, patience)
				if err != nil {
					continue // a reload: see errNoAnswer
				}
				text := w.loginFrom(client, w.wechat.Code(appA, "eve"))
				switch i % 3 {
				case 0: // gone before the answer
					io.WriteString(conn, text)
				case 1: // half a body
					io.WriteString(conn, text[:len(text)-5])
				case 2: // half a head
					io.WriteString(conn, text[:30])
				}
				conn.Close()
			}
		})
	}
	for range 3 {
		w.mustReload(t, w.setup)
	}
	storm.Wait()
	if n := w.wechat.Count(exchangePath); n > 20 {
		t.Errorf("WeChat was called %d times, want at most 20", n)
	}
	w.checkAlive(t, token, w.who(appA, "ada"))
	s := w.setup
	s.wechat = "\t\tlogin_rate off {\n\t\t\tglobal off\n\t\t}"
	w.mustReload(t, s)
	eventually(t, "users log in again", func() bool { return w.tryLogin(t, "bob", from("192.0.2.9")).status == http.StatusOK })
	// Connections that are kept to WeChat and to the app have two each; the storm leaves hundreds if it leaves any.
	eventually(t, "the goroutines are gone", func() bool { return w.gauge(t, "go_goroutines") <= goroutines+50 })
	eventually(t, "the memory is free", func() bool { return w.heapObjects(t) <= heap+20000 })
}

// gauge reads a series of the Go runtime.
func (w *world) gauge(tb testing.TB, name string) float64 {
	tb.Helper()
	// The connections over which we ask are not what is asked for.
	http.DefaultClient.CloseIdleConnections()
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(w.adminGet(tb, "/metrics"))
	if m == nil {
		tb.Fatalf("there is no series %s", name)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// heapObjects is how many objects live after a collection.
func (w *world) heapObjects(tb testing.TB) float64 {
	tb.Helper()
	w.adminGet(tb, "/debug/pprof/heap?gc=1")
	return w.gauge(tb, "go_memstats_heap_objects")
}

// TestThreat26_ManyAddresses: buckets are kept for so many addresses and no more, in two generations of 16,384.
func TestThreat26_ManyAddresses(t *testing.T) {
	const generation = 1 << 14
	w := newWorld(t, limited("5/h {\n\t\t\tglobal 1/h\n\t\t}"))
	s := w.setup
	s.options += "\n\tlog {\n\t\tlevel ERROR\n\t}"
	w.mustReload(t, s)
	w.login(t, "ada", from("192.0.2.1"))
	next := 0
	fill := func(n int) {
		var all sync.WaitGroup
		for range 4 {
			first := next
			next += n / 4
			all.Go(func() {
				c, err := dialH2(w.addr, nil)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				for batch := first; batch < first+n/4; batch += 100 {
					var ids []uint32
					for i := batch; i < min(batch+100, first+n/4); i++ {
						client := fmt.Sprintf("20.%d.%d.%d", i>>16, i>>8&255, i&255)
						ids = append(ids, c.open(stream{fields: []string{":method: POST", ":scheme: http", ":authority: x", ":path: /wx/login", field(from(client))}}))
					}
					replies, err := c.answers(ids...)
					for _, id := range ids {
						if replies[id].status != http.StatusTooManyRequests {
							t.Errorf("an answer is %s, %v", replies[id], err)
							return
						}
					}
				}
			})
		}
		all.Wait()
	}
	empty := w.heapObjects(t)
	fill(2*generation - 4) // both generations are as good as full
	full := w.heapObjects(t)
	fill(5 * generation) // and so they are again
	again := w.heapObjects(t)
	t.Logf("objects on the heap: %.0f, %.0f after %d addresses, %.0f after %d", empty, full, 2*generation, again, next)
	if full < empty+generation {
		t.Error("the addresses leave nothing in memory: the test does not see the buckets")
	}
	if again > full+4*generation { // five came, at nearly two objects each; the rest is what the server itself keeps for a while
		t.Error("memory grows with the number of addresses")
	}
	w.asked(t, 1)
}
