package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
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
	s.wechat = "\t\tstore bolt " + filepath.Join(w.home, "other", "sessions.db") +
		renewed
	return s
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

// TestP7_StateIsKept keeps cache and circuit breaker over reloads.
// TestThreat32_BucketsSurviveReloads does so for rate limits.
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

// TestP7_OtherCommands runs commands beside a running gate, which goes on.
func TestP7_OtherCommands(t *testing.T) {
	t.Parallel()
	slow(t)
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

// TestP7_StopFinishesLogins stops a gate with logins under way. All are
// answered, and hold.
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

// TestP7_ReloadFinishesLogins replaces the configuration of a login under way,
// which is answered and holds.
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

// TestP7_RejectedConfigServesNobody loads a configuration whose store is
// another gate's. Caddy starts apps in no order, so its listeners may open
// first; clients on them are served as if it had never been.
func TestP7_RejectedConfigServesNobody(t *testing.T) {
	slow(t)
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
