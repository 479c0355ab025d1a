package e2e_test

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// h2attack is one row of the tables over HTTP/2. Words in braces are filled in as in attack; a field {auth} is dropped where there is no credential.
type h2attack struct {
	name string
	stream
	want func(*testing.T, outcome) // nil: asUsual
}

// h2arena is an arena that is also reached over HTTP/2.
type h2arena struct {
	*arena
	h2addr string
	tls    *tls.Config
	conn   *h2conn // kept from one request to the next while it holds
}

// overHTTP2 runs a test against both ways to speak HTTP/2.
func overHTTP2(t *testing.T, env []string, test func(*testing.T, *h2arena)) {
	s := mixed
	s.env = env
	t.Run("h2c", func(t *testing.T) {
		slow(t)
		t.Parallel()
		s := s
		s.options = "\tservers {\n\t\tprotocols h1 h2c\n\t}"
		a := newArena(t, s)
		test(t, &h2arena{arena: a.fewer(), h2addr: a.addr})
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		a := newArena(t, s)
		secured := freeAddr(t)
		_, port, _ := strings.Cut(secured, ":")
		s := a.setup
		s.options = "\tskip_install_trust\n\tauto_https disable_redirects\n\tservers {\n\t\tprotocols h1 h2\n\t}"
		s.sites = fmt.Sprintf("https://localhost:%[1]s, https://:%[1]s {\n\tbind 127.0.0.1\n\ttls internal\n\twechat_auth {\n%s\n\t}\n\treverse_proxy %s\n}", port, s.auth, a.app.addr)
		a.mustReload(t, s)
		config := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"h2"}}
		eventually(t, "the certificate is there", func() bool {
			c, err := dialH2(secured, config)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		test(t, &h2arena{arena: a.fewer(), h2addr: secured, tls: config})
	})
}

// fewer leaves one credential of a kind: none, forged, good, good without a unionid.
func (a *arena) fewer() *arena {
	a.creds = slices.DeleteFunc(a.creds, func(c credential) bool {
		return c.name == "malformed" || c.name == "revoked" || c.name == "good, in the other header"
	})
	return a
}

// run sends every row in every form that it has. Requests share a connection while it holds, as they do in life: nothing of one may show in the next.
func (a *h2arena) run(t *testing.T, rows []h2attack) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			all := strings.Join(row.fields, "\n")
			routes, creds := []route{required, optional, public, endpoint}, a.creds
			if !strings.Contains(all, "{path}") {
				routes = routes[:1]
			}
			if !strings.Contains(all, "{auth}") {
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

func (a *h2arena) send(t *testing.T, row h2attack, r route, c credential) {
	s, method := a.filled(row.stream, r, c)
	o := outcome{request: method + " ", route: r, cred: c}
	// A server that answers before it has read all of a request closes the connection over the rest, and the answer may be lost with it.
	for range 3 {
		a.redial(t)
		a.app.take()
		o.reply = a.conn.ask(t, s)
		o.app = a.app.take()
		for _, got := range o.app {
			switch {
			case r == public:
				got.check(t, nil)
			case len(got.owned()) > 0 || slices.Contains(s.fields, ":path: "+pathOf[r]):
				got.check(t, c.who)
			}
			if strings.Count(got.Line, " ") != 2 {
				t.Errorf("the app is asked %q", got.Line)
			}
			got.checkClean(t)
			if hosts := got.values("host"); len(hosts) != 1 {
				t.Errorf("the app is told the hosts %q", hosts)
			}
		}
		if o.reply.status != 0 || !a.conn.broken {
			break
		}
	}
	want := row.want
	if want == nil {
		want = asUsual
	}
	want(t, o)
	if t.Failed() {
		t.Logf("sent: %q\ngot: %s\nthe app received: %+v", s, o.reply, o.app)
	}
}

// redial opens a connection unless there is a sound one.
func (a *h2arena) redial(t *testing.T) {
	t.Helper()
	if a.conn != nil && !a.conn.broken {
		return
	}
	if a.conn != nil {
		a.conn.Close()
	}
	var err error
	if a.conn, err = dialH2(a.h2addr, a.tls); err != nil {
		t.Fatal(err)
	}
}

// filled returns the stream of a row for a route and a credential, and its method.
func (a *h2arena) filled(s stream, r route, c credential) (filled stream, method string) {
	paths := strings.NewReplacer("{path}", pathOf[r])
	for _, f := range s.fields {
		switch {
		case f == "{auth}" && c.line == "":
			continue
		case f == "{auth}":
			f = field(c.line)
		}
		filled.fields = append(filled.fields, a.fill.Replace(paths.Replace(f)))
		if m, ok := strings.CutPrefix(f, ":method: "); ok {
			method = m
		}
	}
	filled.body, filled.trailers = s.body, s.trailers
	return filled, method
}
