package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

// limited is a site that stands behind a proxy, so that many clients can be
// played from one address. The rates are per hour: what is refilled while a
// test runs is nothing.
func limited(rate string) setup {
	s := behindProxy()
	s.wechat = "\t\tlogin_rate " + rate
	return s
}

// behindProxy is a site with the limits of a default configuration.
func behindProxy() setup {
	s := mixed
	s.options = "\tservers {\n\t\tprotocols h1 h2c\n\t\ttrusted_proxies static 127.0.0.1/32\n\t}"
	return s
}

const strictRate = "5/h {\n\t\t\tglobal 20/h\n\t\t\tin_flight 4\n\t\t}"

// from is the header by which a trusted proxy names the client.
func from(client string) string { return "X-Forwarded-For: " + client }

// tooMany demands a refusal by the limiter, with a time to wait between one
// second and the time in which a bucket gains one.
func (r reply) tooMany(tb testing.TB, longest int) {
	tb.Helper()
	r.problem(tb, 429, "rate_limited")
	if wait, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || wait < 1 ||
		wait > longest {
		tb.Errorf("Retry-After is %q, want 1 to %d seconds", r.header.Get("Retry-After"), longest)
	}
}

// asked demands how often WeChat was asked.
func (w *world) asked(tb testing.TB, want int) {
	tb.Helper()
	if n := w.wechat.Count(exchangePath); n != want {
		tb.Errorf("WeChat was called %d times, want %d", n, want)
	}
}

const hourly5, hourly20 = 3600 / 5, 3600 / 20

// TestThreat26_Buckets gives each client a bucket, each IPv6 network one, and
// all clients together one. WeChat does not see what they refuse.
func TestThreat26_Buckets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limited(strictRate))
	for range 5 {
		w.login(t, "ada", from("203.0.113.1"))
	}
	for _, same := range []string{"203.0.113.1", "203.0.113.1:4711", "::ffff:203.0.113.1"} {
		w.tryLogin(t, "ada", from(same)).tooMany(t, hourly5)
	}
	w.login(t, "bob", from("203.0.113.2"))
	for i := range 5 {
		w.login(t, "ada", from(fmt.Sprintf("2001:db8:1:1:%x::1", i)))
	}
	for _, same := range []string{
		"2001:db8:1:1::9", "2001:db8:1:1:ffff:ffff:ffff:ffff", "2001:db8:1:1::1%eth0",
		"[2001:db8:1:1::1]:4711",
	} {
		w.tryLogin(t, "ada", from(same)).tooMany(t, hourly5)
	}
	w.login(t, "bob", from("2001:db8:1:2::1"))
	w.asked(t, 12)
	for i := range 8 {
		w.login(t, "eve", from(fmt.Sprintf("198.51.100.%d", i)))
	}
	for i := range 4 {
		w.tryLogin(t, "eve", from(fmt.Sprintf("198.51.100.%d", 100+i))).tooMany(t, hourly20)
	}
	w.asked(t, 20)
}

// A class logs in at once from one public address; codes that WeChat refuses count
// strictly, one by one or all at once.
func TestThreat42_OneAddress_ClassInGuesserOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, behindProxy())
	var all sync.WaitGroup
	for i := range 45 {
		all.Go(func() { w.login(t, fmt.Sprint("pupil", i), from("203.0.113.1")) })
	}
	all.Wait()
	w.asked(t, 45)
	var tried, refused atomic.Int32
	for i := range 60 {
		all.Go(func() {
			body := fmt.Sprintf(`{"code":"guess-%d"}`, i)
			switch r := w.post(t, "/wx/login", body, from("203.0.113.2")); r.status {
			case 401:
				tried.Add(1)
			case 429:
				refused.Add(1)
				r.tooMany(t, 7)
			default:
				t.Errorf("a guess: %d", r.status)
			}
		})
	}
	all.Wait()
	if n := tried.Load(); n < 30 || n > 33 || n+refused.Load() != 60 {
		t.Errorf("%d guesses were tried, %d refused", n, refused.Load())
	}
}

// TestThreat6_NoTrustedProxy takes a client's address from the connection,
// whatever its headers say.
func TestThreat6_NoTrustedProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{wechat: limited(strictRate).wechat})
	for i := range 5 {
		w.login(t, "ada", from(fmt.Sprintf("203.0.113.%d", i)))
	}
	for i, header := range []string{
		"X-Forwarded-For", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X_Forwarded_For",
		"X-Client-IP",
	} {
		w.tryLogin(t, "ada", fmt.Sprintf("%s: 203.0.113.%d", header, 100+i)).tooMany(t, hourly5)
	}
	w.tryLogin(t, "ada", "Forwarded: for=203.0.113.99").tooMany(t, hourly5)
	w.asked(t, 5)
}

// TestThreat26_BeforeTheBody refuses a login over its limit before it reads a
// byte of the body, and does not wait for one.
func TestThreat26_BeforeTheBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limited(strictRate))
	for range 5 {
		w.post(t, "/wx/login", "{", from("203.0.113.1")).problem(t, 400, "invalid_request")
	}
	head := "POST /wx/login HTTP/1.1\r\nHost: x\r\n" + from("203.0.113.1") + "\r\n"
	for _, lines := range []string{
		"Content-Length: 1048576", "Content-Length: 50", "Transfer-Encoding: chunked",
		"Content-Length: 1048576\r\nConnection: close",
		"Expect: 100-continue\r\nContent-Length: 1048576",
		"Expect: 100-continue\r\nContent-Length: 50",
	} {
		t.Run(lines, func(t *testing.T) {
			t.Parallel()
			r := raw(t, w.addr, head+lines+"\r\n\r\n")
			r.tooMany(t, hourly5)
			if r.continued != 0 {
				t.Error("a refused login is asked for its body")
			}
		})
	}
	for name, text := range map[string]string{
		"with its body":  head + "Content-Length: 14\r\n\r\n" + `{"code":"code"}`[:14],
		"with its chunk": head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"without a body": head + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 20 {
				// net/http panics when a connection goes on behind an unread body.
				raw(t, w.addr, text+text).tooMany(t, hourly5)
			}
		})
	}
	withheld := func(t *testing.T) (net.Conn,
		*bufio.Reader,
	) { // is refused before it has sent its body
		conn, br := dial(t, w.addr)
		io.WriteString(conn, head+"Content-Length: 2\r\n\r\n")
		r, err := readReply(br, "POST")
		if err != nil {
			t.Fatal(err)
		}
		r.tooMany(t, hourly5)
		return conn, br
	}
	t.Run("body behind the answer", func(t *testing.T) {
		t.Parallel()
		conn, br := withheld(t)
		io.WriteString(conn, "{}")
		io.Copy(io.Discard, br) // until the server closes it
	})
	t.Run("body never", func(t *testing.T) {
		t.Parallel()
		_, br := withheld(t)
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("the connection stays open: %v", err)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		c := mustDialH2(t, w.addr, nil)
		for range 10 {
			id := c.Begin(probe.AsStream(head+"Content-Length: 100000\r\n\r\n", "http"))
			answersH2(t, c, id)[0].tooMany(t, hourly5)
		}
	})
	t.Cleanup(func() { w.asked(t, 0) })
}

// TestThreat32_BucketsSurviveReloads keeps what clients have spent over reloads
// of all kinds.
func TestThreat32_BucketsSurviveReloads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limited(strictRate))
	for range 5 {
		w.login(t, "ada", from("203.0.113.1"))
	}
	w.login(t, "bob", from("203.0.113.2"))
	for i, change := range []func(*setup){
		func(*setup) {},
		func(s *setup) { s.timeout = "3s"; s.auth += " /feed/*" },
		func(s *setup) { s.wechat = strings.Replace(s.wechat, " 5/h", " 4/h", 1) },
		func(s *setup) { s.wechat = strings.Replace(s.wechat, "20/h", "21/h", 1) },
		func(s *setup) { s.wechat += "\n\t\tstore bolt " + w.home + "/other.db" + renewed },
	} {
		s := w.setup
		change(&s)
		w.mustReload(t, s)
		if r := w.tryLogin(t, "ada", from("203.0.113.1")); r.status != 429 {
			t.Errorf("reload %d lets the client in: %s", i, r)
		}
	}
	w.asked(t, 6)
}
