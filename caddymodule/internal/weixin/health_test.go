package weixin_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// play is a client of a simulated WeChat inside a synctest bubble. It records the
// transitions of logins.
type play struct {
	t   *testing.T
	c   *weixin.Client
	sim *weixintest.Server

	mu      sync.Mutex // changes come from timers, too
	changes []weixin.Transition
}

func newPlay(t *testing.T) *play {
	p := &play{t: t, sim: weixintest.NewPipeServer(simulated)}
	p.c = newClient(t, weixin.Config{
		BaseURL:       "http://wechat.test",
		LoginsChanged: p.note,
	})
	p.c.SetDial(p.sim.Client().Transport.(*http.Transport).DialContext)
	t.Cleanup(p.sim.Close)
	t.Cleanup(p.c.Close) // first
	return p
}

func (p *play) note(n weixin.Transition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changes = append(p.changes, n)
}

// logins makes n logins with pauses between them.
func (p *play) logins(n int, pause time.Duration) (failed int) {
	for range n {
		code := p.sim.Code(testApp.ID, fmt.Sprint("user ", p.sim.Count(loginPath)))
		if _, err := p.c.Code2Session(p.t.Context(), testApp, code); err != nil {
			failed++
		}
		time.Sleep(pause)
	}
	return failed
}

// changed demands the transitions since the last call, as states.
func (p *play) changed(want ...weixin.State) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var got []weixin.State
	for _, c := range p.changes {
		got = append(got, c.State)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Errorf("transitions %v, want %v", got, want)
	}
	p.changes = nil
}

const loginPath = "/sns/jscode2session"

var wrongAnswers = map[string]weixintest.Fault{
	"HTTP 200 text/html instead of JSON":          {Kind: weixintest.FaultHTML},
	"HTTP 302 redirect or upgrade instead of":     {Kind: weixintest.FaultRedirect},
	"HTTP 404 text/html instead of JSON":          {Kind: weixintest.FaultStatus, Status: 404},
	"HTTP 407 from a proxy":                       {Kind: weixintest.FaultStatus, Status: 407},
	"HTTP 502 text/html instead of JSON":          {Kind: weixintest.FaultStatus},
	"HTTP 200 with an empty body":                 {Kind: weixintest.FaultBody},
	"HTTP 200 without a usable openid":            {Kind: weixintest.FaultBody, Body: "{}"},
	"HTTP 200 text/plain instead of JSON":         {Kind: weixintest.FaultBody, Body: "ok"},
	"HTTP 200 with truncated or malformed JSON":   {Kind: weixintest.FaultTruncated},
	"connection broken: unexpected EOF":           {Kind: weixintest.FaultCut},
	"errcode -1 (WeChat is busy)":                 {Kind: weixintest.FaultErrCode, ErrCode: -1},
	"no answer in time: context deadline exceede": {Kind: weixintest.FaultHang},
}

// TestP5_WrongAnswers_OpenTheBreaker: eight codes are burnt, not all of them; one line
// begins the outage and one ends it; the cause names the host and no secret.
func TestP5_WrongAnswers_OpenTheBreaker(t *testing.T) {
	for cause, fault := range wrongAnswers {
		t.Run(cause, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				p.logins(3, 0)
				p.sim.Reset()
				fault.Times = -1
				p.sim.Inject(fault)
				if failed := p.logins(100, 10*time.Millisecond); failed != 100 {
					t.Errorf("%d of 100 fail", failed)
				}
				// Eight, or as many as fail slowly enough; each may be sent twice.
				if n := p.sim.Count(loginPath); n > 16 || !p.c.BreakerOpen() {
					t.Errorf("%d codes sent, breaker open: %v", n, p.c.BreakerOpen())
				}
				h := p.c.Logins()
				got := h.LastError.Error()
				if !strings.Contains(got, cause) || strings.Contains(got, testApp.Secret) ||
					h.LastError.ErrCode == 0 && !strings.Contains(got, ": wechat.test: ") {
					t.Errorf("cause %q", got)
				}
				if h.Since.IsZero() || h.LastSuccess.IsZero() || h.State != weixin.Down {
					t.Errorf("health %+v", h)
				}
				p.changed(weixin.Down)
				p.sim.Reset()
				time.Sleep(2*time.Second + time.Nanosecond)
				if failed := p.logins(2, 0); failed > 0 {
					t.Error("logins do not recover within 2 s")
				}
				time.Sleep(calm) // without any traffic
				p.changed(weixin.Well)
			})
		})
	}
}

// TestHealth_FewBrokenConnections_AreNoOutage: a busy gate meets connections that the
// other side has closed.
func TestHealth_FewBrokenConnections_AreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		for range 6 {
			p.logins(100, 10*time.Millisecond)
			p.sim.Inject(weixintest.Fault{Kind: weixintest.FaultReset, Times: 3})
		}
		p.changed()
		if h := p.c.Logins(); h.State != weixin.Well || h.LastError == nil {
			t.Errorf("health %+v", h)
		}
	})
}

// TestHealth_HalfWrong_OneLineEach: half of the answers wrong never opens the breaker.
func TestHealth_HalfWrong_OneLineEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		p.logins(50, 10*time.Millisecond)
		p.sim.Inject(weixintest.Fault{Kind: weixintest.FaultHTML, Times: -1, Every: 2})
		if failed := p.logins(300, 10*time.Millisecond); failed != 150 {
			t.Errorf("%d of 300 logins fail, want 150", failed)
		}
		if h := p.c.Logins(); h.Calls < 299 || h.Failed != 150 {
			t.Errorf("%d of %d calls failed since %v", h.Failed, h.Calls, h.Since)
		}
		p.changed(weixin.Partly)
		p.sim.Reset()
		p.logins(100, 10*time.Millisecond)
		p.changed() // it has not lasted
		time.Sleep(20 * time.Second)
		p.changed(weixin.Well)
	})
}

// TestHealth_Flapping_IsOneOutage: WeChat comes and goes every few seconds.
func TestHealth_Flapping_IsOneOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		for range 6 {
			p.sim.Inject(weixintest.Fault{Kind: weixintest.FaultStatus, Times: -1})
			p.logins(200, 20*time.Millisecond)
			p.sim.Reset()
			p.logins(200, 20*time.Millisecond)
		}
		p.changed(weixin.Down)
		time.Sleep(calm)
		p.changed(weixin.Well)
	})
}

// calm is more than any trouble needs to be over.
const calm = 11 * time.Second

// TestHealth_FewLogins_OutageIsTold: a quiet gate never opens its breaker.
func TestHealth_FewLogins_OutageIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		p.sim.Inject(weixintest.Fault{Kind: weixintest.FaultHTML, Times: 3})
		p.logins(3, time.Minute)
		p.changed(weixin.Down)
		p.logins(1, calm)
		p.changed(weixin.Well)
	})
}

// TestThreat42_OddCode_CannotStopLogins: a filter on the way answers an odd code with
// a page, which says nothing of WeChat.
func TestThreat42_OddCode_CannotStopLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		p.sim.Inject(weixintest.Fault{Kind: weixintest.FaultStatus, Status: 403, Times: 50})
		for range 50 {
			_, err := p.c.Code2Session(t.Context(), testApp, "<script>../../etc/passwd")
			wantClass(t, err, weixin.ClassProtocol)
		}
		if p.changed(); p.c.BreakerOpen() {
			t.Error("a client opens the breaker")
		}
	})
}

// TestNoAnswer_WeChatHangs_IsKnown: before the breaker opens, so that users hear of
// WeChat and not of a limit.
func TestNoAnswer_WeChatHangs_IsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		p.logins(1, time.Minute)
		if e := p.c.NoAnswer(); e != nil {
			t.Error(e)
		}
		p.sim.Inject(weixintest.Fault{Kind: weixintest.FaultHang, Times: -1})
		go p.logins(1, 0)
		time.Sleep(100 * time.Millisecond)
		if e := p.c.NoAnswer(); e != nil {
			t.Errorf("within a tenth of a second: %v", e)
		}
		time.Sleep(time.Second)
		if e := p.c.NoAnswer(); e == nil || e.Class != weixin.ClassUnavailable || !e.Unsent() {
			t.Errorf("after a second: %v", e)
		}
		time.Sleep(10 * time.Second)
		if e := p.c.NoAnswer(); e != nil {
			t.Errorf("no call is under way: %v", e)
		}
	})
}

// TestClock_Date_IsCompared: errors of a proxy say nothing of WeChat's clock.
func TestClock_Date_IsCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := 90 * time.Second
		c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			if ahead > time.Hour {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			reply(200, `{"errcode":40029}`)(w, r)
		})
		if got := c.Clock(); !got.At.IsZero() {
			t.Errorf("%v before any answer", got)
		}
		fails(t, c, 1, weixin.ClassCodeInvalid)
		ahead = 2 * time.Hour
		fails(t, c, 1, weixin.ClassUnavailable)
		if got := c.Clock(); got.Ahead < 89*time.Second || got.Ahead > 91*time.Second {
			t.Errorf("%v ahead", got.Ahead)
		}
	})
}

// TestCause_NoConnection_NamesIt covers what stands between this machine and WeChat.
func TestCause_NoConnection_NamesIt(t *testing.T) {
	quiet := log.New(io.Discard, "", 0)
	plain := httptest.NewServer(http.NotFoundHandler())
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = quiet
	secure.StartTLS()
	picky := httptest.NewUnstartedServer(http.NotFoundHandler())
	picky.Config.ErrorLog = quiet
	picky.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	picky.StartTLS()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	for _, s := range []*httptest.Server{plain, secure, picky, proxy} {
		t.Cleanup(s.Close)
	}
	for _, tc := range []struct{ name, url, proxy, cause string }{
		{"certificate", secure.URL, "", "no connection: tls: failed to verify certificate: "},
		{"no TLS", "https" + plain.URL[len("http"):], "", "speaks no TLS on this port"},
		{"refused", "https://127.0.0.1:1", "", "127.0.0.1:1: no connection: connection refused"},
		{"DNS", "https://no.such.invalid", "", "no.such.invalid: no connection: lookup "},
		{"proxy refuses", "https://a.test", proxy.URL, "HTTP 407 from the proxy instead"},
		{"no proxy", "https://wechat.test", "http://127.0.0.1:1", "no connection to the proxy: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClient(t, weixin.Config{BaseURL: tc.url})
			c.SetProxy(tc.proxy)
			_, err := exchange(c)
			wantClass(t, err, weixin.ClassUnavailable)
			if !strings.Contains(err.Error(), tc.cause) {
				t.Errorf("got %q", err)
			}
		})
	}
}

// TestErrors_OfWeChat_SayWhatToDo: where the operator's cure is in the answer.
func TestErrors_OfWeChat_SayWhatToDo(t *testing.T) {
	c, sim := withSimulator(t)
	for errcode, want := range map[int]string{
		40164: "WeChat sees 203.0.113.7", 45009: "until midnight Beijing time",
	} {
		sim.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: errcode})
		if _, err := exchange(c); !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", errcode, err)
		}
	}
}
