package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// loginFrom is the text of a login by a client behind the trusted proxy.
func (w *world) loginFrom(client, code string) string {
	body := codeBody(code)
	return fmt.Sprintf("POST /wx/login HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: %d\r\n\r\n%s",
		from(client), len(body), body)
}

// tally counts answers of the login endpoint by status and demands that they
// are the gate's.
func tally(t *testing.T, replies []reply) map[int]int {
	t.Helper()
	n := make(map[int]int)
	for _, r := range replies {
		if n[r.status]++; r.status == 200 {
			r.session(t)
		} else {
			r.tooMany(t, hourly5)
		}
	}
	return n
}

// TestThreat26_OneConnection counts logins on one connection like those on
// many.
func TestThreat26_OneConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limited(strictRate))
	var text strings.Builder
	for range 30 {
		text.WriteString(w.loginFrom("203.0.113.1", w.wechat.Code(appA, "ada")))
	}
	// A refusal may end the connection over the bodies that it did not read.
	if n := tally(t, mustTalk(t, w.addr, text.String())); n[200] != 5 || n[429] == 0 {
		t.Errorf("30 pipelined logins are answered %v", n)
	}
	w.asked(t, 5)

	t.Run("the same code", func(t *testing.T) {
		c := mustDialH2(t, w.addr, nil)
		login := probe.AsStream(w.loginFrom("203.0.113.2", w.wechat.Code(appA, "bob")), "http")
		var replies []reply
		for range 30 {
			replies = append(replies, askH2(t, c, login))
		}
		if n := tally(t, replies); n[200] != 5 || n[429] != 25 {
			t.Errorf("30 logins with one code are answered %v", n)
		}
		w.asked(t, 6)
	})
	t.Run("many connections", func(t *testing.T) {
		n := tally(t, together(t, 40, func(int) (addr, text string) {
			return w.addr, w.loginFrom("203.0.113.3", w.wechat.Code(appA, "eve"))
		})())
		if n[200] < 4 || n[200] > 5 {
			t.Errorf("40 logins at once are answered %v", n)
		}
		w.asked(t, 6+n[200])
	})
}

// TestThreat26_Cancelled charges a client that goes away while the gate asks
// WeChat.
func TestThreat26_Cancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limited(strictRate))
	for i := range 5 {
		w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultSlow, Delay: 100 * time.Millisecond})
		conn, _ := dial(t, w.addr)
		io.WriteString(conn, w.loginFrom("203.0.113.1", w.wechat.Code(appA, "ada")))
		eventually(t, "WeChat is asked", func() bool { return w.wechat.Count(exchangePath) == i+1 })
		conn.Close()
		eventually(t, "the login and the exchange are over", func() bool {
			return w.sum(t, "caddy_wechat_logins_total") == i+1 &&
				w.sum(t, "caddy_wechat_weixin_calls_total") == i+1
		})
	}
	w.tryLogin(t, "ada", from("203.0.113.1")).tooMany(t, hourly5)
	w.asked(t, 5)
}

// sum adds up a metric over its labels.
func (w *world) sum(tb testing.TB, name string) (n int) {
	tb.Helper()
	for series, v := range w.metrics(tb) {
		if strings.HasPrefix(series, name+"{") {
			n += int(v)
		}
	}
	return n
}

// TestThreat26_CancelledExchanges counts an exchange in the cap until it ends,
// even when its client has gone.
func TestThreat26_CancelledExchanges(t *testing.T) {
	t.Parallel()
	s := limited(strictRate)
	s.timeout = "60s"
	w := newWorld(t, s)
	w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultHang, Times: -1})
	for i := range 12 {
		conn, br := dial(t, w.addr)
		io.WriteString(conn,
			w.loginFrom(fmt.Sprintf("203.0.113.%d", i), w.wechat.Code(appA, "ada")))
		answered := make(chan struct{})
		go func() {
			br.Peek(1)
			close(answered)
		}()
		before := w.wechat.Count(exchangePath)
		eventually(t, "WeChat is asked, or the login refused", func() bool {
			select {
			case <-answered:
				return true
			default:
				return w.wechat.Count(exchangePath) > min(before, i)
			}
		})
		conn.Close()
		eventually(t, "the login is over",
			func() bool { return w.sum(t, "caddy_wechat_logins_total") == i+1 })
	}
	w.asked(t, 4)
}

// TestThreat26_HalfSentBodies lets others log in while clients hold back the
// rest of their bodies.
func TestThreat26_HalfSentBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limited(strictRate))
	const half = `{"code":`
	for i := range 4 {
		conn, _ := dial(t, w.addr)
		fmt.Fprintf(conn,
			"POST /wx/login HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: 100\r\n\r\n%s",
			from(fmt.Sprintf("203.0.113.%d", i)), half)
	}
	c := mustDialH2(t, w.addr, nil)
	for i := range 4 {
		c.Begin(probe.AsStream(w.loginFrom(fmt.Sprintf("203.0.113.%d", 4+i), ""), "http"))
	}
	c.Flush()
	// They should be there now. If they are not, the test proves less, but holds.
	time.Sleep(200 * time.Millisecond)
	eventually(t, "somebody else can log in",
		func() bool { return w.tryLogin(t, "ada", from("203.0.113.100")).status == 200 })
	w.asked(t, 1)
}

// resets opens n logins of one client over HTTP/2 and resets each at once.
func (w *world) resets(t *testing.T, client string, n int) {
	t.Helper()
	var c *probe.Conn
	for i := range n {
		if i%100 == 0 || c.Broken {
			if c != nil {
				c.Close()
			}
			if c = w.tryDialH2(t); c == nil {
				return
			}
		}
		c.Cancel(c.Open(probe.AsStream(w.loginFrom(client, w.wechat.Code(appA, "eve")), "http")))
		c.Flush()
	}
	c.Close()
}

// tryDialH2 connects to a gate that may be opening its listeners anew, when the
// kernel resets what waits at the old ones.
func (w *world) tryDialH2(t *testing.T) (c *probe.Conn) {
	t.Helper()
	var err error
	for range 20 {
		if c, err = dialH2(w.addr, nil); err == nil {
			return c
		}
	}
	t.Error(err)
	return nil
}

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
