package e2e_test

import (
	"net/http"
	"testing"
)

// target is a row for one request target, sent with every credential.
func target(path string, want func(*testing.T, outcome)) attack {
	return attack{name: path, bytes: "GET " + path + " HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n", want: want}
}

// opened: the target is a public one.
func opened(t *testing.T, o outcome) {
	t.Helper()
	o.reaches(t)
	for _, r := range o.app {
		r.check(t, nil)
	}
}

// guarded: the target needs a session, and with one it reaches the app as it was written.
func guarded(t *testing.T, o outcome) {
	t.Helper()
	asUsual(t, o)
	for _, r := range o.app {
		r.check(t, o.cred.who)
	}
}

// TestThreat10_Paths: with `public /public/*` and `optional /optional/*`, nothing else is open.
func TestThreat10_Paths(t *testing.T) {
	t.Parallel()
	rows := []attack{
		target("/public/x", opened),
		target("/public/", opened),
		target("/public/a/b.c?x=/admin", opened),
		target("/public/%E7%A0%81", opened),
		target("/public/|\"<>", opened), // sent on as /public/%7C%22%3C%3E, the canonical form
		target("/public/%61", opened), // equivalent by RFC 3986 6.2.2
		target("/public/%e7%a0%81", opened),
		target("/public/[x]", opened),
		target("/healthz", opened),
		target("/healthz?/../admin", opened),
		target("/", guarded),
		target("/public", guarded),
		target("/publicx", guarded),
		target("/PUBLIC/x", guarded),
		target("/healthz/", guarded),
		target("/healthz/x", guarded),
		target("/wxother", guarded),
		target("/admin?x=/public/", guarded),
		target("/admin#/public/x", neverOpen),
	}
	for _, path := range []string{
		"/public/../admin", "/admin/..%2fpublic/x", "/public/..;/admin", "/public/%252e%252e/admin", "/public/%5c..%5cadmin", "//public//x", "/public/%23/../x", "/public%00/x",
		"/public/%2e%2e/admin", "/public/%2E%2E%2Fadmin", "/public/.%2e/admin", "/public/..", "/public/.", "/public/./x", "/public/../public/x", "/public//x", "/public/x//", "/./public/x", "/admin/../public/x",
		"/public/..\\admin", "/public\\x", "/public/;x", "/public;/x", "/public/x;jsessionid=1", "/public/%3b/x", "/public/%3B", "/public/%2f", "/public%2fx", "/public%2F..%2Fadmin", "/%70ublic/x", "/p%75blic/x",
		"/public/%", "/public/%zz", "/public/%u002e", "/public/%00", "/public/x%0d%0aX-WX-OPENID:%20victim", "/public/%ff", "/public/%c0%ae%c0%ae/admin", "/public/\xff", "/public/\x01", "/public/\x7f", "/public/ x",
		"/public/%25%32%65", "/public/x%3f/../admin", "/public/x%23", "/public/\t", "///public/x", "/public/../../admin", "/public/...;/x", "/optional/../admin", "/optional/%2e%2e/admin", "/optional/..;/admin",
		"/healthz%00", "/healthz%20", "/healthz;", "/healthz/../admin", "/healthz/..;/admin", "/%68ealthz", "//healthz", "/healthz//", "/public/%2e", "/public/a%2fb",
	} {
		rows = append(rows, target(path, neverOpen))
	}
	newArena(t, mixed).run(t, rows)
}

// TestThreat11_Targets: only the path decides.
func TestThreat11_Targets(t *testing.T) {
	t.Parallel()
	newArena(t, mixed).run(t, []attack{
		target("http://{host}/public/x", opened),
		target("http://evil.example/admin", guarded),
		target("http://public/admin", guarded),
		target("http://{host}/public/../admin", neverOpen),
		target("http://{host}", neverOpen),
		target("http:public/x", neverOpen),
		target("x:/public/x", opened),
		target("public/x", neverOpen),
		target("*", neverOpen),
		target("?/public/x", neverOpen),
		{name: "OPTIONS *", bytes: "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n", want: neverOpen},
		{name: "CONNECT authority", bytes: "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n", want: neverOpen},
		{name: "CONNECT path", bytes: "CONNECT /admin HTTP/1.1\r\nHost: {host}\r\n{auth}\r\n", want: neverOpen},
		{name: "host with a path", bytes: "GET /admin HTTP/1.1\r\nHost: {host}/public/x\r\n{auth}\r\n", want: neverOpen},
		{name: "no host", bytes: "GET /admin HTTP/1.1\r\n{auth}\r\n", want: never},
		{name: "two hosts", bytes: "GET /admin HTTP/1.1\r\nHost: {host}\r\nHost: public\r\n{auth}\r\n", want: never},
		{name: "two requests in one line", bytes: "GET /public/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n", want: never},
		{name: "two lengths", bytes: "POST /public/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nGET /", want: never},
	})
}

// TestThreat12_OwnEndpoints answer on their exact path only; all else that any server might read as under the prefix is 404 from the gate.
func TestThreat12_OwnEndpoints(t *testing.T) {
	t.Parallel()
	var rows []attack
	for _, path := range []string{
		"/wx", "/wx/", "/wx/login/", "/wx/Login", "/WX/login", "/Wx/session", "/wx//login", "//wx/login", "/wx/%6cogin", "/%77x/login", "/w%78/login", "/wx/./login", "/wx/../wx/login", "/x/../wx/login", "/./wx/login",
		"/wx;a/login", "/wx/login;a=b", "/wx/login%00", "/wx%00/login", "/wx\\login", "/wx%5clogin", "/wx%2flogin", "/wx%2Flogin", "/%2fwx/login", "/wx/login%20", "/wx%20/login", "/wx./login", "/wx/login/x", "/wx/admin", "/wx/session/", "/wx/..%2fwx/login",
		"/wx/decrypt/x", "/wx%252flogin", "/public/../wx/login", "/public/..%2fwx/login", "/public/..;/wx/login", "/wx/%2e%2e/wx/login", "/%2577x/login", "/wx/login%3fx", "/wx/login%23", "/wx/login%2f", "http:wx/login", "/wx/..", "/wx/../admin", "/wx/%2e%2e/admin",
	} {
		rows = append(rows, target(path, notFound))
	}
	rows = append(
		rows,
		target("/wx/login", refused(http.StatusMethodNotAllowed, "invalid_request")),
		target("/wx/logout?x", refused(http.StatusMethodNotAllowed, "invalid_request")),
		target("http://{host}/wx/login", refused(http.StatusMethodNotAllowed, "invalid_request")),
		target("/wxx/login", guarded),
		target("/x/wx/login", guarded),
		target("/wx-login", guarded),
	)
	newArena(t, mixed).run(t, rows)
}
