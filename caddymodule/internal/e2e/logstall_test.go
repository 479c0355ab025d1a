package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stallable reads what a process prints, but for one line nothing while stalled.
type stallable struct {
	stalled atomic.Bool

	mu   sync.Mutex
	seen strings.Builder
}

func (s *stallable) read(from io.Reader) {
	for r := bufio.NewReader(from); ; {
		line, err := r.ReadString('\n')
		s.mu.Lock()
		s.seen.WriteString(line)
		s.mu.Unlock()
		if err != nil {
			return
		}
		for s.stalled.Load() {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (s *stallable) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.seen.String(), text)
}

// TestLog_ReaderStalls_GateGoesOn leaves standard error unread, with an access log of
// every request and 10,000 refusals. Everything is answered: refusals, logins, checks
// and the admin endpoint. Then the reader is back and learns how much it has missed.
func TestLog_ReaderStalls_GateGoesOn(t *testing.T) {
	t.Parallel()
	slow(t)
	w := prepareWorld(t, setup{site: "\tlog"})
	r, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log := new(stallable)
	go log.read(r)
	config := w.write(t, "Caddyfile", w.caddyfile(w.setup))
	w.out.direct = stderr
	p := w.launch(t, "run", "--adapter", "caddyfile", "--config", config)
	stderr.Close()
	eventually(t, "it serves", func() bool {
		return log.has("serving initial configuration") && log.has("wxgate is ready")
	})
	token := w.login(t, "ada")

	log.stalled.Store(true)
	began := time.Now()
	var refused atomic.Int64
	var wg sync.WaitGroup
	const clients, each = 20, 500
	for range clients {
		wg.Go(func() { refused.Add(int64(refusals(t, w.addr, each))) })
	}
	for i := range 20 {
		w.checkAlive(t, w.login(t, fmt.Sprint("user-", i)), w.who(appA, fmt.Sprint("user-", i)))
		w.checkAlive(t, token, w.who(appA, "ada"))
		w.adminGet(t, "/wechat/status")
	}
	wg.Wait()
	if n := refused.Load(); n != clients*each {
		t.Errorf("%d of %d refusals came", n, clients*each)
	}
	t.Logf("%d refusals, 20 logins and 20 calls of admin in %s", refused.Load(), time.Since(began))
	dropped := w.metrics(t)["caddy_wechat_log_lines_dropped_total"]
	if dropped == 0 {
		t.Error("nothing was dropped: the log was not full")
	}
	log.stalled.Store(false)
	eventually(t, "the log tells what is missing", func() bool {
		return log.has("log lines dropped: the reader of the log stalled")
	})
	t.Logf("%v lines dropped", dropped)
	if p.stop(t) != 0 || !log.has("shutdown complete") {
		t.Error("the log misses the end")
	}
}

// refusals sends n requests with a bad token on one connection and returns how many
// were refused.
func refusals(t *testing.T, addr string, n int) (refused int) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(4 * patience))
	in := bufio.NewReader(c)
	for range n {
		fmt.Fprintf(c, "GET /hello HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer wxs_bad\r\n\r\n",
			addr)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Error(err)
			return refused
		}
		io.Copy(io.Discard, resp.Body)
		if resp.StatusCode == http.StatusUnauthorized {
			refused++
		}
	}
	return refused
}
