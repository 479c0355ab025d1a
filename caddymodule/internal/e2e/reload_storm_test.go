package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// storm is a world whose configurations come and go, and the answers that its
// clients got. The sessions are in one of two files: moves counts how often they
// have changed, and is odd while a change is under way, when either file may be
// asked.
type storm struct {
	*world
	moves  atomic.Int64
	tokens [2][]string // of ada, by file
	ada    *identity

	mu    sync.Mutex
	held  [2]map[string]*identity // tokens of answered logins, by file
	ended [2][]string             // tokens of answered logouts
	doubt map[string]*identity    // tokens of logins during a move: one of the files has them
	users int
}

// place is the file that is asked after so many moves.
func place(moves int64) int { return int(moves / 2 % 2) }

// config is the n-th configuration on a file. None has a line of settings in
// common with the one before.
func (s *storm) config(n, place int) setup {
	c := setup{
		timeout: fmt.Sprintf("%dms",
			3000+n%7), options: fmt.Sprintf("\tservers {\n\t\tkeepalive_interval %ds\n\t}",
			15+n%9),
		auth: mixed.auth + fmt.Sprintf(" /feed-%d/*\n\t\tapps %s", n, appA), apps: []string{appA},
	}
	if n%3 == 0 {
		c.apps = append(c.apps, appB)
	}
	if n%2 == 1 {
		c.auth += " " + appB +
			"\n\t\ttoken header Authorization\n\t\theaders {\n\t\t\topenid X-WX-Storm-Openid\n\t\t}"
	}
	c.wechat = fmt.Sprintf(`		session {
			ttl %dm
			idle %dm
			max_per_user %d
			replay %ds
		}
		cache {
			max_sessions %d
		}
		max_staleness %ds
		login_rate %d/s {
			global %d/s
			in_flight %d
		}
`, 2000+n, 1000+n, 5+n%5, 3+n%4, 5000+n, 20+n%9, 100000+n, 200000+n, 300+n)
	if n%2 == 1 && len(c.apps) == 1 {
		c.auth = strings.Replace(c.auth, "apps "+appA+" "+appB, "apps "+appA, 1)
	}
	if place == 1 {
		c.wechat += "\t\tstore bolt " + s.other() + renewed
	}
	return c
}

// renewed consents to an empty store.
const renewed = " {\n\t\t\tnew\n\t\t}"

func (s *storm) other() string { return filepath.Join(s.home, "other", "sessions.db") }

// text is a configuration as the gate is given it. Caddy lets go of connections
// to the app that were in use during a reload only when they have been idle for
// two minutes; here it is sooner.
func (s *storm) text(c setup) string {
	return strings.Replace(s.caddyfile(c), "reverse_proxy "+s.app.addr,
		"reverse_proxy "+s.app.addr+" {\n\t\ttransport http {\n\t\t\tkeepalive 1s\n\t\t}\n\t}", 1)
}

func (s *storm) accept(t *testing.T, c setup) {
	t.Helper()
	if status, said := s.reload(t, s.text(c)); status != 200 {
		t.Fatalf("reloading: status %d: %s", status, said)
	}
}

// bad is a configuration like config that is refused, and the reason given.
func (s *storm) bad(n, place int) (text, said string) {
	c := s.config(n, place)
	switch n % 5 {
	case 0: // by the adapter
		return strings.Replace(s.text(c), "\twechat {", "\twechat {\n\t\tnonsense", 1), "nonsense"
	case 1: // by another app of the configuration, before ours has started or after
		taken := "\n" + s.wechat.URL + " {\n\trespond x\n}\n"
		return s.text(c) + taken, "address already in use"
	case 2: // by the sessions, which were made under another key
		c.wechat += "\n\t\tseal_key {env.WX_OTHER_KEY}"
		return s.text(c), "needed until"
	case 3: // by an empty secret
		return strings.Replace(s.text(c), "{env.WX_SECRET_0}", "{env.NO_SUCH}", 1), "NO_SUCH"
	default: // by the disk: there is a file where the folder should be
		c.wechat = strings.ReplaceAll(c.wechat, "\t\tstore bolt "+s.other()+renewed, "") +
			"\n\t\tstore bolt " + filepath.Join(s.home, "Caddyfile", "sessions.db")
		return s.text(c), "not a directory"
	}
}

// told reports whether the app was told of nobody but the user, under the names
// of one configuration.
func told(got received, who *identity) bool {
	renamed := who.lines()
	for i, line := range renamed {
		renamed[i] = strings.Replace(line, "x-wx-openid:", "x-wx-storm-openid:", 1)
	}
	slices.Sort(renamed)
	return slices.Equal(got.owned(), who.lines()) || slices.Equal(got.owned(), renamed)
}

// ask sends a request and returns the status, which is 0 for an answer that is
// not right.
func (s *storm) ask(client *http.Client, path, token string,
	who *identity,
) (status int, wrong string, err error) {
	req, err := http.NewRequest("GET", "http://"+s.addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		if os.IsTimeout(err) {
			return 0, "", err
		}
		return 0, "", errNoAnswer
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", err
	}
	var got received
	switch {
	case resp.StatusCode == 401 && strings.Contains(string(body), "session_invalid"):
		return resp.StatusCode, "", nil
	case resp.StatusCode != 200 || json.Unmarshal(body, &got) != nil:
		return 0, fmt.Sprintf("%d %s", resp.StatusCode, body), nil
	case !told(got, who):
		return 0, fmt.Sprintf("the app is told %q", got.owned()), nil
	}
	return resp.StatusCode, "", nil
}

// check is one check of a token that the file of the moment has. Only when the
// file changes meanwhile may it be unknown.
func (s *storm) check(client *http.Client, path string, i int) (wrong string, err error) {
	before := s.moves.Load()
	status, wrong, err := s.ask(client, path, s.tokens[place(before)][i], s.ada)
	if wrong == "" && err == nil && status != 200 && before%2 == 0 && before == s.moves.Load() {
		wrong = "a live session is unknown"
	}
	return wrong, err
}

// until sends a request until there is an answer.
func (s *storm) until(text string) (reply, error) {
	for range 20 {
		r, err := exchange(s.addr, text)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			return r, err
		}
		if r.status != 0 {
			return r, nil
		}
	}
	return reply{}, errNoAnswer
}

// live is a login of a new user, a check, and for every third a logout and
// another check.
func (s *storm) live(client *http.Client) (wrong string, err error) {
	s.mu.Lock()
	s.users++
	n := s.users
	s.mu.Unlock()
	user := fmt.Sprint("user-", n)
	who := s.who(appA, user)
	before := s.moves.Load()
	settled := func() bool { return before%2 == 0 && before == s.moves.Load() }

	body := appBody(s.wechat.Code(appA, user), appA)
	r, err := s.until(request(s.addr, "POST", "/wx/login", body))
	if err != nil {
		return "", err
	}
	var told session
	if r.status != 200 || json.Unmarshal([]byte(r.body), &told) != nil {
		if strings.Contains(r.body, "code_used") && !settled() {
			return "", nil // an answer was lost, and the file that would know it has gone
		}
		return "login: " + r.String(), nil
	}
	status, wrong, err := s.ask(client, "/app/new", told.Token, who)
	if wrong != "" || err != nil && !errors.Is(err, errNoAnswer) {
		return wrong, err
	}
	if status == 401 && settled() {
		return "a session just made is unknown", nil
	}
	if n%3 != 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		if settled() {
			s.held[place(before)][told.Token] = who
		} else {
			s.doubt[told.Token] = who
		}
		return "", nil
	}
	if r, err = s.until(request(s.addr, "POST", "/wx/logout", "", bearer(told.Token))); err != nil {
		return "", err
	}
	if r.status != 204 &&
		(settled() ||
			!strings.Contains(r.body, "session_invalid")) { // the other file has another key
		return "logout: " + r.String(), nil
	}
	if status, wrong, err = s.ask(client, "/app/ended", told.Token, who); wrong != "" ||
		err != nil {
		return wrong, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if settled() {
		s.ended[place(before)] = append(s.ended[place(before)], told.Token)
		if status == 200 {
			return "a session is alive after its logout", nil
		}
	}
	return "", nil
}

func (s *storm) load() *load {
	l := &load{stop: make(chan struct{})}
	for _, path := range []string{"/public/x", "/optional/x"} {
		l.run("guest at "+path, func(c *http.Client) (string, error) {
			_, wrong, err := s.ask(c, path, "", nil)
			return wrong, err
		})
	}
	for i, path := range []string{"/app/x", "/optional/x", "/app/y"} {
		l.run("user at "+path, func(c *http.Client) (string, error) { return s.check(c, path, i) })
	}
	for i := range 4 {
		l.run(fmt.Sprint("newcomers ", i), s.live)
	}
	return l
}

// move goes to the other file and waits until nobody is served from the one before.
func (s *storm) move(t *testing.T, n int) {
	t.Helper()
	from := s.moves.Add(1) - 1
	s.accept(t, s.config(n, place(from+2)))
	eventually(t, "the other file is asked", func() bool {
		for _, token := range s.tokens[place(from)] {
			if s.call(t, "GET", "/app/x", "", bearer(token)).status != 401 {
				return false
			}
		}
		return true
	})
	s.moves.Add(1)
}

// checkAll demands of every token that was told what is true of it in the file
// of the moment, and returns how many of the doubtful ones are there.
func (s *storm) checkAll(t *testing.T) (doubtful int) {
	t.Helper()
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	at := place(s.moves.Load())
	is := func(token string, who *identity) int {
		status, wrong, err := s.ask(client, "/app/z", token, who)
		if wrong != "" || err != nil {
			t.Errorf("at the end: %s, %v", wrong, err)
		}
		return status
	}
	for token, who := range s.held[at] {
		if is(token, who) != http.StatusOK {
			t.Errorf("a session of file %d is lost", at)
		}
	}
	for _, token := range s.ended[at] {
		if is(token, nil) != http.StatusUnauthorized {
			t.Errorf("an ended session of file %d is back", at)
		}
	}
	for token, who := range s.doubt {
		if is(token, who) == http.StatusOK {
			doubtful++
		}
	}
	return doubtful
}

// handles counts the process's open files of a name. Where the system does not
// tell, it says want.
func (p *process) handles(path string, want int) (n int) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	if links == nil {
		return want
	}
	for _, link := range links {
		if to, _ := os.Readlink(link); to == path {
			n++
		}
	}
	return n
}

// TestP7_ReloadUnderLoad loads sixty configurations, two in five refused for
// one reason or another and one in ten with another file, while clients check,
// log in and log out. Every answer is true of the current file, nothing is
// lost, and in the end one handle is open and no goroutine is left.
func TestP7_ReloadUnderLoad(t *testing.T) {
	slow(t)
	t.Parallel()
	const reloads = 60
	s := &storm{held: [2]map[string]*identity{{}, {}}, doubt: make(map[string]*identity)}
	s.world = newWorld(t, setup{
		apps: []string{appA, appB}, auth: mixed.auth,
		env: []string{"WX_OTHER_KEY=" + strings.Repeat("ab", 32)},
	})
	s.ada = s.who(appA, "ada")
	for at := range s.tokens {
		s.accept(t, s.config(at, at))
		for range 3 {
			s.tokens[at] = append(s.tokens[at], s.loginTo(t, appA, "ada"))
		}
	}
	s.accept(t, s.config(0, 0))
	eventually(t, "the other file is closed",
		func() bool { return s.gate.handles(s.other(), 0) == 0 })
	goroutines := s.gauge(t, "go_goroutines")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%.0f goroutines before, and now:\n%s", goroutines,
				s.adminGet(t, "/debug/pprof/goroutine?debug=1"))
		}
	})

	// Logins are under way whenever a configuration goes.
	s.wechat.Inject(
		weixintest.Fault{Kind: weixintest.FaultSlow, Delay: 50 * time.Millisecond, Times: -1})
	l := s.load()
	refused := 0
	for n := range reloads {
		enough := l.answers() + 30
		eventually(t, "clients are served", func() bool { return l.answers() >= enough })
		at := place(s.moves.Load())
		switch {
		case n%10 == 9:
			s.move(t, n)
		case n%5 == 2 || n%5 == 3:
			text, want := s.bad(refused, at)
			refused++
			if status, said := s.reload(t, text); status != 400 || !strings.Contains(said, want) {
				t.Errorf("reload %d: status %d, want one that says %q: %s", n, status, want, said)
			}
		default:
			s.accept(t, s.config(n, at))
		}
		if n%50 == 12 {
			file := s.write(t, "beside.caddyfile", s.text(s.config(n, at)))
			if status, printed := s.command(t, "validate", "--adapter", "caddyfile", "--config",
				file); status != 0 {
				t.Errorf("validate beside the gate ends with %d:\n%s", status, printed)
			}
		}
	}
	l.goesOn(t)
	l.end(t)

	there := s.checkAll(t)
	s.move(t, 1)
	there += s.checkAll(t)
	s.move(t, 0)
	t.Logf("%d and %d sessions, %d and %d ended, %d made during a move", len(s.held[0]),
		len(s.held[1]), len(s.ended[0]), len(s.ended[1]), len(s.doubt))
	if there != len(s.doubt) {
		t.Errorf("of %d sessions made during a move %d are found", len(s.doubt), there)
	}
	if len(s.held[0]) == 0 || len(s.held[1]) == 0 || len(s.ended[0]) == 0 || len(s.ended[1]) == 0 {
		t.Error("nothing is shown of one of the files")
	}
	open, closed := s.database(), s.other()
	if place(s.moves.Load()) == 1 {
		open, closed = closed, open
	}
	eventually(t, "one handle is open", func() bool {
		return s.gate.handles(open, 1) == 1 && s.gate.handles(closed, 0) == 0
	})
	eventually(t, "the goroutines are gone",
		func() bool { return s.gauge(t, "go_goroutines") <= goroutines+20 })
	for _, complaint := range []string{
		"the store is closed", "database not open", "closing what the last configuration left",
	} {
		if strings.Contains(s.out.String(), complaint) {
			t.Errorf("it was logged: %s", complaint)
		}
	}
}
