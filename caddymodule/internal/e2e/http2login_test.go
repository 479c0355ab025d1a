package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// h2login is a call of the login endpoint.
func (a *h2arena) h2login(body string, fields ...string) stream {
	head := []string{":method: POST", ":scheme: https", ":authority: " + a.addr, ":path: /wx/login", "content-type: application/json"}
	return stream{fields: append(head, fields...), body: body}
}

// TestThreat24_HTTP2Login: the same calls are malformed over HTTP/2, and WeChat is not asked about one of them.
func TestThreat24_HTTP2Login(t *testing.T) {
	t.Parallel()
	overHTTP2(t, nil, func(t *testing.T, a *h2arena) {
		a.wechat.Reset()
		good := codeBody(a.wechat.Code(appA, "ada"))
		for name, tt := range map[string]struct {
			body   string
			status int
			fields []string
		}{
			"nothing":           {"", 400, nil},
			"long code":         {codeBody(strings.Repeat("a", 257)), 400, nil},
			"one byte too long": {good + strings.Repeat(" ", 4097-len(good)), 413, nil},
			"NUL":               {`{"code":"a\u0000b"}`, 400, nil},
			"array":             {`[` + good + `]`, 400, nil},
			"code twice":        {`{"code":"abc","code":"def"}`, 400, nil},
			"object behind":     {good + good, 400, nil},
			"gzip":              {good, 415, []string{"content-encoding: gzip"}},
			"declared trailer":  {good, 400, []string{"trailer: x-wx-openid"}},
		} {
			t.Run(name, func(t *testing.T) {
				mustDialH2(t, a.h2addr, a.tls).ask(t, a.h2login(tt.body, tt.fields...)).problem(t, tt.status, "invalid_request")
			})
		}
		get := a.h2login("")
		get.fields[0] = ":method: GET"
		mustDialH2(t, a.h2addr, a.tls).ask(t, get).problem(t, http.StatusMethodNotAllowed, "invalid_request")
		// Less than was said, more than was said, and cut off: half a call is none.
		for _, fields := range [][]string{{"content-length: 9999"}, {"content-length: 3"}} {
			if r := mustDialH2(t, a.h2addr, a.tls).ask(t, a.h2login(good, fields...)); r.status == http.StatusOK {
				t.Errorf("%s: %s", fields, r)
			}
		}
		if n := a.wechat.Count(exchangePath); n != 0 {
			t.Errorf("WeChat was called %d times", n)
		}
		token := mustDialH2(t, a.h2addr, a.tls).ask(t, a.h2login(good, "x-wx-openid: victim", "x-3rd-session: wxs_other")).session(t).Token
		a.checkAlive(t, token, a.who(appA, "ada"))
	})
}

// TestThreat25_HTTP2: the same code on many streams at once, some of them reset, is one exchange and one session; and a client that gave up gets the answer it missed.
func TestThreat25_HTTP2(t *testing.T) {
	t.Parallel()
	overHTTP2(t, nil, func(t *testing.T, a *h2arena) {
		a.wechat.Reset()
		a.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultSlow, Delay: 200 * time.Millisecond})
		body := codeBody(a.wechat.Code(appA, "ada"))
		c := mustDialH2(t, a.h2addr, a.tls)
		var kept []uint32
		for i := range 24 {
			id := c.open(a.h2login(body))
			if i%3 == 0 {
				c.framer.WriteRSTStream(id, http2.ErrCodeCancel)
				continue
			}
			kept = append(kept, id)
		}
		replies, err := c.answers(kept...)
		if err != nil {
			t.Fatal(err)
		}
		token := replies[kept[0]].session(t).Token
		for _, id := range kept {
			if got := replies[id].session(t).Token; got != token {
				t.Errorf("one code has two tokens: %s, %s", got, token)
			}
		}
		if n := a.wechat.Count(exchangePath); n != 1 {
			t.Errorf("WeChat was called %d times, want once", n)
		}
		a.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultSlow, Delay: 100 * time.Millisecond})
		body = codeBody(a.wechat.Code(appA, "bob"))
		id := c.open(a.h2login(body))
		c.out.Flush()
		eventually(t, "WeChat is asked", func() bool { return a.wechat.Count(exchangePath) == 2 })
		c.framer.WriteRSTStream(id, http2.ErrCodeCancel)
		a.checkAlive(t, c.ask(t, a.h2login(body)).session(t).Token, a.who(appA, "bob"))
		if n := a.wechat.Count(exchangePath); n != 2 {
			t.Errorf("WeChat was called %d times, want twice", n)
		}
	})
}
