package e2e_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestP4_FleetStoreKilled kills the store under two gates under load and starts
// it again. Nobody is logged out, guests and public routes go on, no code is
// spent, and both gates recover.
func TestP4_FleetStoreKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, mixed)
	ada := f.a.who(appA, "ada")
	token, unseen := f.a.login(t, "ada"), f.a.login(t, "ada")
	for _, w := range f.gates() {
		w.checkAlive(t, token, ada)
	}
	from := [2]int{f.a.out.Len(), f.b.out.Len()}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var calls atomic.Int64
	for i := range 8 {
		w := f.gates()[i%2]
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				calls.Add(1)
				time.Sleep(5 * time.Millisecond) // the outage is the subject, not the load
				if wrong, err := clientOf(w, n, token); err != nil || wrong != "" {
					t.Error(wrong, err)
					return
				}
			}
		})
	}

	time.Sleep(200 * time.Millisecond)
	f.redis.Kill()
	for _, w := range f.gates() {
		eventually(t, "logins are refused",
			func() bool { return w.tryLogin(t, "bob").status == 503 })
	}
	before := f.a.wechat.Count(exchangePath)
	for range 10 {
		for _, w := range f.gates() {
			w.tryLogin(t, "bob").problem(t, 503, "store_unavailable")
		}
	}
	if n := f.a.wechat.Count(exchangePath) - before; n != 0 {
		t.Errorf("%d codes were spent while the store was away", n)
	}
	for _, w := range f.gates() {
		w.checkAlive(t, token, ada) // from the cache
		w.call(t, "GET", "/x", "", bearer(unseen)).problem(t, 503, "store_unavailable")
		w.checkDead(t, "wxs_"+strings.Repeat("A", 41)) // no store is asked about that
	}
	time.Sleep(300 * time.Millisecond)

	f.redis.Restart()
	began := time.Now()
	for _, w := range f.gates() {
		w.takesLogins(t)
	}
	t.Logf("logins were taken %v after the store's return", time.Since(began))
	time.Sleep(200 * time.Millisecond)
	close(stop)
	clients.Wait()
	t.Logf("%d calls under way", calls.Load())
	for i, w := range f.gates() {
		w.checkAlive(t, token, ada)
		w.checkAlive(t, unseen, ada)
		w.gate.logs(t, from[i], map[string]int{
			`"no contact with redis"`: 1, `"in contact with redis"`: 1,
			`"session store is unavailable"`: 0, `"session store is back"`: 0,
		})
	}
}

// TestP4_FleetStalledStoreSpendsNoCode: a login that comes while Redis hangs is refused
// before its code goes to WeChat, and the code is still good when Redis goes on.
func TestP4_FleetStalledStoreSpendsNoCode(t *testing.T) {
	slow(t)
	f := newFleet(t, mixed)
	body := codeBody(f.a.wechat.Code(appA, "ada"))
	before := f.a.wechat.Count(exchangePath)
	f.redis.Pause()
	for _, w := range f.gates() {
		w.post(t, "/wx/login", body).problem(t, 503, "store_unavailable")
	}
	if n := f.a.wechat.Count(exchangePath) - before; n != 0 {
		t.Errorf("%d codes were spent while Redis hung", n)
	}
	f.redis.Resume()
	for _, w := range f.gates() {
		w.takesLogins(t)
	}
	token := f.b.post(t, "/wx/login", body).session(t).Token
	f.a.checkAlive(t, token, f.a.who(appA, "ada"))
	f.a.post(t, "/wx/login", body).problem(t, 401, "code_used")
}

// clientOf makes the n-th call of a client and returns an answer that must not be.
func clientOf(w *world, n int, token string) (wrong string, err error) {
	path, headers := "/x", []string{bearer(token)}
	switch n % 4 {
	case 1:
		path = "/wx/session"
	case 2:
		path, headers = "/optional/x", nil
	case 3:
		path = "/public/x"
	}
	r, err := exchange(w.addr, request(w.addr, "GET", path, "", headers...))
	if err == nil && r.status != 200 {
		wrong = fmt.Sprintf("%s is answered with %s", path, r)
	}
	return wrong, err
}

// TestP4_FleetStartsAlone starts a gate without its store. It serves routes
// that need none, and recovers.
func TestP4_FleetStartsAlone(t *testing.T) {
	slow(t)
	t.Parallel()
	f := prepareFleet(t, mixed)
	f.a.start(t)
	f.a.takesLogins(t)
	token := f.a.login(t, "ada")
	f.redis.Kill()

	status, printed := f.b.command(t, "validate", "--adapter", "caddyfile", "--config",
		f.b.write(t, "Caddyfile", f.b.caddyfile(f.b.setup)))
	if status != 0 || !strings.Contains(printed, "Valid configuration") {
		t.Errorf("validate ends with %d:\n%s", status, printed)
	}
	f.b.start(t)
	for _, path := range []string{"/optional/x", "/public/x"} {
		if r := f.b.call(t, "GET", path, ""); !r.fromApp() {
			t.Errorf("%s is answered with %s", path, r)
		}
	}
	f.b.call(t, "GET", "/x", "").problem(t, 401, "session_missing")
	f.b.call(t, "GET", "/x", "", bearer(token)).problem(t, 503, "store_unavailable")
	if printed := f.b.operate(t, "status"); !strings.Contains(printed, "DOWN") {
		t.Errorf("status prints\n%s", printed)
	}
	before := f.b.wechat.Count(exchangePath)
	f.b.tryLogin(t, "bob").problem(t, 503, "store_unavailable")
	if n := f.b.wechat.Count(exchangePath); n != before {
		t.Error("a code was spent")
	}
	f.redis.Restart()
	f.b.takesLogins(t)
	f.b.checkAlive(t, token, f.a.who(appA, "ada"))
	if n := f.b.gate.stop(t); n != 0 {
		t.Errorf("the gate ended with status %d", n)
	}
}
