package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// fault is one way in which WeChat fails and what the client must be told (DESIGN.md 3). An empty code means a good login.
type fault struct {
	name   string
	inject weixintest.Fault
	status int
	code   string
	calls  int // of WeChat; default 1
}

func errcode(n, status int, code string) fault {
	return fault{name: fmt.Sprint("errcode ", n), inject: weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: n}, status: status, code: code}
}

func answers(name, body string) fault {
	return fault{name: name, inject: weixintest.Fault{Kind: weixintest.FaultBody, Body: body}, status: 503, code: "wechat_unavailable"}
}

func breaks(name string, f weixintest.Fault) fault {
	return fault{name: name, inject: f, status: 503, code: "wechat_unavailable"}
}

const goodKey = `"session_key":"AAAAAAAAAAAAAAAAAAAAAA=="`

var faults = []fault{
	breaks("slow beyond the time-out", weixintest.Fault{Kind: weixintest.FaultSlow, Delay: time.Minute}),
	breaks("hang", weixintest.Fault{Kind: weixintest.FaultHang}),
	breaks("reset", weixintest.Fault{Kind: weixintest.FaultReset}),
	breaks("lost", weixintest.Fault{Kind: weixintest.FaultLost}),
	breaks("truncated", weixintest.Fault{Kind: weixintest.FaultTruncated}),
	breaks("status 500", weixintest.Fault{Kind: weixintest.FaultStatus, Status: 500}),
	breaks("status 502", weixintest.Fault{Kind: weixintest.FaultStatus, Status: 502}),
	breaks("status 404", weixintest.Fault{Kind: weixintest.FaultStatus, Status: 404}),
	breaks("status 429", weixintest.Fault{Kind: weixintest.FaultStatus, Status: 429}),
	breaks("html", weixintest.Fault{Kind: weixintest.FaultHTML}),
	breaks("endless", weixintest.Fault{Kind: weixintest.FaultEndless}),
	breaks("redirect", weixintest.Fault{Kind: weixintest.FaultRedirect}),
	breaks("redirect elsewhere", weixintest.Fault{Kind: weixintest.FaultRedirect, Location: exchangePath}),

	errcode(40029, 401, "code_invalid"),
	errcode(40163, 401, "code_used"),
	errcode(40226, 403, "user_blocked"),
	errcode(50002, 403, "user_blocked"),
	errcode(45011, 429, "rate_limited"),
	errcode(45009, 429, "rate_limited"),
	errcode(40013, 502, "misconfigured"),
	errcode(40125, 502, "misconfigured"),
	errcode(40164, 502, "misconfigured"),
	errcode(40243, 502, "misconfigured"),
	errcode(41002, 502, "misconfigured"),
	errcode(41004, 502, "misconfigured"),
	errcode(41008, 502, "misconfigured"),
	errcode(48001, 502, "misconfigured"),
	errcode(99999, 502, "misconfigured"),
	{name: "errcode -1 once", inject: weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: -1}, calls: 2},
	{name: "errcode -1 twice", inject: weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: -1, Times: 2}, status: 503, code: "wechat_unavailable", calls: 2},
	{name: "errcode as a string", inject: weixintest.Fault{Kind: weixintest.FaultErrCodeString, ErrCode: 40163}, status: 401, code: "code_used"},
	{name: "errcode -1 as a string", inject: weixintest.Fault{Kind: weixintest.FaultErrCodeString, ErrCode: -1}, calls: 2},

	answers("empty", ""),
	answers("empty object", "{}"),
	answers("null", "null"),
	answers("array", `[{"openid":"o1",`+goodKey+`}]`),
	answers("errcode 0 and nothing else", `{"errcode":0,"errmsg":"ok"}`),
	answers("no openid", `{`+goodKey+`}`),
	answers("empty openid", `{"openid":"",`+goodKey+`}`),
	answers("openid a number", `{"openid":7,`+goodKey+`}`),
	answers("no session_key", `{"openid":"o1"}`),
	answers("empty session_key", `{"openid":"o1","session_key":""}`),
	answers("openid with CR LF", `{"openid":"o1\r\nX-Wx-Openid: victim",`+goodKey+`}`),
	answers("openid with NUL", `{"openid":"o1\u0000",`+goodKey+`}`),
	answers("openid with a blank", `{"openid":"o 1",`+goodKey+`}`),
	answers("openid not ASCII", `{"openid":"用户",`+goodKey+`}`),
	answers("openid too long", `{"openid":"`+strings.Repeat("o", 5000)+`",`+goodKey+`}`),
	answers("huge", `{"openid":"o1",`+goodKey+`,"x":"`+strings.Repeat("x", 1<<20)+`"}`),
	answers("errcode no number", `{"errcode":[],"openid":"o1",`+goodKey+`}`),
	answers("junk behind", `{"openid":"o1",`+goodKey+`}{"openid":"o2"}`),
	{name: "errcode beside an openid", inject: weixintest.Fault{Kind: weixintest.FaultBody, Body: `{"errcode":40029,"openid":"o1",` + goodKey + `}`}, status: 401, code: "code_invalid"},

	// Judged by what it holds, never by status or type.
	{name: "good answer with status 500", inject: weixintest.Fault{Kind: weixintest.FaultBody, Status: 500, Body: `{"openid":"o1",` + goodKey + `}`}},
	{name: "good answer, slowly", inject: weixintest.Fault{Kind: weixintest.FaultSlow, Delay: 50 * time.Millisecond}},
	{name: "errcode 0", inject: weixintest.Fault{Kind: weixintest.FaultBody, Body: `{"errcode":0,"openid":"o1",` + goodKey + `}`}},
}

// TestThreat27_WeChatFails: each failure has the answer that DESIGN.md 3 gives it and comes to an end; nothing is half created; the next login works; no code is sent twice.
func TestThreat27_WeChatFails(t *testing.T) {
	t.Parallel()
	// One session a user: a login that came to nothing must not have ended the session that is there.
	w := newWorld(t, setup{timeout: "1s", wechat: "\t\tsession {\n\t\t\tmax_per_user 1\n\t\t}"})
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			user := "user of " + f.name
			before := w.login(t, user) // also leaves a connection that the exchange will use again
			w.wechat.Reset()
			f.inject.ErrMsg = "canary-errmsg"
			f.inject.Path = exchangePath
			w.wechat.Inject(f.inject)
			code := w.wechat.Code(appA, user)
			r := w.post(t, "/wx/login", codeBody(code), bearer(before))
			if f.code == "" {
				r.session(t)
			} else {
				r.problem(t, f.status, f.code)
				w.checkAlive(t, before, w.who(appA, user))
			}
			for _, leak := range []string{"canary", "victim", "openid", "secret", fmt.Sprint(f.inject.ErrCode)} {
				if leak != "0" && strings.Contains(r.body, leak) {
					t.Errorf("the client is told %q: %s", leak, r.body)
				}
			}
			if n := w.wechat.Count(exchangePath); n != max(f.calls, 1) {
				t.Errorf("WeChat was called %d times, want %d: %+v", n, max(f.calls, 1), w.wechat.Calls())
			}
			if n := len(w.wechat.Calls()); n != max(f.calls, 1) {
				t.Errorf("WeChat was called on other paths, too: %+v", w.wechat.Calls())
			}
			w.wechat.Reset()
			w.checkAlive(t, w.login(t, user), w.who(appA, user))
		})
	}
	w.checkAlive(t, w.login(t, "ada"), w.who(appA, "ada"))
}

// TestThreat27_OddUnionid: it is optional, so one that is unfit for a header counts as absent.
func TestThreat27_OddUnionid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	for _, unionid := range []string{`"u\r\nX-Wx-Openid: victim"`, `"联合"`, `7`, `null`, `""`, `{}`} {
		t.Run(unionid, func(t *testing.T) {
			w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultBody, Body: `{"openid":"o1","unionid":` + unionid + `,` + goodKey + `}`})
			s := w.tryLogin(t, "ada").session(t)
			if s.UnionIDBound {
				t.Error("it is bound")
			}
			w.checkAlive(t, s.Token, &identity{openid: "o1", appid: appA})
		})
	}
}

// TestThreat27_LostAnswer: the answer to an exchange on a connection that had served before is lost. Go's transport would send the code a second time by itself; here it is sent once, and the
// client, who must call wx.login again, is told so when it repeats the code.
func TestThreat27_LostAnswer(t *testing.T) {
	t.Parallel()
	for _, kind := range []weixintest.FaultKind{weixintest.FaultLost, weixintest.FaultReset} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{})
			for range 10 {
				w.login(t, "ada") // the connection is kept
				w.wechat.Inject(weixintest.Fault{Kind: kind})
				w.tryLogin(t, "ada").problem(t, http.StatusServiceUnavailable, "wechat_unavailable")
			}
			if n := len(w.wechat.Calls()); n != 20 {
				t.Errorf("WeChat was called %d times for 20 codes: %+v", n, w.wechat.Calls())
			}
			w.wechat.Inject(weixintest.Fault{Kind: kind})
			body := codeBody(w.wechat.Code(appA, "ada"))
			w.post(t, "/wx/login", body).problem(t, http.StatusServiceUnavailable, "wechat_unavailable")
			again := w.post(t, "/wx/login", body)
			if kind == weixintest.FaultLost {
				again.problem(t, http.StatusUnauthorized, "code_used")
			} else {
				again.session(t) // the first never got there
			}
		})
	}
}
