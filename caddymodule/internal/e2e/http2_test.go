package e2e_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

// dialH2 opens a connection of HTTP/2: by ALPN over TLS when a configuration is
// given, else with prior knowledge.
func dialH2(addr string, config *tls.Config) (*probe.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	if config != nil {
		secured := tls.Client(conn, config)
		if err := secured.Handshake(); err != nil {
			conn.Close()
			return nil, err
		}
		conn = secured
	}
	c := probe.NewConn(conn)
	if err := c.Flush(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// mustDialH2 opens a connection that ends with the test.
func mustDialH2(tb testing.TB, addr string, config *tls.Config) *probe.Conn {
	tb.Helper()
	c, err := dialH2(addr, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// answersH2 reads the answers on streams.
func answersH2(tb testing.TB, c *probe.Conn, ids ...uint32) (replies []reply) {
	tb.Helper()
	c.SetDeadline(time.Now().Add(patience))
	answers, err := c.Answers(ids...)
	if err != nil {
		tb.Fatal(err)
	}
	for _, id := range ids {
		replies = append(replies, replyOf(answers[id]))
	}
	return replies
}

// askH2 sends one request and returns its answer.
func askH2(tb testing.TB, c *probe.Conn, s probe.Stream) reply {
	tb.Helper()
	return answersH2(tb, c, c.Open(s))[0]
}

// streamOf reads a stream from the text of its fields, one a line.
func streamOf(text string) (s probe.Stream) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		at := strings.Index(line[1:], ":") + 1
		s.Fields = append(s.Fields,
			[2]string{strings.ToLower(line[:at]), strings.TrimSpace(line[at+1:])})
	}
	return s
}

func methodOf(s probe.Stream) string {
	for _, f := range s.Fields {
		if f[0] == ":method" {
			return f[1]
		}
	}
	return ""
}

const goodFields = ":method: GET\n:scheme: https\n:authority: {host}\n:path: {target}\n{auth}"

// pseudoRows change the fields that stand for the request line, which must be
// there once, first and sound.
func pseudoRows() (rows []attack) {
	for name, tt := range map[string]struct {
		from, to string
		want     func(*testing.T, outcome)
	}{
		"two paths":                 {":path", ":path: /public/x\n:path", never},
		"two methods":               {":method", ":method: POST\n:method", never},
		"two authorities":           {":authority", ":authority: public\n:authority", never},
		"pseudo field of an answer": {":path", ":status: 200\n:path", never},
		"path behind the fields":    {":path", "accept: */*\n:path", never},
		"no path":                   {":path", "x-path", never},
		"no method":                 {":method", "x-method", never},
		"no scheme":                 {":scheme", "x-scheme", never},
		"foreign scheme":            {"https", "ftp", never},
		"other scheme":              {"https", "http", nil},
		"scheme that is a line":     {"https", "http://{host}/public/x?", never},
		"method that is a line":     {"GET", "GET /public/x HTTP/1.1", noLine},
		"method with a line break":  {"GET", "GET / HTTP/1.1\rX-WX-OPENID: victim", never},
		"method of one's own":       {"GET", "WX-LOGIN", nil},
		"authority with a path":     {"{host}", "{host}/public/x?", noLine},
		"authority with a user":     {"{host}", "victim@{host}", never},
		"host beside authority":     {"{target}", "{target}\nhost: {host}", nil},
		"another host":              {"{target}", "{target}\nhost: public", never},
		"two hosts":                 {"{target}", "{target}\nhost: {host}\nhost: {host}", never},
		"CONNECT with a path":       {"GET", "CONNECT", never},
	} {
		rows = append(rows, attack{
			Attack: probe.Attack{Name: name}, want: tt.want,
			fields: strings.Replace(goodFields, tt.from, tt.to, 1),
		})
	}
	return rows
}

// noLine: the odd pseudo field makes no second request line. Whether it passes at
// all is net/http's affair.
func noLine(t *testing.T, o outcome) {
	t.Helper()
	if o.route != public {
		neverOpen(t, o)
	}
	for _, r := range o.app {
		if r.Target() != string(o.route) {
			t.Errorf("the app is asked %q", r.Line)
		}
	}
}

// TestThreat5_ExtendedConnect sends the tunnel of HTTP/2 (RFC 8441). By default
// net/http refuses it; where the operator allows it, it is for WebSocket only
// and passes the gate.
func TestThreat5_ExtendedConnect(t *testing.T) {
	t.Parallel()
	rows := func(want func(*testing.T, outcome)) (rows []attack) {
		fields := strings.Replace(goodFields, "GET", "CONNECT\n:protocol: websocket", 1)
		for name, tt := range map[string]struct {
			from, to string
			want     func(*testing.T, outcome)
		}{
			"websocket": {"", "", want},
			"forged": {
				"{auth}", "x-wx-openid: victim\nx_wx_unionid: victim\nx~wx~appid: victim\n{auth}",
				want,
			},
			"connect-udp":         {"websocket", "connect-udp", noTunnel},
			"h2c":                 {"websocket", "h2c", noTunnel},
			"websocket, odd case": {"websocket", "WebSocket", noTunnel},
			"nothing":             {"websocket", "", noTunnel},
			"by GET":              {"CONNECT", "GET", noTunnel},
			"two protocols":       {"websocket", "websocket\n:protocol: h2c", never},
			"odd path":            {"{target}", "/public/..%2fadmin", neverOpen},
			"no path":             {":path", "x-path", never},
		} {
			rows = append(rows, attack{
				Attack: probe.Attack{Name: name}, want: tt.want,
				fields: strings.Replace(fields, tt.from, tt.to, 1),
			})
		}
		return rows
	}
	t.Run("off", func(t *testing.T) {
		slow(t)
		t.Parallel()
		newArenaOver2(t, h2TLS).run(t, rows(never))
	})
	t.Run("on", func(t *testing.T) {
		t.Parallel()
		for _, over := range []wire{h2c, h2TLS} {
			newArenaOver2(t, over, "GODEBUG=http2xconnect=1").run(t, rows(tunnel))
		}
	})
}

// tunnel: the handshake is treated as its path and credential deserve.
func tunnel(t *testing.T, o outcome) {
	t.Helper()
	if o.route == endpoint {
		o.refused(t, 405, "invalid_request")
		return
	}
	asUsual(t, o)
	for _, r := range o.app {
		if v := r.Values("Upgrade"); len(v) != 1 || v[0] != "websocket" {
			t.Errorf("the app is asked to upgrade to %q", v)
		}
	}
}

// noTunnel: whatever becomes of the request, the app is not asked for a tunnel.
func noTunnel(t *testing.T, o outcome) {
	t.Helper()
	if o.route != public && o.route != optional {
		neverOpen(t, o)
	}
	for _, r := range o.app {
		if len(r.Values("Upgrade")) > 0 || len(r.Values(":protocol")) > 0 {
			t.Errorf("the app is asked for a tunnel: %+v", r)
		}
	}
}

// loginH2 is a login over HTTP/2.
func (a *arena) loginH2(body string, lines ...string) probe.Stream {
	head := append([]string{
		"POST /wx/login HTTP/1.1", "Host: " + a.addr, "Content-Type: application/json",
	},
		lines...)
	return probe.AsStream(strings.Join(append(head, "", body), "\r\n"), "https")
}

// TestThreat24_HTTP2Login refuses a body that is shorter or longer than its
// length says.
func TestThreat24_HTTP2Login(t *testing.T) {
	t.Parallel()
	overHTTP2(t, func(t *testing.T, a *arena) {
		a.wechat.Reset()
		good := codeBody(a.wechat.Code(appA, "ada"))
		for _, line := range []string{"Content-Length: 9999", "Content-Length: 3"} {
			if r := a.ask(t, a.loginH2(good, line)); r.status == 200 {
				t.Errorf("%s: %s", line, r)
			}
		}
		a.ask(t, a.loginH2(good, "Trailer: X-Wx-Openid")).
			problem(t, 400, "invalid_request")
		a.asked(t, 0)
		r := a.ask(t, a.loginH2(good, "X-Wx-Openid: victim", "X-3rd-Session: wxs_other"))
		a.checkAlive(t, r.session(t).Token, a.who(appA, "ada"))
	})
}
