package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// changed is mixed with every setting another that can be without changing what
// the load meets.
func changed() setup {
	s := mixed
	s.timeout = "3s"
	s.wechat = `		session {
			ttl 47h
			idle 23h
			max_per_user 7
			replay 3s
		}
		cache {
			max_sessions 5000
		}
		max_staleness 20s
		login_rate 100000/s {
			global 200000/s
			in_flight 300
		}`
	s.auth += " /feed/*\n\t\tapps " + appA + "\n\t\theaders {\n\t\t\tsource X-WX-SOURCE\n\t\t}"
	s.options = "\tservers {\n\t\tkeepalive_interval 20s\n\t}"
	return s
}

// moved keeps the sessions in another file.
func (w *world) moved() setup {
	s := mixed
	s.wechat = "\t\tstore bolt " + filepath.Join(w.home, "other", "sessions.db")
	return s
}

// load is what clients do while configurations come and go. Each kind counts
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

// get asks for a path and says what is wrong with the answer: the status, or
// who the app was told of.
func (w *world) get(client *http.Client, path, token string,
	want *identity,
) (wrong string, err error) {
	req, err := http.NewRequest("GET", "http://"+w.addr+path, nil)
	if err != nil {
		return "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		if os.IsTimeout(err) {
			return "", err
		}
		return "", errNoAnswer
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var got received
	if resp.StatusCode != 200 || json.Unmarshal(body, &got) != nil {
		return fmt.Sprintf("%d %s", resp.StatusCode, body), nil
	}
	if o := fmt.Sprint(got.owned()); o != fmt.Sprint(want.lines()) {
		return "the app is told " + o, nil
	}
	return "", nil
}

// logIn logs a new user in, sending the same code again until there is an answer.
func (w *world) logIn(n int) (token, wrong string, err error) {
	body := codeBody(w.wechat.Code(appA, fmt.Sprint("user-", n)))
	for range 20 {
		r, err := exchange(w.addr, request(w.addr, "POST", "/wx/login", body))
		switch {
		case err != nil && !errors.Is(err, syscall.ECONNRESET):
			return "", "", err
		case r.status == 200:
			var s session
			err = json.Unmarshal([]byte(r.body), &s)
			return s.Token, "", err
		case r.status != 0:
			return "", r.String(), nil
		}
	}
	return "", "", errNoAnswer
}

// startLoad keeps guests, public requests, users and logins coming. A user who
// is told 401 is no failure while mayMove holds.
func (w *world) startLoad(tokens []string, who *identity, mayMove *atomic.Bool) *load {
	l := &load{stop: make(chan struct{})}
	l.run("public", func(c *http.Client) (string, error) { return w.get(c, "/public/x", "", nil) })
	l.run("guest", func(c *http.Client) (string, error) { return w.get(c, "/optional/x", "", nil) })
	l.run("public with a token",
		func(c *http.Client) (string, error) { return w.get(c, "/public/x", tokens[0], nil) })
	for i, path := range []string{"/app/x", "/optional/x", "/app/y"} {
		l.run("user at "+path, func(c *http.Client) (string, error) {
			moving := mayMove.Load()
			wrong, err := w.get(c, path, tokens[i], who)
			if (moving || mayMove.Load()) && strings.HasPrefix(wrong, "401") &&
				strings.Contains(wrong, "session_invalid") {
				return "", nil
			}
			return wrong, err
		})
	}
	logins := 0
	l.run("login", func(*http.Client) (string, error) {
		logins++
		_, wrong, err := w.logIn(logins)
		return wrong, err
	})
	return l
}

// TestP7_ReloadUnderLoad: 20 configurations come and go while clients of all
// kinds are served. None of them notices.
func TestP7_ReloadUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mixed)
	var tokens []string
	for range 4 {
		tokens = append(tokens, w.login(t, "ada"))
	}
	who := w.who(appA, "ada")
	rejected := map[string]func() string{
		"unknown word": func() string {
			return strings.Replace(w.caddyfile(mixed), "\twechat {", "\twechat {\n\t\tnonsense", 1)
		},
		"store that cannot be opened": func() string {
			s := mixed
			s.wechat = "\t\tstore bolt " + w.home // a folder
			return w.caddyfile(s)
		},
		"empty secret": func() string {
			return strings.Replace(w.caddyfile(mixed), "{env.WX_SECRET_0}", "{env.NO_SUCH}", 1)
		},
		"taken port": func() string {
			return w.caddyfile(mixed) + "\nhttp://" + strings.TrimPrefix(w.wechat.URL,
				"http://") + " {\n\trespond x\n}\n"
		},
		"wrong key": func() string {
			s := mixed
			s.wechat = "\t\tseal_key {env.WX_SECRET_0}"
			return w.caddyfile(s)
		},
	}
	var mayMove atomic.Bool
	l := w.startLoad(tokens, who, &mayMove)
	defer l.end(t)
	reloads := 0
	accepted := func(s setup) {
		t.Helper()
		l.goesOn(t)
		w.mustReload(t, s)
		for _, token := range tokens {
			w.checkAlive(t, token, who)
		}
		reloads++
	}
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		accepted(mixed)
		accepted(changed())
	}
	for name, text := range rejected {
		for range max(rounds/2, 1) {
			l.goesOn(t)
			if status, said := w.reload(t, text()); status != 400 {
				t.Errorf("%s: status %d: %s", name, status, said)
			}
			for _, token := range tokens {
				w.checkAlive(t, token, who)
			}
			reloads++
		}
	}
	accepted(changed())

	// With the store goes what is in it. Nobody is told anything but 401, and
	// that only of a token that the new store does not know.
	mayMove.Store(true)
	w.mustReload(t, w.moved())
	eventually(t, "the old store's sessions are unknown", func() bool {
		return w.call(t, "GET", "/app/x", "", bearer(tokens[0])).status == 401
	})
	there := w.login(t, "bob")
	w.checkAlive(t, there, w.who(appA, "bob"))
	w.mustReload(t, mixed)
	eventually(t, "the old sessions are back",
		func() bool { return w.call(t, "GET", "/app/x", "", bearer(tokens[0])).status == 200 })
	mayMove.Store(false)
	accepted(mixed)
	w.checkDead(t, there)
	// And there again, with whatever was written meanwhile.
	mayMove.Store(true)
	w.mustReload(t, w.moved())
	eventually(t, "the other store is back",
		func() bool { return w.call(t, "GET", "/app/x", "", bearer(there)).status == 200 })
	w.mustReload(t, mixed)
	eventually(t, "the old sessions are back",
		func() bool { return w.call(t, "GET", "/app/x", "", bearer(tokens[0])).status == 200 })
	mayMove.Store(false)
	accepted(mixed)
	t.Logf("%d reloads and 4 moves", reloads)
}

// TestP7_StateIsKept: cache, login limiter and breaker go on as if there had
// been no reload.
func TestP7_StateIsKept(t *testing.T) {
	t.Parallel()
	t.Run("cache", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, mixed)
		token := w.login(t, "ada")
		w.checkAlive(t, token, w.who(appA, "ada"))
		eventually(t, "the session is in the cache", func() bool {
			before := w.metrics(t)["caddy_wechat_cache_hits_total"]
			w.checkAlive(t, token, w.who(appA, "ada"))
			return w.metrics(t)["caddy_wechat_cache_hits_total"] > before
		})
		before := w.metrics(t)
		for range 3 {
			w.mustReload(t, changed())
			w.checkAlive(t, token, w.who(appA, "ada"))
			w.mustReload(t, mixed)
			w.checkAlive(t, token, w.who(appA, "ada"))
		}
		after := w.metrics(t)
		for series, grown := range map[string]float64{
			"caddy_wechat_cache_misses_total": 0, "caddy_wechat_cache_hits_total": 6,
			`caddy_wechat_decisions_total{result="accepted"}`: 6,
		} {
			if _, ok := before[series]; !ok || after[series]-before[series] != grown {
				t.Errorf("%s goes from %v to %v, want %v more", series, before[series],
					after[series], grown)
			}
		}
	})
	t.Run("breaker", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, mixed)
		w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultReset, Times: -1})
		// An open breaker lets one call through every two seconds; a slow
		// machine may meet it, but not each time.
		for range 10 {
			eventually(t, "the breaker opens", func() bool {
				before := w.wechat.Count(exchangePath)
				w.tryLogin(t, "ada").problem(t, 503, "wechat_unavailable")
				return w.wechat.Count(exchangePath) == before
			})
			before := w.wechat.Count(exchangePath)
			w.mustReload(t, mixed)
			w.tryLogin(t, "ada").problem(t, 503, "wechat_unavailable")
			if w.wechat.Count(exchangePath) == before {
				return
			}
		}
		t.Error("the breaker is closed after a reload")
	})
}

// TestP7_OtherCommands: what an operator runs beside a running gate does not
// disturb it.
func TestP7_OtherCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mixed)
	token, who := w.login(t, "ada"), w.who(appA, "ada")
	w.checkAlive(t, token, who)
	file := filepath.Join(w.home, "Caddyfile")

	status, printed := w.command(t, "validate", "--adapter", "caddyfile", "--config", file)
	if status != 0 || !strings.Contains(printed, "Valid configuration") {
		t.Errorf("validate ends with %d:\n%s", status, printed)
	}
	w.checkAlive(t, token, who)

	elsewhere := *w
	elsewhere.addr, elsewhere.admin = freeAddr(t), freeAddr(t)
	second := w.write(t, "second.caddyfile", elsewhere.caddyfile(mixed))
	status, printed = w.command(t, "run", "--adapter", "caddyfile", "--config", second)
	if status == 0 || !strings.Contains(printed, "sessions.db") ||
		!strings.Contains(printed, "locked, probably by another running instance") {
		t.Errorf("a second gate on the same file ends with %d:\n%s", status, printed)
	}
	w.checkAlive(t, token, who)

	w.write(t, "Caddyfile", w.caddyfile(changed()))
	status, printed = w.command(t, "reload", "--force", "--adapter", "caddyfile", "--config", file,
		"--address", w.admin)
	if status != 0 {
		t.Errorf("reload ends with %d:\n%s", status, printed)
	}
	w.checkAlive(t, token, who)
	if !strings.Contains(w.adminGet(t, "/config/apps/wechat/session"), `"max_per_user":7`) {
		t.Error("the reloaded configuration is not the current one")
	}
	w.checkAlive(t, w.login(t, "bob"), w.who(appA, "bob"))

	status, printed = w.command(t, "stop", "--address", w.admin)
	if status != 0 || w.gate.wait(t) != 0 {
		t.Errorf("stop ends with %d, the gate with %d:\n%s", status, w.gate.wait(t), printed)
	}
	w.start(t)
	w.checkAlive(t, token, who)
}

// TestP7_StopFinishesLogins: all logins that are under way when the gate is told
// to stop are answered, and hold.
func TestP7_StopFinishesLogins(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*testing.T, *world){
		"signal": func(_ *testing.T, w *world) { w.gate.cmd.Process.Signal(syscall.SIGTERM) },
		"admin": func(t *testing.T, w *world) {
			if r := raw(t, w.admin, request(w.admin, "POST", "/stop", "")); r.status != 200 {
				t.Errorf("stop is answered with %s", r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mixed
			s.timeout = "20s"
			w := newWorld(t, s)
			w.wechat.Inject(
				weixintest.Fault{Kind: weixintest.FaultSlow, Delay: time.Second, Times: 16})
			logins := together(t, 16, func(i int) (addr, text string) {
				body := codeBody(w.wechat.Code(appA, fmt.Sprint("user-", i)))
				return w.addr, request(w.addr, "POST", "/wx/login", body)
			})
			eventually(t, "the logins are under way",
				func() bool { return w.wechat.Count(exchangePath) == 16 })
			stop(t, w)
			replies := logins()
			if n := w.gate.wait(t); n != 0 {
				t.Errorf("the gate ends with status %d", n)
			}
			w.start(t)
			for i, r := range replies {
				w.checkAlive(t, r.session(t).Token, w.who(appA, fmt.Sprint("user-", i)))
			}
			if strings.Contains(w.out.String(), "was not closed properly") {
				t.Error("the store was not closed")
			}
		})
	}
}

// TestP7_ReloadFinishesLogins: so is one that is under way when its configuration goes.
func TestP7_ReloadFinishesLogins(t *testing.T) {
	slow(t)
	t.Parallel()
	s := mixed
	s.timeout = "20s"
	w := newWorld(t, s)
	// Longer than a configuration that is replaced is kept without need.
	w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultSlow, Delay: 7 * time.Second})
	answered := make(chan reply, 1)
	go func() {
		r, err := exchange(w.addr,
			request(w.addr, "POST", "/wx/login", codeBody(w.wechat.Code(appA, "ada"))))
		if err != nil {
			t.Error(err)
		}
		answered <- r
	}()
	eventually(t, "the login is under way",
		func() bool { return w.wechat.Count(exchangePath) == 1 })
	w.mustReload(t, w.moved())
	token := (<-answered).session(t).Token
	w.checkDead(t, token) // it was made where it began
	w.mustReload(t, s)
	w.checkAlive(t, token, w.who(appA, "ada"))
}

// TestP7_RejectedConfigServesNobody: Caddy starts its apps in no particular
// order, so the listeners of a configuration may be open before its store turns
// out to be another gate's. Whoever comes in by them must be served as if that
// configuration had never been.
func TestP7_RejectedConfigServesNobody(t *testing.T) {
	t.Parallel()
	other := newWorld(t, setup{})
	w := newWorld(t, mixed)
	token, who := w.login(t, "ada"), w.who(appA, "ada")
	s := mixed
	s.wechat = "\t\tstore bolt " + filepath.Join(other.home, "data", "caddy", "wxgate",
		"sessions.db")

	l := &load{stop: make(chan struct{})}
	fresh := func(path string, headers ...string) func(*http.Client) (string, error) {
		return func(*http.Client) (string, error) {
			r, err := exchange(w.addr, request(w.addr, "GET", path, "", headers...))
			switch {
			case errors.Is(err, syscall.ECONNRESET) || err == nil && r.status == 0:
				return "", errNoAnswer
			case err != nil || r.status == 200:
				return "", err
			}
			return r.String(), nil
		}
	}
	l.run("guest", fresh("/optional/x"))
	l.run("user", fresh("/app/x", bearer(token)))
	l.run("session", fresh("/wx/session", bearer(token)))
	logins := 0
	l.run("login", func(*http.Client) (string, error) {
		logins++
		_, wrong, err := w.logIn(logins)
		return wrong, err
	})
	for range 4 {
		if status, said := w.reload(t, w.caddyfile(s)); status != 400 ||
			!strings.Contains(said, "locked") {
			t.Errorf("status %d: %s", status, said)
		}
	}
	l.end(t)
	w.checkAlive(t, token, who)
}
