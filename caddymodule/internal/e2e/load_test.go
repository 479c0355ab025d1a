package e2e_test

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// load is the work of clients while configurations come and go. Each kind counts
// its requests and keeps the first answer that was not as it should be.
type load struct {
	clients sync.WaitGroup
	stop    chan struct{}
	kinds   []*kind
}

type kind struct {
	name   string
	sent   atomic.Int64
	failed atomic.Int64
	broken atomic.Int64
	first  atomic.Pointer[string]
}

// errNoAnswer means that the connection ended before a byte of the answer came.
// When Caddy opens its listeners anew, the kernel resets connections that the
// old ones have not accepted yet (SO_REUSEPORT): that happens to a site without
// the gate just the same, and clients of HTTP repeat the request.
var errNoAnswer = errors.New("no answer")

// run starts a client that repeats one exchange. send returns what was wrong,
// or nothing, or errNoAnswer.
func (l *load) run(name string, send func(*http.Client) (wrong string, err error)) {
	k := &kind{name: name}
	l.kinds = append(l.kinds, k)
	l.clients.Go(func() {
		transport := &http.Transport{}
		client := &http.Client{Transport: transport, Timeout: patience}
		defer transport.CloseIdleConnections()
		for {
			select {
			case <-l.stop:
				return
			default:
			}
			wrong, err := send(client)
			if errors.Is(err, errNoAnswer) {
				k.broken.Add(1)
				continue
			}
			k.sent.Add(1)
			if err != nil {
				wrong = err.Error()
			}
			if wrong != "" {
				k.failed.Add(1)
				k.first.CompareAndSwap(nil, &wrong)
			}
		}
	})
}

// goesOn waits until every kind of client has been answered some more times.
func (l *load) goesOn(t *testing.T) {
	t.Helper()
	for _, k := range l.kinds {
		enough := k.sent.Load() + 5
		eventually(t, k.name+" goes on", func() bool { return k.sent.Load() >= enough })
	}
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.clients.Wait()
	for _, k := range l.kinds {
		t.Logf("%s: %d answers, %d connections without one", k.name, k.sent.Load(), k.broken.Load())
		if k.failed.Load() > 0 {
			t.Errorf("%s: %d of %d requests failed, first: %s", k.name, k.failed.Load(),
				k.sent.Load(), *k.first.Load())
		}
	}
}

// answers is how many there have been.
func (l *load) answers() (n int64) {
	for _, k := range l.kinds {
		n += k.sent.Load()
	}
	return n
}
