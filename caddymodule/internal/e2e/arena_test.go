package e2e_test

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// attack is one request of the attack table, and the answer that it must have.
//
// Its words in braces are those of the probe's table; {good} and {other} are
// tokens of two users, {dead} is a revoked one. The arena sends a row with
// {target} to every kind of route, and one with {auth} with every kind of
// credential. Whatever the row expects, the arena checks P1 on all that reaches
// the app: the identity of the credential or none, and no token.
type attack struct {
	probe.Attack
	want     func(*testing.T, outcome) // nil: asUsual
	fields   string                    // of HTTP/2, one a line, where Bytes cannot say it
	harmless []string                  // names that an app may see, folded
}

// has reports whether a row has a word. The rows that the probe can send over
// HTTP/2 only have all.
func (r attack) has(word string) bool {
	return strings.Contains(r.Bytes+r.fields, word) || r.Bytes+r.fields == ""
}

// rowOf is a row that the probe's table does not have.
func rowOf(name, bytes string, want func(*testing.T, outcome)) attack {
	return attack{Attack: probe.Attack{Name: name, Bytes: bytes}, want: want}
}

// get is an ordinary request with further lines.
func get(lines ...string) string {
	return "GET {target} HTTP/1.1\r\nHost: {host}\r\n{auth}" + strings.Join(append(lines, "", ""),
		"\r\n")
}

// getAt is an ordinary request for a target.
func getAt(target string) string { return strings.Replace(get(), "{target}", target, 1) }

// outcome is the result of one request.
type outcome struct {
	method string
	route  route
	cred   credential
	reply  reply
	app    []received // what reached the app
}

// route is a kind of route.
type route string

const (
	required route = "/admin"
	optional route = "/optional/x"
	public   route = "/public/x"
	endpoint route = "/wx/session"
)

// credential stands in the place of {auth}.
type credential struct {
	name string
	line string    // header line, or empty
	who  *identity // whose it is; nil: nobody's
}

func (c credential) bad() bool { return c.line != "" && c.who == nil }

// wire is a way to speak HTTP with the gate.
type wire string

const (
	http11 wire = "HTTP/1.1"
	http10 wire = "HTTP/1.0"
	h2c    wire = "h2c"
	h2TLS  wire = "HTTP/2 over TLS"
)

// arena is a gate under attack.
type arena struct {
	*world
	wire   wire
	tls    *tls.Config
	target string      // address for the wire
	conn   *probe.Conn // of HTTP/2, kept from one request to the next while it holds

	none, malformed, forged, revoked, good, other, plain credential
	token                                                string // of good
	tokens                                               *strings.Replacer
}

func newArena(tb testing.TB, s setup) *arena {
	tb.Helper()
	w := newWorld(tb, s)
	w.wechat.SetUser(appA, "noah", weixintest.UserOptions{NoUnionID: true})
	good, other := w.login(tb, "ada"), w.login(tb, "bob")
	plain, dead := w.login(tb, "noah"), w.login(tb, "eve")
	w.checkAlive(tb, dead, w.who(appA, "eve")) // into the cache
	w.post(tb, "/wx/logout", "", bearer(dead))
	bob := w.who(appA, "bob")
	if strings.Contains(s.wechat, "remember") {
		bob.phone = "13580006666"
		code := w.wechat.PhoneCode(appA, bob.phone)
		w.post(tb, "/wx/phone", codeBody(code), bearer(other)).made(tb, 200)
	}
	w.app.take()
	noah := &identity{openid: w.wechat.OpenID(appA, "noah"), appid: appA}
	return &arena{
		world: w, wire: http11, target: w.addr,
		none:      credential{name: "no token"},
		malformed: credential{name: "malformed", line: bearer("wxs_short")},
		forged: credential{
			name: "forged", line: bearer("wxs_" + (rand.Text() + rand.Text())[:41]),
		},
		revoked: credential{name: "revoked", line: bearer(dead)},
		good:    credential{name: "good", line: bearer(good), who: w.who(appA, "ada")},
		other: credential{
			name: "in the other header", line: "X-3rd-Session: " + other, who: bob,
		},
		plain:  credential{name: "without unionid", line: bearer(plain), who: noah},
		token:  good,
		tokens: strings.NewReplacer("{good}", good, "{other}", other, "{dead}", dead),
	}
}

// newArenaOver2 is an arena that speaks HTTP/2.
func newArenaOver2(t *testing.T, over wire, env ...string) *arena {
	t.Helper()
	s := mixed
	s.env = env
	if over == h2c {
		s.options = "\tservers {\n\t\tprotocols h1 h2c\n\t}"
		a := newArena(t, s)
		a.wire = h2c
		return a
	}
	a := newArena(t, s)
	a.wire, a.target = over, freeAddr(t)
	s.options = "\tskip_install_trust\n\tauto_https disable_redirects\n" +
		"\tservers {\n\t\tprotocols h1 h2\n\t}"
	s.sites = fmt.Sprintf("https://localhost:%[1]s, https://:%[1]s {\n\tbind 127.0.0.1\n"+
		"\ttls internal\n\twechat_auth {\n%s\n\t}\n\treverse_proxy %s\n}",
		portOf(a.target), s.auth, a.app.addr)
	a.mustReload(t, s)
	a.tls = a.certified(t, a.target)
	return a
}

// certified waits until a site with a certificate of its own serves HTTP/2.
func (w *world) certified(tb testing.TB, addr string) *tls.Config {
	tb.Helper()
	c := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"h2"}}
	eventually(tb, "the certificate is there", func() bool {
		conn, err := dialH2(addr, c)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return c
}

// overHTTP2 runs a test over both ways to speak HTTP/2.
func overHTTP2(t *testing.T, test func(*testing.T, *arena), env ...string) {
	for _, over := range []wire{h2c, h2TLS} {
		t.Run(string(over), func(t *testing.T) {
			if over == h2c {
				slow(t)
			}
			t.Parallel()
			test(t, newArenaOver2(t, over, env...))
		})
	}
}

// run sends rows. Over HTTP/1.1 each kind of route meets each credential that it
// can tell from others; the other wires make do with one of a kind.
func (a *arena) run(t *testing.T, rows []attack) {
	t.Helper()
	full := map[route][]credential{
		required: {a.none, a.malformed, a.revoked, a.good, a.other},
		optional: {a.none, a.forged, a.plain},
		public:   {a.none, a.good},
		endpoint: {a.none, a.good},
	}
	if a.wire != http11 {
		full = map[route][]credential{
			required: {
				a.revoked, a.good,
			}, optional: {a.none, a.plain}, public: {a.other}, endpoint: {a.none},
		}
	}
	for _, r := range rows {
		t.Run(r.Name, func(t *testing.T) {
			pairs := full
			if !r.has("{target}") {
				pairs = map[route][]credential{
					required: {a.none, a.malformed, a.revoked, a.good, a.plain},
				}
			}
			for at, creds := range pairs {
				if !r.has("{auth}") {
					creds = creds[:1]
				}
				for _, c := range creds {
					a.send(t, r, at, c)
				}
			}
		})
	}
}

// words fills in a template. token is a good one.
func words(host, token string, at route, c credential) *strings.Replacer {
	line := ""
	if c.line != "" {
		line = c.line + "\r\n"
	}
	return strings.NewReplacer(
		"{target}", string(at), "{query}", "q=1", "{host}", host, "{id}", "", "{auth}", line,
		"{changed}", bearer(token[:20]+strings.Map(otherLetter, token[20:21])+token[21:])+"\r\n",
		"{forged}", "victim", "{settings}", "AAMAAABkAARAAAAAAAIAAAAA",
		"{open}", "/public", "{shut}", "/admin", "{own}", "/wx",
	)
}

func otherLetter(c rune) rune {
	if c == 'a' {
		return 'b'
	}
	return 'a'
}

// send sends a row once and checks the outcome.
func (a *arena) send(t *testing.T, r attack, at route, c credential) {
	t.Helper()
	words := words(a.addr, a.token, at, c)
	text := a.tokens.Replace(words.Replace(r.Bytes))
	o := outcome{route: at, cred: c}
	var s probe.Stream
	malformed := false // for net/http, before the gate
	a.app.take()
	if a.wire == h2c || a.wire == h2TLS {
		s = r.OverHTTP2(words, "https")
		if r.fields != "" {
			s = streamOf(words.Replace(r.fields))
		}
		o.method, malformed = methodOf(s), malformedStream(s)
		o.reply = a.ask(t, s)
	} else {
		if a.wire == http10 {
			text = strings.Replace(text, " HTTP/1.1\r\n", " HTTP/1.0\r\n", 1)
		}
		o.method, _, _ = strings.Cut(text, " ")
		malformed = malformedText(text)
		o.reply = raw(t, a.target, text)
	}
	o.app = a.app.take()
	before := t.Failed()
	switch {
	case malformed:
		o.apart(t)
	case r.want != nil:
		r.want(t, o)
	default:
		asUsual(t, o)
	}
	who := c.who
	if at == public {
		who = nil
	}
	for _, got := range o.app {
		// Where error routes ask the app for a request that the gate never saw, it
		// is nobody's. HTTP/2 has no such request.
		unseen := r.Threat == 35 && len(got.owned()) == 0
		if !unseen && (r.has("{target}") || len(got.owned()) > 0) {
			got.check(t, who)
		}
		got.checkClean(t)
	}
	if t.Failed() && !before {
		t.Logf("to %s with %s, sent:\n%q%v\ngot: %s\nthe app received: %+v",
			at, c.name, tail(text, 2000), s, o.reply, o.app)
	}
}

// ask sends one request over HTTP/2. Requests share a connection while it holds:
// nothing of one may show in the next. A server that answers before it has read
// all of a request closes the connection over the rest, and the answer may be
// lost with it.
func (a *arena) ask(t *testing.T, s probe.Stream) (r reply) {
	t.Helper()
	for range 3 {
		if a.conn == nil || a.conn.Broken {
			if a.conn != nil {
				a.conn.Close()
			}
			var err error
			if a.conn, err = dialH2(a.target, a.tls); err != nil {
				t.Fatal(err)
			}
		}
		if r = askH2(t, a.conn, s); r.status != 0 || !a.conn.Broken {
			break
		}
	}
	return r
}

// checkClean demands what holds for every request that reaches the app.
func (r received) checkClean(t *testing.T) {
	t.Helper()
	for _, line := range slices.Concat(r.Headers, r.Trailers) {
		name, value, _ := strings.Cut(strings.ToLower(line), ":")
		switch value = strings.TrimSpace(value); {
		case name == "http2-settings", name == "connection" && strings.Contains(value, "wx"),
			name == "upgrade" && value != "websocket":
			t.Errorf("the app receives %q", line)
		}
	}
	if strings.Count(r.Line, " ") != 2 {
		t.Errorf("the app is asked %q", r.Line)
	}
	if hosts := r.Values("Host"); len(hosts) != 1 {
		t.Errorf("the app is told the hosts %q", hosts)
	}
	r.checkTokenless(t)
}

// asUsual: the request is treated as its path and credential deserve, as if
// nothing else were in it.
func asUsual(t *testing.T, o outcome) {
	t.Helper()
	switch {
	case o.route == public:
		o.reaches(t)
	case o.route == endpoint && o.method != "GET":
		o.refused(t, 405, "invalid_request")
	case o.cred.bad():
		o.refused(t, 401, "session_invalid")
	case o.cred.line == "" && o.route == optional:
		o.reaches(t)
	case o.cred.line == "":
		o.refused(t, 401, "session_missing")
	case o.route == endpoint:
		o.reply.made(t, 200)
		o.apart(t)
	default:
		o.reaches(t)
	}
}

// reaches demands that the app, and nobody else, answered one request.
func (o outcome) reaches(t *testing.T) {
	t.Helper()
	answered := o.reply.status == 200 || o.reply.status == http.StatusSwitchingProtocols
	if len(o.app) != 1 || !answered || !o.reply.fromApp() || o.reply.fromGate() {
		t.Errorf("want an answer of the app")
	}
}

// apart demands that the app heard nothing.
func (o outcome) apart(t *testing.T) {
	t.Helper()
	if len(o.app) != 0 || o.reply.fromApp() {
		t.Errorf("want nothing to reach the app")
	}
}

func (o outcome) refused(t *testing.T, status int, code string) {
	t.Helper()
	o.apart(t)
	if o.method == "HEAD" {
		o.reply.made(t, status)
		return
	}
	o.reply.problem(t, status, code)
}

// refused is an expectation: the gate says no, whoever asks.
func refused(status int, code string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) { t.Helper(); o.refused(t, status, code) }
}

var notFound = refused(404, "not_found")

// neverOpen: nothing reaches the app without a session, whoever refuses it. With
// one it may.
func neverOpen(t *testing.T, o outcome) {
	t.Helper()
	if o.cred.who == nil {
		o.apart(t)
		if o.reply.status/100 == 2 && o.method != "OPTIONS" {
			t.Errorf("want a refusal")
		}
	}
	if len(o.app) > 0 {
		o.app[0].check(t, o.cred.who)
	}
}

// never: nothing reaches the app, whoever asks.
func never(t *testing.T, o outcome) { t.Helper(); o.apart(t) }

// opened: the target is a public one.
func opened(t *testing.T, o outcome) {
	t.Helper()
	o.reaches(t)
	for _, r := range o.app {
		r.check(t, nil)
	}
}

// guarded: the target needs a session, and with one it reaches the app as it was
// written.
func guarded(t *testing.T, o outcome) {
	t.Helper()
	asUsual(t, o)
	for _, r := range o.app {
		r.check(t, o.cred.who)
	}
}

func ambiguous(t *testing.T, o outcome) {
	t.Helper()
	if o.route == public {
		o.reaches(t)
		return
	}
	o.refused(t, 400, "ambiguous_credentials")
}
