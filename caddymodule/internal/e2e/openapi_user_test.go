package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// userCall makes a user call of an app.
func userCall(tb testing.TB, api, name string, body map[string]any) reply {
	tb.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	return ask(tb, api, "POST", "/wx/user/"+name, string(b), "Content-Type: application/json")
}

// object reads the JSON that the gate answers with.
func (r reply) object(tb testing.TB) map[string]any {
	tb.Helper()
	r.made(tb, 200)
	var got map[string]any
	if err := json.Unmarshal([]byte(r.body), &got); err != nil ||
		r.header.Get("Content-Type") != "application/json" {
		tb.Fatalf("no JSON object: %s", r)
	}
	return got
}

// sealed is open data as wx.getUserInfo gives it to the client.
func (w *world) sealed(tb testing.TB, user, data string) map[string]any {
	tb.Helper()
	s, err := w.wechat.Encrypt(appA, user, json.RawMessage(data))
	if err != nil {
		tb.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		tb.Fatal(err)
	}
	got := make(map[string]any)
	if err := json.Unmarshal(b, &got); err != nil {
		tb.Fatal(err)
	}
	got["openid"] = w.wechat.OpenID(appA, user)
	return got
}

// audited demands that the audit log has n lines with a message.
func (w *world) audited(tb testing.TB, message string, n int) {
	tb.Helper()
	w.gate.logs(tb, 0, map[string]int{`"logger":"wechat.audit","msg":"` + message + `"`: n})
}

// TestUserCalls makes the calls that need a session_key, which the gate keeps.
func TestUserCalls(t *testing.T) {
	t.Parallel()
	w, api := apiWorld(t, setup{}, "")
	t.Run("payment", func(t *testing.T) { paidCalls(t, w, api) })
	t.Run("session_key", func(t *testing.T) { keyCalls(t, w, api) })
	t.Run("refused", func(t *testing.T) { refusedCalls(t, w, api) })
}

// keyCalls is the life of a user whose key is reset, rotated and forgotten.
func keyCalls(t *testing.T, w *world, api string) {
	w.wechat.SetUser(appA, "ada", weixintest.UserOptions{NoUnionID: true})
	token := w.login(t, "ada")
	openid := w.wechat.OpenID(appA, "ada")
	ada := map[string]any{"openid": openid}
	first := w.wechat.SessionKey(appA, "ada")

	if got := userCall(t, api, "checksession", ada).object(t); got["valid"] != true {
		t.Errorf("checksession: %v", got)
	}

	data := w.sealed(t, "ada", `{"nickName":"A <b>","openId":"`+openid+`","unionId":"u-of-ada"}`)
	if got := userCall(t, api, "decrypt", data).object(t); got["nickName"] != "A <b>" ||
		got["unionId"] != "u-of-ada" {
		t.Errorf("decrypt: %v", got)
	}
	w.checkAlive(t, token, &identity{openid: openid, unionid: "u-of-ada", appid: appA})
	data["iv"] = "AAAAAAAAAAAAAAAAAAAAAA=="
	userCall(t, api, "decrypt", data).problem(t, 422, "data_invalid")

	userCall(t, api, "resetusersessionkey", ada).made(t, 204)
	second := w.wechat.SessionKey(appA, "ada")
	if second == first {
		t.Fatal("the key was not reset")
	}
	if got := userCall(t, api, "checksession", ada).object(t); got["valid"] != true {
		t.Errorf("checksession after a reset: %v", got)
	}
	userCall(t, api, "decrypt", w.sealed(t, "ada", `{"step":1}`)).object(t)
	w.audited(t, "session_key reset", 1)

	keys := userCall(t, api, "getuserencryptkey", ada).object(t)["key_info_list"].([]any)
	for _, name := range []string{"encrypt_key", "iv", "version", "expire_in", "create_time"} {
		if keys[0].(map[string]any)[name] == nil {
			t.Errorf("getuserencryptkey: no %s in %v", name, keys)
		}
	}

	// The phone tells the gate nothing of this.
	w.wechat.RotateKey(appA, "ada")
	if got := userCall(t, api, "checksession", ada).object(t); got["valid"] != false {
		t.Errorf("checksession with another key: %v", got)
	}
	for _, name := range []string{"resetusersessionkey", "getuserencryptkey"} {
		r := userCall(t, api, name, ada)
		if r.problem(t, 409, "session_key_stale"); !strings.Contains(r.body, `"login_again":true`) {
			t.Errorf("%s: %s", name, r)
		}
	}
	if strings.Contains(w.out.String(), first) || strings.Contains(w.out.String(), second) {
		t.Error("a session_key is in the log")
	}

	userCall(t, api, "revoke", ada).made(t, 204)
	w.checkDead(t, token)
	w.audited(t, "sessions revoked by the app", 1)

	token = w.loginTo(t, appA, "ada")
	userCall(t, api, "forget", ada).made(t, 204)
	w.checkDead(t, token)
	userCall(t, api, "checksession", ada).problem(t, 404, "user_unknown")
	w.audited(t, "user forgotten by the app", 1)
}

// paidCalls binds the unionid that a payment brings.
func paidCalls(t *testing.T, w *world, api string) {
	w.wechat.SetUser(appA, "pia", weixintest.UserOptions{NoUnionID: true})
	token := w.login(t, "pia")
	openid := w.wechat.OpenID(appA, "pia")
	w.wechat.SetUser(appA, "pia", weixintest.UserOptions{UnionID: "u-paid"})
	p := w.wechat.Pay(appA, "pia")

	userCall(t, api, "getpaidunionid",
		map[string]any{"openid": openid, "transaction_id": "0"}).problem(t, 422, "order_invalid")
	w.checkAlive(t, token, &identity{openid: openid, appid: appA})
	for _, order := range []map[string]any{
		{"openid": openid, "transaction_id": p.TransactionID},
		{"openid": openid, "mch_id": p.MchID, "out_trade_no": p.OutTradeNo},
	} {
		if got := userCall(t, api, "getpaidunionid", order).object(t); got["unionid"] != "u-paid" {
			t.Errorf("getpaidunionid: %v", got)
		}
		w.checkAlive(t, token, &identity{openid: openid, unionid: "u-paid", appid: appA})
	}
	w.audited(t, "unionid bound", 1)
}

// refusedCalls answers calls that it cannot serve with their codes.
// FuzzUserCall and TestUserCallsRefused have the rest.
func refusedCalls(t *testing.T, w *world, api string) {
	w.login(t, "bob")
	openid := w.wechat.OpenID(appA, "bob")
	bob := map[string]any{"openid": openid}
	for _, name := range []string{
		"checksession", "resetusersessionkey", "getuserencryptkey", "decrypt", "getpaidunionid",
	} {
		body := map[string]any{
			"openid": "nobody", "encryptedData": "AAAA", "iv": "AAAA", "transaction_id": "1",
		}
		userCall(t, api, name, body).problem(t, 404, "user_unknown")
		body["appid"] = appB
		userCall(t, api, name, body).problem(t, 403, "app_not_allowed")
		userCall(t, api, name, map[string]any{"openid": "\u00e9"}).
			problem(t, 400, "invalid_request")
		ask(t, api, "GET", "/wx/user/"+name, "").problem(t, 405, "invalid_request")
		ask(t, api, "POST", "/wx/user/"+name, "{}").problem(t, 415, "invalid_request")
		userCall(t, api, name, map[string]any{"openid": strings.Repeat("x", 70<<10)}).
			problem(t, 413, "invalid_request")
	}
	for _, target := range []string{
		"/wx/user/", "/wx/user/code2session", "/wx/user/checksession/",
	} {
		ask(t, api, "POST", target, "{}").problem(t, 404, "not_found")
	}
	for _, tt := range []struct {
		fault  weixintest.Fault
		status int
		code   string
	}{
		{weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: 45009}, 429, "rate_limited"},
		{weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: 48001}, 502, "misconfigured"},
		{weixintest.Fault{Kind: weixintest.FaultReset, Times: 2}, 503, "wechat_unavailable"},
	} {
		tt.fault.Path = "/wxa/checksession"
		w.wechat.Inject(tt.fault)
		userCall(t, api, "checksession", bob).problem(t, tt.status, tt.code)
		w.wechat.Reset()
	}
	if got := userCall(t, api, "checksession", bob).object(t); got["valid"] != true {
		t.Errorf("after all that: %v", got)
	}
	for _, name := range []string{"revoke", "forget"} {
		userCall(t, api, name, map[string]any{"openid": "nobody"}).made(t, 204)
	}
}
