package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// fault is one way in which WeChat fails and what the client must be told
// (docs/design.md#wire). An empty code means a good login.
type fault struct {
	name   string
	inject weixintest.Fault
	status int
	code   string
	calls  int // of WeChat; default 1
}

func errcode(n, status int, code string) fault {
	return fault{
		name:   fmt.Sprint("errcode ", n),
		inject: weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: n}, status: status,
		code: code,
	}
}

func answers(name, body string) fault {
	return fault{
		name: name, inject: weixintest.Fault{Kind: weixintest.FaultBody, Body: body}, status: 503,
		code: "wechat_unavailable",
	}
}

func breaks(name string, f weixintest.Fault) fault {
	return fault{name: name, inject: f, status: 503, code: "wechat_unavailable"}
}

const goodKey = `"session_key":"AAAAAAAAAAAAAAAAAAAAAA=="`

// faults has one of each kind. That all error codes and all nonsense are told
// apart is TestErrcodes' and TestThreat27_Nonsense's, in package weixin.
var faults = []fault{
	breaks("slow beyond the time-out",
		weixintest.Fault{Kind: weixintest.FaultSlow, Delay: time.Minute}),
	breaks("hang", weixintest.Fault{Kind: weixintest.FaultHang}),
	breaks("reset", weixintest.Fault{Kind: weixintest.FaultReset}),
	breaks("lost", weixintest.Fault{Kind: weixintest.FaultLost}),
	breaks("truncated", weixintest.Fault{Kind: weixintest.FaultTruncated}),
	breaks("status 502", weixintest.Fault{Kind: weixintest.FaultStatus, Status: 502}),
	breaks("html", weixintest.Fault{Kind: weixintest.FaultHTML}),
	breaks("endless", weixintest.Fault{Kind: weixintest.FaultEndless}),
	breaks("redirect", weixintest.Fault{Kind: weixintest.FaultRedirect, Location: exchangePath}),

	errcode(40029, 401, "code_invalid"),
	errcode(40163, 401, "code_used"),
	errcode(40226, 403, "user_blocked"),
	errcode(45011, 429, "rate_limited"),
	errcode(40125, 502, "misconfigured"),
	errcode(99999, 502, "misconfigured"),
	{
		name:   "errcode -1 once",
		inject: weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: -1}, calls: 2,
	},
	{
		name: "errcode -1 twice", calls: 2, status: 503, code: "wechat_unavailable",
		inject: weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: -1, Times: 2},
	},
	{
		name: "errcode as a string", status: 401, code: "code_used",
		inject: weixintest.Fault{Kind: weixintest.FaultErrCodeString, ErrCode: 40163},
	},

	answers("empty", ""),
	answers("no openid", `{`+goodKey+`}`),
	answers("openid with CR LF", `{"openid":"o1\r\nX-Wx-Openid: victim",`+goodKey+`}`),
	answers("huge", `{"openid":"o1",`+goodKey+`,"x":"`+strings.Repeat("x", 1<<17)+`"}`),
	{
		name: "errcode beside an openid", status: 401, code: "code_invalid",
		inject: weixintest.Fault{
			Kind: weixintest.FaultBody, Body: `{"errcode":40029,"openid":"o1",` + goodKey + `}`,
		},
	},

	// Judged by what it holds, never by status or type.
	{name: "good answer with status 500", inject: weixintest.Fault{
		Kind: weixintest.FaultBody, Status: 500, Body: `{"openid":"o1",` + goodKey + `}`,
	}},
	{name: "unionid unfit for a header", inject: weixintest.Fault{
		Kind: weixintest.FaultBody, Body: `{"openid":"o1","unionid":"联合\r\n",` + goodKey + `}`,
	}},
}

// TestThreat27_WeChatFails answers each failure as docs/design.md#wire says.
// Nothing is half created, no code is sent twice, and the next login works.
func TestThreat27_WeChatFails(t *testing.T) {
	t.Parallel()
	// One session a user: a login that came to nothing must not have ended the
	// session that is there.
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
			for _, leak := range []string{
				"canary", "victim", "openid", "secret", fmt.Sprint(f.inject.ErrCode),
			} {
				if leak != "0" && strings.Contains(r.body, leak) {
					t.Errorf("the client is told %q: %s", leak, r.body)
				}
			}
			if n := w.wechat.Count(exchangePath); n != max(f.calls, 1) {
				t.Errorf("WeChat was called %d times, want %d: %+v", n, max(f.calls, 1),
					w.wechat.Calls())
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
