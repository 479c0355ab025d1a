package e2e_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// TestP6_OpenAPIShowsNoSecret makes calls and failures of all kinds at debug
// level, with access log and traces, and searches all output and answers for
// access token, session_key, AppSecret and keys to user data.
func TestP6_OpenAPIShowsNoSecret(t *testing.T) {
	t.Parallel()
	secrets := canaries{"the AppSecret": secretOf(appA)}
	w, api := apiWorld(t, setup{
		timeout: "1s",
		options: "\tdebug\n\tmetrics\n\tservers {\n\t\ttrace\n\t}\n\tlog {\n\t\tlevel DEBUG\n\t}",
		site:    "\tlog",
	}, "\t\ttimeout 1s")
	var answers strings.Builder
	call := func(method, target, body string) reply {
		r := ask(t, api, method, target, body, "Content-Type: application/json", "Cookie: a=b")
		fmt.Fprintln(&answers, r)
		return r
	}
	user := func(name, body string) { call("POST", "/wx/user/"+name, body) }

	w.login(t, "ada")
	openid := w.wechat.OpenID(appA, "ada")
	ada := fmt.Sprintf(`{"openid":%q}`, openid)
	secrets["a session_key"] = w.wechat.SessionKey(appA, "ada")
	if raw, err := base64.StdEncoding.DecodeString(secrets["a session_key"]); err == nil {
		secrets["a session_key, decoded"] = string(raw)
	}
	message := fmt.Sprintf(`{"touser":%q,"template_id":"t","data":{}}`, openid)
	exercise := func() {
		call("POST", "/cgi-bin/message/subscribe/send", message)
		call("POST", "/wxa/getwxacodeunlimit", `{"scene":"a"}`)
		call("GET", "/cgi-bin/token?grant_type=client_credential", "")
		call("GET", "/wxa/nothing", "")
		call("POST", "/wxa/resetusersessionkey?openid="+openid, "")
		for name := range map[string]bool{
			"checksession": true, "decrypt": true, "getpaidunionid": true, "getpluginopenpid": true,
			"nothing": true,
		} {
			user(name, ada)
			user(name, `{"openid":1}`)
		}
		// What it answers belongs to the app, and nobody else: the answer is
		// not searched, the log is.
		for _, key := range userCall(t, api, "getuserencryptkey",
			map[string]any{"openid": openid}).object(t)["key_info_list"].([]any) {
			secrets["a user's encryption key"] = key.(map[string]any)["encrypt_key"].(string)
		}
	}
	exercise()
	token := w.stableToken(t)
	secrets["the access token"] = token

	for _, f := range []weixintest.Fault{
		{Kind: weixintest.FaultErrCode, ErrCode: 40001, ErrMsg: "echo " + secretOf(appA)},
		{
			Kind:     weixintest.FaultRedirect,
			Location: "https://elsewhere.example/?access_token=" + token,
		},
		{Kind: weixintest.FaultStatus, Status: 503},
		{Kind: weixintest.FaultBody, Body: "HTTP/1.1 200 OK"},
		{Kind: weixintest.FaultReset},
		{Kind: weixintest.FaultLost},
		{Kind: weixintest.FaultHang},
		{Kind: weixintest.FaultTruncated},
	} {
		for _, path := range []string{"/cgi-bin/message/subscribe/send", "/wxa/checksession"} {
			f.Path, f.Times = path, 2
			w.wechat.Inject(f)
		}
		quiet := f.ErrMsg != "" // an errmsg is WeChat's word to the app, whatever it holds
		if quiet {
			ask(t, api, "POST", "/cgi-bin/message/subscribe/send", message)
		} else {
			call("POST", "/cgi-bin/message/subscribe/send", message)
		}
		user("checksession", ada)
		w.wechat.Reset()
	}
	user("resetusersessionkey", ada)
	secrets["the session_key after a reset"] = w.wechat.SessionKey(appA, "ada")
	w.mustReload(t, w.setup)
	exercise()
	user("revoke", ada)

	for _, path := range []string{
		"/config/", "/metrics", "/reverse_proxy/upstreams", "/debug/pprof/goroutine?debug=2",
	} {
		got := w.adminGet(t, path)
		secrets.find(t, path, got)
		if path == "/metrics" && !strings.Contains(got,
			`caddy_wechat_api_calls_total{path="/cgi-bin/message/*",result="ok"}`) {
			t.Error("the calls are not counted by the pattern of their path")
		}
	}
	if n := w.gate.stop(t); n != 0 {
		t.Errorf("the gate ends with %d", n)
	}
	printed := w.out.String()
	for _, kind := range []string{
		`"level":"debug"`, "upstream roundtrip", "handled request", "call refused",
		`"logger":"wechat.audit"`,
	} {
		if !strings.Contains(printed, kind) {
			t.Errorf("the log does not hold %q: the search would find nothing", kind)
		}
	}
	secrets.find(t, "the log", printed)
	delete(secrets, "a user's encryption key")
	secrets.find(t, "an answer", answers.String())
}

// stableToken returns the access token that the gate uses: in normal mode
// WeChat gives everybody the same (docs/wechat.md#stable-token).
func (w *world) stableToken(tb testing.TB) string {
	tb.Helper()
	resp, err := http.Post(w.wechat.URL+"/cgi-bin/stable_token", "application/json",
		strings.NewReader(fmt.Sprintf(`{"grant_type":"client_credential","appid":%q,"secret":%q}`,
			appA, secretOf(appA))))
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	return readToken(tb, resp)
}
