package e2e_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// attack is one row of the table: bytes as they go over the wire, and what must come of them.
//
// Words in braces are filled in: {path} a path of each kind of route in turn, {auth} nothing, a bad or a good credential in turn, {good} and {other} tokens of two users, {dead} a revoked one,
// {host} the site. A row without {path} or {auth} is sent once for the dimension that it lacks.
//
// Whatever the row expects, DESIGN.md P1 is checked on all that reaches the app: the identity of the credential or none, and no token.
type attack struct {
	name  string
	bytes string
	want  func(*testing.T, outcome) // nil: asUsual
}

// outcome is what came of one request.
type outcome struct {
	request string
	route   route
	cred    credential
	reply   reply
	app     []received // what reached the app
}

// route is a kind of route; its zero value is a required one.
type route string

const (
	required route = "required"
	optional route = "optional"
	public   route = "public"
	endpoint route = "endpoint"
)

var pathOf = map[route]string{required: "/admin", optional: "/optional/x", public: "/public/x", endpoint: "/wx/session"}

// credential is what stands in the place of {auth}.
type credential struct {
	name string
	line string    // header line, or empty
	who  *identity // whose it is; nil: nobody's
}

func (c credential) bad() bool { return c.line != "" && c.who == nil }

// arena is the gate that the attacks run against.
type arena struct {
	*world
	creds []credential
	fill  *strings.Replacer
}

func newArena(tb testing.TB, s setup) *arena {
	tb.Helper()
	w := newWorld(tb, s)
	w.wechat.SetUser(appA, "noah", weixintest.UserOptions{NoUnionID: true})
	good, other, plain, dead := w.login(tb, "ada"), w.login(tb, "bob"), w.login(tb, "noah"), w.login(tb, "eve")
	w.checkAlive(tb, dead, w.who(appA, "eve")) // into the cache
	w.post(tb, "/wx/logout", "", bearer(dead))
	bob := w.who(appA, "bob")
	if strings.Contains(s.wechat, "remember") {
		bob.phone = "13580006666"
		w.post(tb, "/wx/phone", codeBody(w.wechat.PhoneCode(appA, bob.phone)), bearer(other)).made(tb, http.StatusOK)
	}
	w.app.take()
	forged := "wxs_" + rand.Text() + rand.Text()
	return &arena{
		world: w,
		creds: []credential{
			{name: "no token"},
			{name: "malformed", line: bearer("wxs_short")},
			{name: "forged", line: bearer(forged[:45])},
			{name: "revoked", line: bearer(dead)},
			{name: "good", line: bearer(good), who: w.who(appA, "ada")},
			{name: "good, in the other header", line: "X-3rd-Session: " + other, who: bob},
			{name: "good, without unionid", line: bearer(plain), who: &identity{openid: w.wechat.OpenID(appA, "noah"), appid: appA}},
		},
		fill: strings.NewReplacer("{good}", good, "{other}", other, "{dead}", dead, "{host}", w.addr),
	}
}

// run sends every row in every form that it has.
func (a *arena) run(t *testing.T, rows []attack) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			routes, creds := []route{required, optional, public, endpoint}, a.creds
			if !strings.Contains(row.bytes, "{path}") {
				routes = []route{required}
			}
			if !strings.Contains(row.bytes, "{auth}") {
				creds = creds[:1]
			}
			for _, r := range routes {
				for _, c := range creds {
					t.Run(string(r)+"/"+c.name, func(t *testing.T) { a.send(t, row, r, c) })
				}
			}
		})
	}
}

func (a *arena) send(t *testing.T, row attack, r route, c credential) {
	line := ""
	if c.line != "" {
		line = c.line + "\r\n"
	}
	text := a.fill.Replace(strings.NewReplacer("{path}", pathOf[r], "{auth}", line).Replace(row.bytes))
	a.app.take()
	o := outcome{request: text, route: r, cred: c, reply: raw(t, a.addr, text)}
	o.app = a.app.take()
	want := row.want
	if want == nil {
		want = asUsual
	}
	want(t, o)
	for _, got := range o.app {
		allowed := c.who
		if r == public {
			allowed = nil
		}
		if strings.Contains(row.bytes, "{path}") || len(got.owned()) > 0 {
			got.check(t, allowed)
		}
		got.checkClean(t)
	}
	if t.Failed() {
		t.Logf("sent:\n%s\ngot: %s\nthe app received: %+v", tail(text, 2000), o.reply, o.app)
	}
}

// checkClean demands what holds for every request that reaches the app.
func (r received) checkClean(t *testing.T) {
	t.Helper()
	for _, line := range slices.Concat(r.Headers, r.Trailers) {
		if name, value, _ := strings.Cut(strings.ToLower(line), ":"); name == "http2-settings" || name == "connection" && strings.Contains(value, "wx") || name == "upgrade" && strings.TrimSpace(value) != "websocket" {
			t.Errorf("the app receives %q", line)
		}
	}
	if all := strings.Join(slices.Concat([]string{r.Line}, r.Headers, r.Trailers), "\n"); strings.Contains(all, "wxs_") {
		t.Errorf("the app sees a token:\n%s", all)
	}
}

// method is what the request asks for.
func (o outcome) method() string { m, _, _ := strings.Cut(o.request, " "); return m }

// asUsual: the request is treated as its path and credential deserve, as if nothing else were in it.
func asUsual(t *testing.T, o outcome) {
	t.Helper()
	switch {
	case o.route == public:
		o.reaches(t)
	case o.route == endpoint && o.method() != "GET":
		o.refused(t, http.StatusMethodNotAllowed, "invalid_request")
	case o.cred.bad():
		o.refused(t, http.StatusUnauthorized, "session_invalid")
	case o.cred.line == "" && o.route == optional:
		o.reaches(t)
	case o.cred.line == "":
		o.refused(t, http.StatusUnauthorized, "session_missing")
	case o.route == endpoint:
		o.reply.made(t, http.StatusOK)
		o.apart(t)
	default:
		o.reaches(t)
	}
}

// reaches demands that the app, and nobody else, answered one request.
func (o outcome) reaches(t *testing.T) {
	t.Helper()
	if len(o.app) != 1 || o.reply.status != http.StatusOK && o.reply.status != http.StatusSwitchingProtocols || !o.reply.fromApp() || o.reply.fromGate() {
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
	if o.method() == "HEAD" {
		o.reply.made(t, status)
		return
	}
	o.reply.problem(t, status, code)
}

// refused is an expectation: the gate says no, whoever asks.
func refused(status int, code string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) { t.Helper(); o.refused(t, status, code) }
}

var notFound = refused(http.StatusNotFound, "not_found")

// neverOpen: nothing reaches the app without a session, whoever refuses it. With one it may.
func neverOpen(t *testing.T, o outcome) {
	t.Helper()
	if o.cred.who == nil {
		o.apart(t)
		if o.reply.status/100 == 2 && o.method() != "OPTIONS" {
			t.Errorf("want a refusal")
		}
	}
	if len(o.app) > 0 {
		o.app[0].check(t, o.cred.who)
	}
}

// never: nothing reaches the app, whoever asks.
func never(t *testing.T, o outcome) { t.Helper(); o.apart(t) }

// get is a request with further lines, each ending in CR LF.
func get(lines ...string) string {
	return "GET {path} HTTP/1.1\r\nHost: {host}\r\n" + strings.Join(lines, "\r\n") + "\r\n{auth}\r\n"
}

// upload is a chunked POST with trailers.
func upload(declared string, trailers ...string) string {
	if declared != "" {
		declared = "Trailer: " + declared + "\r\n"
	}
	return "POST {path} HTTP/1.1\r\nHost: {host}\r\n{auth}Transfer-Encoding: chunked\r\n" + declared + "\r\n3\r\nabc\r\n0\r\n" + strings.Join(append(trailers, "", ""), "\r\n")
}

// TestThreat1to9_Headers runs against every kind of route with every kind of credential.
func TestThreat1to9_Headers(t *testing.T) {
	t.Parallel()
	s := mixed
	s.wechat = remembering
	newArena(t, s).run(t, slices.Concat(plainAttacks, headerAttacks(), connectionAttacks, trailerAttacks(), upgradeAttacks, credentialAttacks))
}

var plainAttacks = []attack{
	{name: "9 nothing odd", bytes: get("Accept: */*")},
	{name: "13 health checker", bytes: get("User-Agent: GoogleHC/1.0", "User-Agent: kube-probe/1.30")},
	{name: "13 WeChat's referer", bytes: get("Referer: https://servicewechat.com/"+appA+"/1/page-frame.html", "X-WX-EXCLUDE-CREDENTIALS: unionid")},
	{name: "14 OPTIONS", bytes: "OPTIONS {path} HTTP/1.1\r\nHost: {host}\r\n{auth}Origin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\n\r\n"},
	{name: "14 TRACE", bytes: "TRACE {path} HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n"},
	{name: "14 HEAD", bytes: "HEAD {path} HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n", want: func(t *testing.T, o outcome) {
		if o.route == endpoint {
			o.refused(t, http.StatusMethodNotAllowed, "invalid_request")
			return
		}
		asUsual(t, o)
	}},
	{name: "14 method of one's own", bytes: "WX-LOGIN {path} HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n"},
	{name: "method override", bytes: get("X-HTTP-Method-Override: POST", "X-Method: POST")},
	{name: "HTTP/1.0", bytes: "GET {path} HTTP/1.0\r\nX-WX-OPENID: victim\r\n{auth}\r\n"},
	{name: "11 query", bytes: "GET {path}?x=/public/&y=/../public/x HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n"},
	{name: "11 absolute form", bytes: "GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n"},
	{name: "11 absolute form, other host", bytes: "GET https://evil.example{path} HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n"},
}

// headerAttacks are THREATS.md 1, 2 and 6: the same forgery in every spelling.
func headerAttacks() (rows []attack) {
	for _, name := range []string{
		"X-WX-OPENID", "X-Wx-Openid", "x-wx-openid", "X-WX-UNIONID", "X-WX-APPID", "X-WX-SOURCE", "X-WX-FROM-OPENID", "X-WX-CLOUDBASE-ACCESS-TOKEN", "X-WX-", "X-WX-PHONE", "x-wx-phone",
		"X_WX_OPENID", "X.WX.OPENID", "X-Wx_Openid", "X~Wx~Openid", "X-Wx!Openid", "X|Wx|Openid", "X-Wx'Openid", "X+WX+UNIONID", "x^wx^appid", "X`WX`SOURCE", "X_WX-OPENID", "X*Wx*Openid", "X#WX$OPENID", "X%WX&OPENID",
		"X_WX_PHONE", "X.WX.PHONE", "X-Wx_Phone", "X~Wx~Phone", "X!WX!phone",
	} {
		rows = append(rows, attack{name: "1, 2 " + name, bytes: get(name + ": victim")})
	}
	rows = append(rows, []attack{
		{name: "1 twice", bytes: get("X-WX-OPENID: victim", "x-wx-openid: victim2")},
		{name: "1 empty", bytes: get("X-WX-OPENID:", "X-WX-UNIONID: ")},
		{name: "1 all of them", bytes: get("X-WX-OPENID: v", "X-WX-UNIONID: v", "X-WX-APPID: v", "X-WX-SOURCE: v", "X_WX_OPENID: v", "X~WX~OPENID: v", "X-WX-PHONE: v", "X~WX~PHONE: v")},
		{name: "1 list", bytes: get("X-WX-OPENID: victim, victim2")},
		{name: "1 placeholder", bytes: get("X-WX-OPENID: {http.request.header.X-3rd-Session}")},
		{name: "1 with a blank before the colon", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-WX-OPENID : victim\r\n{auth}\r\n", want: never},
		{name: "1 folded line", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-A: b\r\n X-WX-OPENID: victim\r\n{auth}\r\n"},
		{name: "1 bare CR", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-A: b\rX-WX-OPENID: victim\r\n{auth}\r\n", want: never},
		{name: "1 bare LF", bytes: "GET {path} HTTP/1.1\nHost: {host}\nX-WX-OPENID: victim\n{auth}\n"},
		{name: "6 original URL", bytes: get("X-Original-URL: /public/x", "X-Rewrite-URL: /public/x", "X-Forwarded-Uri: /public/x", "X-Forwarded-Path: /public/x", "X_Original_URL: /public/x")},
		{name: "6 forwarded", bytes: get("X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: x", "X-Forwarded-Proto: https", "Forwarded: for=127.0.0.1;host=x", "X-Real-IP: 127.0.0.1", "X_Forwarded_For: 127.0.0.1")},
		{name: "6 forwarded user", bytes: get("X-Forwarded-User: victim", "Remote-User: victim", "X-Forwarded-Prefix: /public")},
	}...)
	return rows
}

// connectionAttacks are THREATS.md 3.
var connectionAttacks = []attack{
	{name: "3 closes and removes", bytes: get("Connection: close, X-Wx-Openid")},
	{name: "3 removes all", bytes: get("Connection: X-WX-OPENID, x-wx-unionid,X-Wx-Appid ,X-WX-Source, X-Wx-Phone")},
	{name: "3 several lines", bytes: get("Connection: keep-alive", "Connection: X-Wx-Openid", "connection: x-wx-appid")},
	{name: "3 odd case", bytes: get("cOnNeCtIoN: x-WX-oPENID")},
	{name: "3 odd blanks", bytes: get("Connection:\t ,, X-Wx-Openid\t,,")},
	{name: "3 aliases", bytes: get("Connection: X_WX_OPENID, X.WX.OPENID")},
	{name: "3 other names", bytes: get("Connection: Authorization, X-3rd-Session, X-Forwarded-For, Host, Content-Length")},
	{name: "3 misspelt header", bytes: get("Connection!: X-Wx-Openid", "Proxy-Connection: X-Wx-Openid", "Keep-Alive: X-Wx-Openid", "TE: X-Wx-Openid")},
	{name: "3 upgrade and remove", bytes: get("Connection: Upgrade, X-Wx-Openid", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")},
	{name: "3 upgrade on a second line", bytes: get("Connection: X-Wx-Openid", "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")},
}

// trailerAttacks are THREATS.md 4.
func trailerAttacks() (rows []attack) {
	for _, name := range []string{"X-WX-OPENID", "x-wx-openid", "X_WX_OPENID", "X~Wx~Unionid", "X-Wx-Anything", "Authorization", "X-3rd-Session"} {
		for _, declared := range []string{name, "X-Checksum, " + name, name + "\r\nTrailer: X-Checksum"} {
			rows = append(rows, attack{name: "4 declared " + declared, bytes: upload(declared, "X-Checksum: 1", name+": wxs_victim"), want: refused(http.StatusBadRequest, "invalid_request")})
		}
		rows = append(
			rows,
			attack{name: "4 undeclared " + name, bytes: upload("", name+": wxs_victim")},
			attack{name: "4 behind another " + name, bytes: upload("X-Checksum", "X-Checksum: 1", name+": wxs_victim"), want: func(t *testing.T, o outcome) {
				asUsual(t, o)
				for _, r := range o.app {
					if len(r.Trailers) != 1 || strings.ToLower(r.Trailers[0]) != "x-checksum: 1" {
						t.Errorf("the app receives the trailers %q, want the declared one", r.Trailers)
					}
				}
			}},
		)
	}
	return append(rows, attack{name: "4 declared without chunks", bytes: get("Trailer: X-Wx-Openid"), want: refused(http.StatusBadRequest, "invalid_request")})
}

// upgradeAttacks are THREATS.md 5.
var upgradeAttacks = []attack{
	{name: "5 h2c", bytes: get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")},
	{name: "5 h2c, odd case", bytes: get("connection: upgrade,http2-settings", "UPGRADE: H2C", "http2_settings: AAMAAABkAARAAAAAAAIAAAAA", "Http2-Settings: AAMAAABkAARAAAAAAAIAAAAA")},
	{name: "5 websocket and h2c", bytes: get("Connection: Upgrade", "Upgrade: websocket, h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")},
	{name: "5 two upgrades", bytes: get("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c")},
	{name: "5 TLS", bytes: get("Connection: Upgrade", "Upgrade: TLS/1.0")},
	{name: "5 websocket by POST", bytes: "POST {path} HTTP/1.1\r\nHost: {host}\r\n{auth}Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"},
	{name: "5 HTTP/2 without TLS", bytes: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", want: never},
}

// credentialAttacks are THREATS.md 8.
var credentialAttacks = []attack{
	{name: "8 header twice", bytes: get("X-3rd-Session: {good}", "X-3rd-Session: {other}"), want: ambiguous},
	{name: "8 header and bearer", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-3rd-Session: {good}\r\nAuthorization: Bearer {other}\r\n\r\n", want: ambiguous},
	{name: "8 good and dead", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-3rd-Session: {good}\r\nAuthorization: Bearer {dead}\r\n\r\n", want: ambiguous},
	{name: "8 good and junk", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-3rd-Session: junk\r\nAuthorization: Bearer {good}\r\n\r\n", want: ambiguous},
	{name: "8 bearer twice", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {good}\r\nAuthorization: Bearer {other}\r\n\r\n", want: ambiguous},
	{name: "token in a misspelt header", bytes: get("X_3rd_Session: {good}", "X~3rd~Session: {good}", "X.3rd.Session: {good}")},
}

func ambiguous(t *testing.T, o outcome) {
	t.Helper()
	if o.route == public {
		o.reaches(t)
		return
	}
	o.refused(t, http.StatusBadRequest, "ambiguous_credentials")
}

// TestThreat8_TheSameTokenTwice is one token.
func TestThreat8_TheSameTokenTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mixed)
	token := w.login(t, "ada")
	w.call(t, "GET", "/x", "", bearer(token), "X-3rd-Session: "+token, bearer(token)).received(t).check(t, w.who(appA, "ada"))
}

// TestThreat2_ReallowedNames: an operator may let `_` and `.` through Caddy; then the gate alone stands against them.
func TestThreat2_ReallowedNames(t *testing.T) {
	t.Parallel()
	s := mixed
	s.options = "\tservers {\n\t\texpected_underscore_headers X_WX_OPENID X_WX_UNIONID\n\t\texpected_dot_headers X.WX.OPENID\n\t}"
	newArena(t, s).run(t, slices.Concat(headerAttacks(), connectionAttacks))
}

// TestThreat7_OwnNames: with names of the operator's choice the same holds for them, and still for the usual ones.
func TestThreat7_OwnNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{auth: "\t\tpublic /public/*\n\t\ttoken header X-Token\n\t\theaders {\n\t\t\topenid My-User\n\t\t\tunionid My-Union\n\t\t\tappid My-App\n\t\t\tsource My-Source\n\t\t}"})
	token := w.login(t, "ada")
	forged := []string{"my_user: victim", "MY-UNION: victim", "My~App: victim", "X-WX-OPENID: victim", "Connection: My-User", "My.Source: victim"}
	r := w.call(t, "GET", "/x", "", append(forged, "X-Token: "+token)...).received(t)
	who := w.who(appA, "ada")
	for name, want := range map[string]string{"my-user": who.openid, "my-union": who.unionid, "my-app": appA, "my-source": "wx_client"} {
		if got := r.values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	r.check(t, nil)
	public := w.call(t, "GET", "/public/x", "", append(forged, "X-Token: "+token)...).received(t)
	if all := strings.Join(append(r.Headers, public.Headers...), "\n"); strings.Contains(all, "victim") {
		t.Errorf("a forgery reaches the app:\n%s", all)
	}
	public.check(t, nil)
	// The usual carriers count no more.
	w.call(t, "GET", "/x", "", bearer(token)).problem(t, http.StatusUnauthorized, "session_missing")
	w.call(t, "GET", "/x", "", "X-3rd-Session: "+token).problem(t, http.StatusUnauthorized, "session_missing")
	for _, name := range []string{"Connection", "Host", "Cookie", "Content-Length", "no token", "X-3rd_Session"} {
		s := w.setup
		s.auth = fmt.Sprintf("\t\theaders {\n\t\t\topenid %q\n\t\t}", name)
		if status, said := w.reload(t, w.caddyfile(s)); status == http.StatusOK || !strings.Contains(said, "Caddyfile:") {
			t.Errorf("the header name %q is answered with %d %s", name, status, said)
		}
	}
}
