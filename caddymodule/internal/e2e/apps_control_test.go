//go:build unix

package e2e_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
)

// targets are ways to write /admin so that it looks public, and the other way round.
var targets = []string{
	"/public/../admin", "/public/..%2fadmin", "/public/..%2Fadmin", "/public/%2e%2e/admin",
	"/public/%2E%2E%2Fadmin", "/public/.%2e/admin", "/public/..;/admin", "/public/..;x=y/admin",
	"/public/%252e%252e/admin", "/public/..%252fadmin",
	"/public/..\\admin", "/public/%5c..%5cadmin", "/public/..%5cadmin", "/public/%23/../../admin",
	"/public/..%00/admin", "/public%00/../admin", "/public/x/..//../admin", "/public//../admin",
	"/public/./../admin", "/public/../../admin", "/public/..//admin",
	"//public//x", "//public/../admin", "//admin/public/x", "//public/../../admin",
	"/public;/../admin", "/public/..%3b/admin", "/public/%c0%ae%c0%ae/admin",
	"/public/%u002e%u002e/admin", "/public/..%c0%afadmin", "/%70ublic/../admin", "/PUBLIC/../admin",
	"/admin/..%2fpublic/x", "/admin/%2e%2e/public/x", "/admin/..;/public/x", "/admin?/public/x",
	"/admin%3f/../public/x", "/admin;/public/x", "/admin%2f..%2fpublic/x", "/optional/..%2fadmin",
	"/optional/%2e%2e/admin", "/x:/public/../admin", "http://public/../admin", "x:/public/../admin",
}

// paths sends every target through the gate. None is public; nobody gets
// through without a good token.
func (s *stage) paths(t *testing.T) {
	for _, target := range targets {
		t.Run(target, func(t *testing.T) {
			for _, c := range s.creds {
				answer, views := s.ask(t, s.gated,
					request(s.gated, "GET", target, "", cmp.Or(c.line, "Accept: */*")))
				if c.who == nil && (len(views) > 0 || answer.fromApp() || answer.status/100 == 2) {
					t.Errorf("with %s: %s, the app is reached: %+v", c.name, answer, views)
				}
				for _, v := range views {
					v.check(t, c.who, nil)
				}
			}
		})
	}
	for _, target := range []string{
		"/public/", "/public/x", "/public/admin", "/public/x?/../admin", "/public/admin/public",
	} {
		_, views := s.ask(t, s.gated, request(s.gated, "GET", target, ""))
		if len(views) != 1 || views[0].nearAdmin() {
			t.Errorf("%s is public, and the app is reached so: %+v", target, views)
		}
	}
}

// controls are the forgeries that some platform believes.
func controls() (rows []attack) {
	add := func(name string, lines ...string) {
		rows = append(rows, rowOf(name, get(lines...), nil))
	}
	for _, name := range aliases() {
		add(name, forging(name)...)
	}
	for _, line := range []string{
		"X-WX-OPENID:victim", "X-WX-OPENID:\t victim \t", "X WX OPENID: victim",
	} {
		add(line, line)
	}
	add("all at once", forging(aliases()...)...)
	add("truth first", "X-WX-OPENID: truth", "X_WX_OPENID: "+victim, "X!WX!OPENID: "+victim)
	add("list", "X-WX-OPENID: truth, "+victim, "X~WX~OPENID: , "+victim)
	add("empty and forged", "X-WX-OPENID:", "X-WX-OPENID: "+victim)
	for _, name := range []string{"X-WX-OPENID", "X_WX_OPENID"} {
		for kind, declared := range map[string]string{
			"declared trailer": name, "undeclared trailer": "X-None",
			"trailer behind a declared one": "X-Last",
		} {
			text := strings.Replace(get("Transfer-Encoding: chunked", "Trailer: "+declared), "GET",
				"POST", 1)
			if declared == "X-None" {
				text = strings.Replace(text, "Trailer: X-None\r\n", "", 1)
			}
			lines := append(forging(everyName(name)...), "X-Last: 1", "", "")
			text += "3\r\nabc\r\n0\r\n" + strings.Join(lines, "\r\n")
			rows = append(rows, rowOf(kind+" "+name, text, nil))
		}
	}
	return rows
}

// control sends forgeries without a gate that the app is known to believe. An app
// that believed none would be no test of the gate.
func (s *stage) control(t *testing.T, addr string, known []string) {
	rows := make(map[string]attack)
	for _, row := range controls() {
		rows[row.Name] = row
	}
	if len(known) == 0 {
		t.Error("no forgery is known")
	}
	for _, name := range known {
		answer, views := s.ask(t, addr,
			words("app", s.token, public, credential{}).Replace(rows[name].Bytes))
		if !slices.ContainsFunc(views, view.believes) {
			t.Errorf("%q is not believed: this test proves less than it says: %s, %+v", name,
				answer, views)
		}
	}
	_, views := s.ask(t, addr, request("app", "GET", string(public), "",
		bearer("wxs_x"), "X_3rd_Session: wxs_x", "X-3rd-Session: wxs_x"))
	if len(views) != 1 || !slices.ContainsFunc(views[0].variables(),
		func(v variable) bool { return strings.Contains(v.Value, "wxs_") }) {
		t.Errorf("a token is not seen: %+v", views)
	}
}

// readings shows how the app reads paths: asked directly, and behind a matcher
// of Caddy's that means to close all but /public/*.
func (s *stage) readings(t *testing.T) {
	if s.direct != "" {
		s.read(t, s.direct, s.misled)
	}
	// Every platform is given what Caddy did not look at.
	s.read(t, s.careful, []string{"/admin/..%2fpublic/x", "/admin/%2e%2e/public/x"})
}

// read demands that the app takes the targets known for /admin. mountPoint
// stands for a public path with that header.
func (s *stage) read(t *testing.T, addr string, known []string) {
	t.Helper()
	for _, target := range known {
		text := request("app", "GET", target, "")
		if target == mountPoint {
			text = request("app", "GET", "/public/admin", "", mountPoint)
		}
		if answer, views := s.ask(t, addr, text); !slices.ContainsFunc(views, view.atAdmin) {
			t.Errorf("%q is not read as /admin: this test proves less than it says: %s, %+v",
				target, answer, views)
		}
	}
}

// removal shows that a header set by hand can be taken away.
func (s *stage) removal(t *testing.T) {
	_, views := s.ask(t, s.careful, request("app", "GET", string(public), ""))
	if len(views) != 1 || views[0].OpenID == nil || *views[0].OpenID != trueOpenID {
		t.Fatalf("the header set by hand does not arrive: %+v", views)
	}
	_, views = s.ask(t, s.careful,
		request("app", "GET", string(public), "", "Connection: X-Wx-Openid"))
	if len(views) != 1 || views[0].OpenID != nil {
		t.Errorf("the header set by hand is not removed: %+v", views)
	}
}

// test shows that what an app believes when it is asked directly does not pass
// the gate.
func (p platform) test(t *testing.T) {
	t.Helper()
	t.Parallel()
	if p.long {
		slow(t)
	}
	s := newStage(t, p)
	if s.direct != "" {
		t.Run("control: no gate", func(t *testing.T) { s.control(t, s.direct, p.fooled) })
	}
	t.Run("control: plain Caddy", func(t *testing.T) { s.control(t, s.plain, p.fooledCaddy) })
	t.Run("control: header removed", s.removal)
	t.Run("control: paths", s.readings)
	t.Run("headers", func(t *testing.T) { s.attacks(t, s.gated, appAttacks()) })
	t.Run("headers that Caddy lets through",
		func(t *testing.T) { s.attacks(t, s.lenient, only(table(), 2)) })
	t.Run("paths", s.paths)
}

func TestApp_PHP_BuiltIn(t *testing.T) { php.test(t) }
func TestApp_PHP_CGI(t *testing.T)     { cgi.test(t) }
func TestApp_PHP_FastCGI(t *testing.T) { fastCGI.test(t) }
func TestApp_Python_WSGI(t *testing.T) { wsgi.test(t) }
func TestApp_Node_HTTP(t *testing.T)   { node.test(t) }
func TestApp_Go_NetHTTP(t *testing.T)  { golang.test(t) }
