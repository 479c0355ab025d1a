package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// killRounds is how often TestP2 kills; the environment may ask for more.
func killRounds(tb testing.TB) int {
	tb.Helper()
	text := os.Getenv("WXGATE_KILL_ROUNDS")
	if text == "" {
		return 3
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		tb.Fatalf("WXGATE_KILL_ROUNDS is %q, want a number above zero", text)
	}
	return n
}

// ledger is what clients were told.
type ledger struct {
	mu    sync.Mutex
	alive map[string]*identity // tokens of answered logins that nobody has tried to end
	ended []string             // tokens of answered logouts
}

// TestP2_AnsweredLoginsSurviveKills: 16 clients log in and out while the gate is killed at a random instant and started again on what it left. What was answered holds.
func TestP2_AnsweredLoginsSurviveKills(t *testing.T) {
	w := newWorld(t, setup{})
	told := &ledger{alive: make(map[string]*identity)}
	for round := range killRounds(t) {
		var clients sync.WaitGroup
		stop := make(chan struct{})
		for i := range 16 {
			clients.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						if told.live(t, w, fmt.Sprintf("user-%d-%d-%d", round, i, n), n%3 == 2) {
							continue
						}
						return // the gate is gone
					}
				}
			})
		}
		time.Sleep(50*time.Millisecond + rand.N(400*time.Millisecond))
		w.gate.kill()
		close(stop)
		clients.Wait()
		w.start(t)

		t.Logf("round %d: %d sessions, %d ended", round, len(told.alive), len(told.ended))
		if len(told.alive) < 16*(round+1) || len(told.ended) == 0 {
			t.Fatal("too few logins were answered to show anything")
		}
		for token, who := range told.alive {
			w.checkAlive(t, token, who)
		}
		for _, token := range told.ended {
			w.checkDead(t, token)
		}
		if t.Failed() {
			return
		}
	}
	if n := w.gate.stop(t); n != 0 {
		t.Errorf("the last gate ended with status %d", n)
	}
	w.start(t)
	for token, who := range told.alive {
		w.checkAlive(t, token, who)
	}
}

// live is one client's life: a login and perhaps a logout. It reports whether the gate was there all the time.
func (l *ledger) live(t *testing.T, w *world, user string, out bool) bool {
	r, err := exchange(w.addr, request(w.addr, "POST", "/wx/login", codeBody(w.wechat.Code(appA, user))))
	if err != nil || r.status == 0 {
		return false
	}
	if r.status != http.StatusOK {
		t.Errorf("a login is answered with %s", r)
		return false
	}
	token := r.session(t).Token
	if !out {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.alive[token] = w.who(appA, user)
		return true
	}
	r, err = exchange(w.addr, request(w.addr, "POST", "/wx/logout", "", bearer(token)))
	if err != nil || r.status == 0 {
		return false // not answered: it may have gone through or not
	}
	if r.status != http.StatusNoContent {
		t.Errorf("a logout is answered with %s", r)
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, token)
	return true
}
