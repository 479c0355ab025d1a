package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// killRounds is how often TestP2 kills; the environment may ask for more.
func killRounds(tb testing.TB) int {
	tb.Helper()
	text := os.Getenv("WXGATE_KILL_ROUNDS")
	if text == "" && testing.Short() {
		return 1
	}
	if text == "" {
		return 3
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		tb.Fatalf("WXGATE_KILL_ROUNDS is %q, want a number above zero", text)
	}
	return n
}

// ledger holds the answers that clients got.
type ledger struct {
	mu    sync.Mutex
	alive map[string]*identity // tokens of answered logins that nobody has tried to end
	ended map[string]string    // tokens whose end was answered, and what ended them
}

func newLedger() *ledger {
	return &ledger{alive: make(map[string]*identity), ended: make(map[string]string)}
}

// check demands that the answers hold, but for those of the other ledger.
func (l *ledger) check(t *testing.T, w *world, but *ledger) {
	t.Helper()
	for token, who := range l.alive {
		if but.alive[token] == nil {
			if r := w.inTime(t, "/alive", token); r.status != 200 || r.fromGate() {
				t.Errorf("a good token is answered with %s", r)
			} else {
				r.received(t).check(t, who)
			}
		}
	}
	for token, end := range l.ended {
		if but.ended[token] != "" {
			continue
		}
		if r := w.inTime(t, "/dead", token); r.status != 401 ||
			!strings.Contains(r.body, "session_invalid") {
			t.Errorf("a %s was answered, and now the token is answered with %s", end, r)
		}
	}
}

// inTime calls until the answer is a verdict: on a busy machine a look-up in the store may
// be late, which is 503.
func (w *world) inTime(t *testing.T, path, token string) (r reply) {
	t.Helper()
	eventually(t, "a look-up is in time", func() bool {
		r = w.call(t, "GET", path, "", bearer(token))
		return r.status != http.StatusServiceUnavailable
	})
	return r
}

// kinds returns how many sessions each kind of end has ended.
func (l *ledger) kinds() map[string]int {
	n := make(map[string]int)
	for _, end := range l.ended {
		n[end]++
	}
	return n
}

func (l *ledger) clone() *ledger {
	return &ledger{alive: maps.Clone(l.alive), ended: maps.Clone(l.ended)}
}

// ends are the ways to end a session.
var ends = []string{"logout", "logout of all", "revocation of a session", "revocation of a user"}

// TestP2_AnsweredLoginsSurviveKills kills the gate at random instants while 16
// clients log in, log out and have sessions revoked. Every answer holds after
// the next start, and the file is whole.
func TestP2_AnsweredLoginsSurviveKills(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	told := newLedger()
	for round := range killRounds(t) {
		before := told.clone()
		var clients sync.WaitGroup
		stop := make(chan struct{})
		for i := range 16 {
			clients.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						end := ""
						if n%2 == 1 {
							end = ends[(i+n/2)%len(ends)]
						}
						if told.live(t, w, fmt.Sprintf("user-%d-%d-%d", round, i, n), end) {
							continue
						}
						return // the gate is gone
					}
				}
			})
		}
		eventually(t, "logins and each kind of end are answered", func() bool {
			told.mu.Lock()
			defer told.mu.Unlock()
			return len(told.alive) >= 16*(round+1) && len(told.kinds()) == len(ends)
		})
		time.Sleep(rand.N(300 * time.Millisecond)) // so that the kill meets any moment
		w.gate.kill()
		close(stop)
		clients.Wait()
		r, err := bolt.Check(w.database())
		if err != nil || r.Damaged != 0 || int(r.Stats.Sessions) < len(told.alive) {
			t.Fatalf("of the %d sessions told, the file holds %+v, %v", len(told.alive), r, err)
		}
		w.start(t)
		if told.check(t, w, before); t.Failed() {
			return
		}
	}
	if n := w.gate.stop(t); n != 0 {
		t.Errorf("the last gate ended with status %d", n)
	}
	w.start(t)
	told.check(t, w, newLedger())
	t.Logf("%d kills: %d sessions hold, ended are by %v",
		killRounds(t), len(told.alive), told.kinds())
}

// live is one client's life: a login, or two and an end of one of them or of
// both. It reports whether the gate was there all the time.
func (l *ledger) live(t *testing.T, w *world, user, end string) bool {
	first := l.login(t, w, user)
	if first == "" {
		return false
	}
	both := end == "logout of all" || end == "revocation of a user"
	if !both { // whatever becomes of the other session
		l.mu.Lock()
		l.alive[first] = w.who(appA, user)
		l.mu.Unlock()
	}
	if end == "" {
		return true
	}
	second := l.login(t, w, user)
	if second == "" || !w.end(t, user, second, end) {
		return false // not answered: it may have gone through or not
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended[second] = end
	if both {
		l.ended[first] = end
	}
	return true
}

// login returns a token, or nothing when there was no answer.
func (l *ledger) login(t *testing.T, w *world, user string) string {
	r, err := exchange(w.addr,
		request(w.addr, "POST", "/wx/login", codeBody(w.wechat.Code(appA, user))))
	if err != nil || r.status == 0 {
		return ""
	}
	if r.status != 200 {
		t.Errorf("a login is answered with %s", r)
		return ""
	}
	var s session
	if err := json.Unmarshal([]byte(r.body), &s); err != nil || s.Token == "" {
		t.Errorf("a login is answered with %s", r)
	}
	return s.Token
}

// end ends a user's session in the way given, or all of the user's, and reports
// whether that was answered.
func (w *world) end(t *testing.T, user, token, end string) bool {
	var r reply
	var err error
	want := http.StatusNoContent
	target := fmt.Sprintf(`"appid":%q,"openid":%q`, appA, w.wechat.OpenID(appA, user))
	switch end {
	case "logout":
		r, err = exchange(w.addr, request(w.addr, "POST", "/wx/logout", "", bearer(token)))
	case "logout of all":
		r, err = exchange(w.addr,
			request(w.addr, "POST", "/wx/logout", `{"all":true}`, bearer(token)))
	case "revocation of a session":
		target += fmt.Sprintf(`,"session":%q`, nameOf(token))
		fallthrough
	default:
		want = http.StatusOK
		r, err = exchange(w.admin, request(w.admin, "POST", "/wechat/revoke", "{"+target+"}",
			"Content-Type: application/json"))
	}
	if err != nil || r.status == 0 {
		return false
	}
	if r.status != want {
		t.Errorf("a %s is answered with %s", end, r)
	}
	return r.status == want
}
