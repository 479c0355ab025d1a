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

// TestThreat26_Aftermath floods the login endpoint in all ways, over reloads.
// WeChat hears no more than the buckets allow, users are served as before, and
// the process keeps nothing of it.
func TestThreat26_Aftermath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limited(strictRate))
	token := w.login(t, "ada", from("192.0.2.1"))
	w.checkAlive(t, token, w.who(appA, "ada"))
	w.mustReload(t, w.setup)
	w.checkAlive(t, token, w.who(appA, "ada"))
	goroutines, heap := w.gauge(t, "go_goroutines"), w.heapObjects(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%.0f goroutines before, and now:\n%s", goroutines,
				w.adminGet(t, "/debug/pprof/goroutine?debug=1"))
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
	eventually(t, "users log in again",
		func() bool { return w.tryLogin(t, "bob", from("192.0.2.9")).status == 200 })
	// Connections that are kept to WeChat and to the app have two each; the
	// storm leaves hundreds if it leaves any.
	eventually(t, "the goroutines are gone",
		func() bool { return w.gauge(t, "go_goroutines") <= goroutines+50 })
	eventually(t, "the memory is free", func() bool { return w.heapObjects(t) <= heap+20000 })
}

// gauge reads a series of the Go runtime.
func (w *world) gauge(tb testing.TB, name string) float64 {
	tb.Helper()
	// The connections over which we ask are not what is asked for.
	http.DefaultClient.CloseIdleConnections()
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(w.adminGet(tb,
		"/metrics"))
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
