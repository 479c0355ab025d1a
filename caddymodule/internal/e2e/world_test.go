package e2e_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	appA = "wx0123456789abcdef"
	appB = "wxfedcba9876543210"

	exchangePath = "/sns/jscode2session"
)

// setup says how a world differs from the least that works: one mini program,
// one site in front of one app.
type setup struct {
	apps    []string // mini programs; default: appA
	options string   // lines of the global options
	wechat  string   // lines of the global option wechat
	base    string   // URL of another WeChat than the simulator
	timeout string   // of calls of WeChat; default: 2s
	auth    string   // lines of wechat_auth
	site    string   // lines of the site, before wechat_auth; {app} is the app's address
	sites   string   // whole sites beside the first
	env     []string // further environment

	components []weixintest.Component // third-party platforms of WeChat
	merchants  []string               // mini programs that have no line in the Caddyfile
}

// complete fills in the defaults.
func (s setup) complete() setup {
	if len(s.apps) == 0 {
		s.apps = []string{appA}
	}
	s.timeout = cmp.Or(s.timeout, "2s")
	return s
}

// world is a gate with WeChat behind it, an app in front of it, and a home for
// its data.
type world struct {
	setup
	wechat *weixintest.Server
	app    *app
	addr   string // of the site
	admin  string
	home   string
	out    *output // of all its processes
	gate   *process

	reloaded *atomic.Int64 // when a configuration was last loaded, in Unix nanoseconds
}

// newWorld starts a world and waits until its gate serves.
func newWorld(tb testing.TB, s setup) *world {
	tb.Helper()
	w := prepareWorld(tb, s)
	w.start(tb)
	return w
}

// prepareWorld makes all of a world but the gate's process.
func prepareWorld(tb testing.TB, s setup) *world {
	tb.Helper()
	s = s.complete()
	secrets := make(map[string]string)
	for _, id := range s.apps {
		secrets[id] = secretOf(id)
	}
	for _, id := range s.merchants {
		secrets[id] = secretOf(id)
	}
	w := &world{
		setup: s, reloaded: new(atomic.Int64), home: tb.TempDir(), out: new(output),
		app: newApp(tb), addr: freeAddr(tb), admin: freeAddr(tb),
		wechat: weixintest.NewServer(weixintest.Config{
			Apps: secrets, Components: s.components,
		}),
	}
	tb.Cleanup(w.wechat.Close)
	return w
}

func secretOf(appID string) string { return "canary-appsecret-of-" + appID }

// environ names the secrets as the Caddyfile does: WX_SECRET_0 and so on.
func (w *world) environ() []string {
	env := w.env
	for i, id := range w.apps {
		env = append(env, fmt.Sprintf("WX_SECRET_%d=%s", i, secretOf(id)))
	}
	return env
}

// caddyfile writes a setup out, which may be another than the world's own.
func (w *world) caddyfile(s setup) string {
	s = s.complete()
	var b strings.Builder
	fmt.Fprintf(&b, "{\n\tadmin %s\n%s\n\twechat {\n", w.admin, s.options)
	for i, id := range s.apps {
		fmt.Fprintf(&b, "\t\tapp %s {env.WX_SECRET_%d}\n", id, i)
	}
	fmt.Fprintf(&b, "\t\tapi {\n\t\t\tbase_url %s\n\t\t\ttimeout %s\n\t\t}\n%s\n\t}\n}\n\n",
		cmp.Or(s.base, w.wechat.URL), s.timeout, s.wechat)
	site := strings.ReplaceAll(s.site, "{app}", w.app.addr)
	lines := site + "\n\twechat_auth {\n" + s.auth + "\n\t}\n\treverse_proxy " + w.app.addr
	return b.String() + siteAt(w.addr, lines) + s.sites + "\n"
}

// siteAt is a site of plain HTTP at an address.
func siteAt(addr, lines string) string {
	return fmt.Sprintf("http://:%s {\n\tbind 127.0.0.1\n%s\n}\n", portOf(addr), lines)
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// start runs the gate on the world's own setup.
func (w *world) start(tb testing.TB) {
	tb.Helper()
	w.run(tb, "--adapter", "caddyfile", "--config", w.write(tb, "Caddyfile", w.caddyfile(w.setup)))
}

// run runs the gate and waits until it serves.
func (w *world) run(tb testing.TB, args ...string) {
	tb.Helper()
	from := w.out.Len()
	w.gate = w.launch(tb, append([]string{"run"}, args...)...)
	w.gate.printed(tb, from, "serving initial configuration")
}

// launch runs a command of the product in the world's home.
func (w *world) launch(tb testing.TB, args ...string) *process {
	tb.Helper()
	return launch(tb, w.out, w.home, w.environ(), args...)
}

// command runs a command to its end, with an output of its own.
func (w *world) command(tb testing.TB, args ...string) (status int, printed string) {
	tb.Helper()
	out := new(output)
	return launch(tb, out, w.home, w.environ(), args...).wait(tb), out.String()
}

func (w *world) write(tb testing.TB, name, text string) string {
	tb.Helper()
	path := filepath.Join(w.home, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// reload loads a Caddyfile.
func (w *world) reload(tb testing.TB, caddyfile string) (status int, said string) {
	tb.Helper()
	return w.load(tb, "text/caddyfile", caddyfile)
}

// load loads a configuration through the admin API, even if it is the same, and
// returns the status and what was said. Caddy may drop a connection to the endpoint
// that it is just replacing, so a load without an answer is repeated.
func (w *world) load(tb testing.TB, contentType, config string) (status int, said string) {
	tb.Helper()
	r, err := reply{}, error(nil)
	// The endpoint that a reload replaces may reset a connection that it has not taken.
	for try := 0; r.status == 0 && try < 5; try++ {
		r, err = exchange(w.admin, request(w.admin, "POST", "/load", config,
			"Content-Type: "+contentType, "Cache-Control: must-revalidate"))
	}
	if r.status == 0 {
		tb.Fatalf("reloading: %v", err)
	}
	w.reloaded.Store(time.Now().UnixNano())
	return r.status, r.body
}

// mustReload loads a setup that must be accepted.
func (w *world) mustReload(tb testing.TB, s setup) {
	tb.Helper()
	if status, said := w.reload(tb, w.caddyfile(s)); status != 200 {
		tb.Fatalf("reloading: status %d: %s", status, said)
	}
}

// adminGet reads something of the admin API.
func (w *world) adminGet(tb testing.TB, path string) string {
	tb.Helper()
	resp, err := http.Get("http://" + w.admin + path)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// metrics returns the gate's own series by name and labels.
func (w *world) metrics(tb testing.TB) map[string]float64 {
	tb.Helper()
	m := make(map[string]float64)
	sc := bufio.NewScanner(strings.NewReader(w.adminGet(tb, "/metrics")))
	for sc.Scan() {
		series, value, ok := strings.Cut(sc.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil &&
			strings.HasPrefix(series, "caddy_wechat_") {
			m[series] = v
		}
	}
	return m
}

// call sends one request on a connection of its own. The headers are whole lines.
func (w *world) call(tb testing.TB, method, target, body string, headers ...string) reply {
	tb.Helper()
	text := request(w.addr, method, target, body, headers...)
	r := raw(tb, w.addr, text)
	// Caddy drops a connection now and then while it replaces a listener, with
	// or without a gate. A login that was heard all the same is answered again.
	for try := 0; r.status == 0 && try < 5 &&
		time.Since(time.Unix(0, w.reloaded.Load())) < 2*time.Second; try++ {
		r = raw(tb, w.addr, text)
	}
	return r
}

func request(host, method, target, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", method, target, host)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if body != "" || method == "POST" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	return b.String() + "\r\n" + body
}

// post sends a body to an endpoint of the gate.
func (w *world) post(tb testing.TB, target, body string, headers ...string) reply {
	tb.Helper()
	return w.call(tb, "POST", target, body,
		append([]string{"Content-Type: application/json"}, headers...)...)
}

// session is the answer of a login.
type session struct {
	Token        string `json:"3rd_session"`
	ExpiresIn    int64  `json:"expires_in"`
	UnionIDBound bool   `json:"unionid_bound"`
}

// tryLogin logs a user of appA in with a new code.
func (w *world) tryLogin(tb testing.TB, user string, headers ...string) reply {
	tb.Helper()
	return w.post(tb, "/wx/login", codeBody(w.wechat.Code(appA, user)), headers...)
}

// login logs a user of appA in, which must succeed, and returns the token.
func (w *world) login(tb testing.TB, user string, headers ...string) string {
	tb.Helper()
	return w.tryLogin(tb, user, headers...).session(tb).Token
}

func codeBody(code string) string { return fmt.Sprintf(`{"code":%s}`, quote(code)) }

// appBody is codeBody for one of several mini programs.
func appBody(code, appID string) string {
	return fmt.Sprintf(`{"code":%s,"appid":%s}`, quote(code), quote(appID))
}

// together begins n exchanges at once, and returns how to wait for the answers.
func together(tb testing.TB, n int, text func(i int) (addr, request string)) func() []reply {
	tb.Helper()
	replies := make([]reply, n)
	var all sync.WaitGroup
	for i := range n {
		addr, request := text(i)
		all.Go(func() {
			var err error
			if replies[i], err = exchange(addr, request); err != nil {
				tb.Error(err)
			}
		})
	}
	return func() []reply { all.Wait(); return replies }
}

// quote makes a JSON string of any text.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// who is the identity that the app must be told of a user.
func (w *world) who(appID, user string) *identity {
	return &identity{
		openid: w.wechat.OpenID(appID, user), unionid: w.wechat.UnionID(user), appid: appID,
	}
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// checkAlive demands that a token opens the app as the user given.
func (w *world) checkAlive(tb testing.TB, token string, want *identity) {
	tb.Helper()
	r := w.call(tb, "GET", "/alive", "", bearer(token))
	if r.status != 200 || r.fromGate() {
		tb.Errorf("a good token is answered with %s", r)
		return
	}
	r.received(tb).check(tb, want)
}

// checkDead demands that a token opens nothing.
func (w *world) checkDead(tb testing.TB, token string) {
	tb.Helper()
	w.call(tb, "GET", "/dead", "", bearer(token)).problem(tb, 401, "session_invalid")
}
