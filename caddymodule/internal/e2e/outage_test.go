package e2e_test

import (
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// TestP5_WeChatHangs holds that sessions go on, that logins get 503, at once
// when the circuit breaker is open, and that logins recover. Each transition is
// one line in the log.
func TestP5_WeChatHangs(t *testing.T) {
	t.Parallel()
	s := mixed
	s.timeout = "1s"
	w := newWorld(t, s)
	token, who := w.login(t, "ada"), w.who(appA, "ada")
	w.wechat.Reset()
	w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultHang, Times: -1})
	from := w.out.Len()

	logins := together(t, 32, func(int) (addr, text string) {
		return w.addr, request(w.addr, "POST", "/wx/login", codeBody(w.wechat.Code(appA, "bob")))
	})
	w.checkAlive(t, token, who)
	if r := w.call(t, "GET", "/optional/x", ""); !r.fromApp() {
		t.Errorf("a guest is answered with %s", r)
	}
	for _, r := range logins() {
		r.problem(t, 503, "wechat_unavailable")
	}
	eventually(t, "the breaker answers in WeChat's stead", func() bool {
		before := w.wechat.Count(exchangePath)
		w.tryLogin(t, "bob").problem(t, 503, "wechat_unavailable")
		return w.wechat.Count(exchangePath) == before
	})
	w.checkAlive(t, token, who)
	w.call(t, "GET", "/wx/session", "", bearer(token)).made(t, 200)
	w.checkDead(t, "wxs_"+strings.Repeat("A", 41))

	w.wechat.Reset()
	var bob string
	eventually(t, "logins work again", func() bool {
		r := w.tryLogin(t, "bob")
		if r.status == 200 {
			bob = r.session(t).Token
		} else {
			r.problem(t, 503, "wechat_unavailable")
		}
		return bob != ""
	})
	w.checkAlive(t, bob, w.who(appA, "bob"))
	w.checkAlive(t, token, who)
	w.gate.logs(t, from, map[string]int{"WeChat is unavailable": 1, "WeChat is back": 1})
}

// TestP5_WrongAnswers_AreTold holds that answers which are not WeChat's are an outage with
// its cause, that they burn few codes, and that a hanging WeChat is no rate limit.
func TestP5_WrongAnswers_AreTold(t *testing.T) {
	t.Parallel()
	slow(t)
	w := newWorld(t, setup{
		timeout: "3s", wechat: "\t\tlogin_rate off {\n\t\t\tin_flight 4\n\t\t}",
	})
	w.login(t, "ada")
	w.wechat.Reset()
	w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultStatus, Status: 407, Times: -1})
	from := w.out.Len()
	eventually(t, "the breaker answers in WeChat's stead", func() bool {
		before := w.wechat.Count(exchangePath)
		w.tryLogin(t, "bob").problem(t, 503, "wechat_unavailable")
		return w.wechat.Count(exchangePath) == before
	})
	if n := w.wechat.Count(exchangePath); n != 8 {
		t.Errorf("%d codes are burnt, want 8", n)
	}
	host := strings.TrimPrefix(w.wechat.URL, "http://")
	w.gate.logs(t, from, map[string]int{
		"WeChat is unavailable": 1, "exchanging code: " + host + ": HTTP 407 from a proxy": 1,
	})
	w.wechat.Reset()
	eventually(t, "logins work again", func() bool { return w.tryLogin(t, "bob").status == 200 })
	w.gate.logs(t, from, map[string]int{"WeChat is unavailable": 1, "WeChat is back": 1})

	w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: 45009, Times: 2})
	for range 2 {
		w.tryLogin(t, "bob").problem(t, 429, "rate_limited")
	}
	w.gate.logs(t, from, map[string]int{
		"daily quota of WeChat is used up": 1, `00:00 Beijing time"`: 1,
	})

	w.wechat.Reset()
	w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultHang, Times: -1})
	logins := together(t, 4, func(int) (addr, text string) {
		return w.addr, request(w.addr, "POST", "/wx/login", codeBody(w.wechat.Code(appA, "bob")))
	})
	eventually(t, "four logins hang", func() bool { return w.wechat.Count(exchangePath) == 4 })
	eventually(t, "users without room hear of WeChat", func() bool {
		return strings.Contains(w.tryLogin(t, "ada").body, "wechat_unavailable")
	})
	if n := w.wechat.Count(exchangePath); n != 4 {
		t.Errorf("%d logins in flight, want 4", n)
	}
	for _, r := range logins() {
		r.problem(t, 503, "wechat_unavailable")
	}
}
