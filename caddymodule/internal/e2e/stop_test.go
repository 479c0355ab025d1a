package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// held is an app that never ends: a stream of events, and a reader of uploads. It
// tells in began of each request.
func held(tb testing.TB) (addr string, began chan string) {
	began = make(chan string, 8)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began <- r.URL.Path
		if r.Method == http.MethodPost {
			io.Copy(io.Discard, r.Body)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			fmt.Fprint(w, "data: tick\n\n")
			http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	}))
	tb.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String(), began
}

// drip sends a request that announces a body and a byte of the body now and then,
// until the connection ends.
func drip(tb testing.TB, addr, target string, size int) net.Conn {
	tb.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\n\r\n", target, addr, size)
	go func() {
		for {
			if _, err := c.Write([]byte(" ")); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return c
}

// TestStop_OpenConnections_NextProcessServes stops a gate with an event stream, an
// upload that drips and a refusal whose body drips. The stream and the refusal end,
// and the next process has the store and the sessions while the upload goes on.
func TestStop_OpenConnections_NextProcessServes(t *testing.T) {
	t.Parallel()
	slowApp, began := held(t)
	w := newWorld(t, setup{
		options: "\tgrace_period 10m", auth: "\t\tpublic /events /upload",
		site: "\treverse_proxy /events " + slowApp + "\n\treverse_proxy /upload " + slowApp,
	})
	token, who := w.login(t, "ada"), w.who(appA, "ada")

	stream, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	fmt.Fprintf(stream, "GET /events HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n",
		w.addr)
	<-began
	upload := drip(t, w.addr, "/upload", 1<<20)
	<-began
	refused := drip(t, w.addr, "/hello", 1<<20)
	status, err := bufio.NewReader(refused).ReadString('\n')
	if err != nil || !strings.Contains(status, " 401 ") {
		t.Fatalf("the refusal is %q, %v", status, err)
	}

	old := w.gate
	old.cmd.Process.Signal(syscall.SIGTERM)
	for name, c := range map[string]net.Conn{"stream": stream, "refusal": refused} {
		c.SetReadDeadline(time.Now().Add(patience))
		_, err := io.Copy(io.Discard, c)
		if err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the %s goes on: %v", name, err)
		}
	}
	w.admin = freeAddr(t) // the old process has its own until the end
	signalled := time.Now()
	w.start(t)
	w.checkAlive(t, token, who)
	w.checkAlive(t, w.login(t, "bob"), w.who(appA, "bob"))
	t.Logf("the next process serves %s after the stream's end", time.Since(signalled))
	select {
	case <-old.exited:
		t.Error("the upload did not hold the old process: nothing was tried")
	default:
	}
	upload.Close()
	if n := old.wait(t); n != 0 {
		t.Errorf("the old gate ends with status %d", n)
	}
	if printed := w.out.String(); strings.Contains(printed, "was not closed properly") ||
		!strings.Contains(printed, "session store handed over") {
		t.Error("the store was not handed over in order")
	}
	w.checkAlive(t, token, who)
}
