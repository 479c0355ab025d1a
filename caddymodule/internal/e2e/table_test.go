package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

// table is the probe's table with the answer that each row must have. The probe
// sends some rows over HTTP/2 as well; here the arena decides that.
func table() (rows []attack) {
	config := probe.Config{
		Identity: probe.DefaultIdentity, Public: "/public", Endpoints: "/wx",
		Credential: []string{bearer("wxs_")},
	}
	for _, a := range probe.Table(config, "/admin") {
		if !a.Over2 || a.Bytes == "" {
			rows = append(rows, attack{Attack: a, want: expected(a)})
		}
	}
	return rows
}

// expected is the answer to a row. The arena sends a row of the probe's guests
// with every credential, so neverOpen stands for "not without a session".
func expected(a probe.Attack) func(*testing.T, outcome) {
	switch {
	case a.Threat == 4 && strings.HasPrefix(a.Name, "undeclared"):
		return asUsual
	case a.Threat == 4:
		return refused(400, "invalid_request")
	case a.Threat == 5 && a.Bytes == "":
		return never
	case a.Threat == 8:
		return func(t *testing.T, o outcome) {
			t.Helper()
			if o.cred.line == "" {
				oneBad(t, o)
				return
			}
			ambiguous(t, o)
		}
	case a.Threat == 9:
		return oneBad
	case a.Threat == 10, a.Threat == 11:
		return neverOpen
	case a.Threat == 12 && a.Name == "/wx/login":
		return refused(405, "invalid_request")
	case a.Threat == 12:
		return notFound
	case a.Threat == 35:
		return anything
	}
	return asUsual
}

// anything leaves the answer to the server, and what the app is told to the arena.
func anything(*testing.T, outcome) {}

// oneBad: a credential that is not good is all there is.
func oneBad(t *testing.T, o outcome) {
	t.Helper()
	if o.route == public {
		o.reaches(t)
		return
	}
	o.refused(t, 401, "session_invalid")
}

// only keeps the rows of some threats.
func only(rows []attack, threats ...int) []attack {
	return slices.DeleteFunc(rows,
		func(r attack) bool { return !slices.Contains(threats, r.Threat) })
}

// malformedText reports whether net/http refuses a request of HTTP/1 for its
// header lines.
func malformedText(text string) bool {
	head, _, _ := strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n")
	for i, line := range strings.Split(head, "\n") {
		if i == 0 || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !httpguts.ValidHeaderFieldName(name) ||
			!httpguts.ValidHeaderFieldValue(strings.TrimSpace(value)) {
			return true
		}
	}
	return false
}

// malformedStream reports whether HTTP/2 has no such field.
func malformedStream(s probe.Stream) bool {
	for _, f := range s.Fields {
		switch name, value := f[0], f[1]; {
		case strings.HasPrefix(name, ":"):
		case !httpguts.ValidHeaderFieldName(name), strings.ToLower(name) != name,
			!httpguts.ValidHeaderFieldValue(value), name == "te" && value != "trailers",
			slices.Contains([]string{
				"connection", "proxy-connection", "keep-alive", "upgrade", "transfer-encoding",
			}, name):
			return true
		}
	}
	return false
}

// TestThreat1to9_Headers runs the table of docs/threats.md#identity on every
// kind of route with every kind of credential.
func TestThreat1to9_Headers(t *testing.T) {
	t.Parallel()
	s := mixed
	s.wechat = remembering
	a, rows := newArena(t, s), only(table(), 1, 2, 3, 4, 5, 6, 8, 9, 13)
	rows = slices.DeleteFunc(rows, func(r attack) bool { return r.Bytes == "" })
	a.run(t, slices.Concat(rows, []attack{
		rowOf("nothing odd", get("Accept: */*"), nil),
		rowOf("method of one's own", strings.Replace(get(), "GET", "WX-LOGIN", 1), nil),
		rowOf("absolute form",
			strings.Replace(get(), "{target}", "https://evil.example{target}", 1), nil),
		rowOf("a number of one's own", get("X-WX-PHONE: 1", "x~wx~phone: 1"), nil),
		rowOf("removes the number", get("Connection: X-Wx-Phone"), nil),
		rowOf("token in a misspelt header",
			get("X_3rd_Session: {good}", "X~3rd~Session: {good}", "X.3rd.Session: {good}"), nil),
		rowOf("HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", never),
	}))
}

// TestThreat1to9_HTTP10 runs the table in the version without Host, chunks and
// lasting connections.
func TestThreat1to9_HTTP10(t *testing.T) {
	slow(t)
	t.Parallel()
	a := newArena(t, mixed)
	a.wire = http10
	for _, lines := range []string{"", "Host: {host}\r\nconnection: Keep-Alive, X-Wx-Openid\r\n"} {
		rows := only(table(), 1, 2, 3, 5, 6, 8, 9, 13)
		rows = slices.DeleteFunc(rows, func(r attack) bool { return r.Bytes == "" })
		for i := range rows {
			rows[i].Bytes = strings.Replace(rows[i].Bytes, "Host: {host}\r\n", lines, 1)
		}
		a.run(t, rows)
	}
}

// TestThreat1to14_HTTP2 runs the whole table over HTTP/2.
func TestThreat1to14_HTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, a *arena) {
		a.run(t, slices.DeleteFunc(table(), func(r attack) bool {
			return strings.Contains(r.Name, "LFs") || strings.Contains(r.Name, "HTTP/1.0")
		}))
		a.run(t, pseudoRows())
	})
}

// TestThreat10_Paths opens with `public /public/*` and `optional /optional/*`
// nothing else, and decides by the path alone.
func TestThreat10_Paths(t *testing.T) {
	t.Parallel()
	rows := only(table(), 10, 11, 14)
	for path, want := range map[string]func(*testing.T, outcome){
		"/public/x": opened, "/public/": opened, "/public/a/b.c?x=/admin": opened,
		"/public/%E7%A0%81": opened, "/healthz": opened, "/healthz?/../admin": opened,
		"/public/|\"<>":          opened, // as /public/%7C%22%3C%3E, the canonical form
		"http://{host}/public/x": opened, "x:/public/x": opened,
		"/public/%61": opened, "/public/%e7%a0%81": opened, // equivalent by RFC 3986 6.2.2
		"/public/[x]": opened,
		"/":           guarded, "/public": guarded, "/publicx": guarded, "/PUBLIC/x": guarded,
		"/healthz/": guarded, "/healthz/x": guarded, "/wxother": guarded,
		"/admin?x=/public/":         guarded,
		"http://evil.example/admin": guarded, "http://public/admin": guarded,
		"/admin#/public/x": neverOpen, "/optional/../admin": neverOpen, "/healthz%00": neverOpen,
		"/healthz/..;/admin": neverOpen, "//healthz": neverOpen, "/%70ublic/x": neverOpen,
		"/public/\xff": neverOpen, "/public/\x01": neverOpen, "/public/ x": neverOpen,
		"/public/%zz": neverOpen, "http:public/x": neverOpen, "public/x": neverOpen,
		"?/public/x": neverOpen,
	} {
		rows = append(rows, rowOf(path, getAt(path), want))
	}
	newArena(t, mixed).run(t, append(
		rows,
		rowOf("no host", "GET /admin HTTP/1.1\r\n{auth}\r\n", never),
		rowOf("two hosts", strings.Replace(getAt("/admin"), "{auth}", "{auth}Host: public\r\n", 1),
			never),
		rowOf("two lengths", "POST /public/x HTTP/1.1\r\nHost: {host}\r\n"+
			"Content-Length: 0\r\nContent-Length: 5\r\n\r\nGET /", never),
	))
}

// TestThreat12_OwnEndpoints answers on the exact paths of the endpoints, and
// with 404 on every path that some server might read as under the prefix.
func TestThreat12_OwnEndpoints(t *testing.T) {
	t.Parallel()
	rows := only(table(), 12)
	for _, path := range []string{
		"/wx", "/wx/", "/Wx/session", "/w%78/login", "/wx/../wx/login", "/wx/..%2fwx/login",
		"/%2fwx/login",
		"/wx%252flogin", "/public/../wx/login", "/public/..;/wx/login", "http:wx/login",
		"/wx/../admin",
	} {
		rows = append(rows, rowOf(path, getAt(path), notFound))
	}
	methods := refused(405, "invalid_request")
	newArena(t, mixed).run(t, append(
		rows,
		rowOf("/wx/logout?x", getAt("/wx/logout?x"), methods),
		rowOf("absolute form", getAt("http://{host}/wx/login"), methods),
		rowOf("/wxx/login", getAt("/wxx/login"), guarded),
		rowOf("/x/wx/login", getAt("/x/wx/login"), guarded),
	))
}

// TestThreat8_TheSameTokenTwice takes a token that is sent twice for one.
func TestThreat8_TheSameTokenTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mixed)
	token := w.login(t, "ada")
	w.call(t, "GET", "/x", "", bearer(token), "X-3rd-Session: "+token, bearer(token)).received(t).
		check(t, w.who(appA, "ada"))
}

// TestThreat2_ReallowedNames removes forged names with `_` and `.` where the
// operator lets them through Caddy.
func TestThreat2_ReallowedNames(t *testing.T) {
	slow(t)
	t.Parallel()
	s := mixed
	s.options = "\tservers {\n\t\texpected_underscore_headers X_WX_OPENID X_WX_UNIONID\n" +
		"\t\texpected_dot_headers X.WX.OPENID\n\t}"
	newArena(t, s).run(t, only(table(), 2, 3))
}

// TestThreat7_OwnNames protects names of the operator's choice, and still the
// usual ones.
func TestThreat7_OwnNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{auth: "\t\tpublic /public/*\n\t\ttoken header X-Token\n\t\theaders {\n" +
		"\t\t\topenid My-User\n\t\t\tunionid My-Union\n\t\t\tappid My-App\n" +
		"\t\t\tsource My-Source\n\t\t}"})
	token := w.login(t, "ada")
	forged := []string{
		"my_user: victim", "MY-UNION: victim", "My~App: victim", "X-WX-OPENID: victim",
		"Connection: My-User", "My.Source: victim", "X-Token: " + token,
	}
	r := w.call(t, "GET", "/x", "", forged...).received(t)
	who := w.who(appA, "ada")
	for name, want := range map[string]string{
		"my-user": who.openid, "my-union": who.unionid, "my-app": appA, "my-source": "wx_client",
	} {
		if got := r.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	r.check(t, nil)
	public := w.call(t, "GET", "/public/x", "", forged...).received(t)
	if all := strings.Join(append(r.Headers, public.Headers...),
		"\n"); strings.Contains(all, "victim") {
		t.Errorf("a forgery reaches the app:\n%s", all)
	}
	public.check(t, nil)
	// The usual carriers count no more.
	w.call(t, "GET", "/x", "", bearer(token)).problem(t, 401, "session_missing")
	w.call(t, "GET", "/x", "", "X-3rd-Session: "+token).problem(t, 401, "session_missing")
	s := w.setup
	s.auth = fmt.Sprintf("\t\theaders {\n\t\t\topenid %q\n\t\t}", "Connection")
	if status, said := w.reload(t, w.caddyfile(s)); status == 200 ||
		!strings.Contains(said, "Caddyfile:") {
		t.Errorf("the header name Connection is answered with %d %s", status, said)
	}
}
