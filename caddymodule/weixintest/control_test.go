package weixintest_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

func post(t *testing.T, s *weixintest.Simulator, path, body string) answer {
	t.Helper()
	a := call(t, s, "POST", "/_sim/"+path, body)
	if a.status != 200 {
		t.Fatalf("%s: status %d, %s", path, a.status, a.raw)
	}
	return a
}

const alice = `"appid":"` + appA + `","user":"alice"`

func TestControl_Codes_AreGood(t *testing.T) {
	s := weixintest.New(config())
	a := login(t, s, post(t, s, "code", `{`+alice+`}`).text("code"))
	if a.text("openid") != s.OpenID(appA, "alice") {
		t.Errorf("login: %s", a.raw)
	}
	a = post(t, s, "phone_code", `{"appid":"`+appA+`","phone":"13580006666"}`)
	a = exchange(t, s, phonePath, a.text("code"))
	if !strings.Contains(a.raw, "13580006666") {
		t.Errorf("phone: %s", a.raw)
	}
	a = post(t, s, "plugin_code", `{"plugin":"`+appA+`","host":"wxhost","user":"alice"}`)
	a = exchange(t, s, pluginPath, a.text("code"))
	if a.text("openpid") != weixintest.OpenPID(appA, "wxhost", "alice") {
		t.Errorf("plugin: %s", a.raw)
	}
}

func TestControl_User_IsChanged(t *testing.T) {
	s := weixintest.New(config())
	const key = "o0q0otL8aEzpcZL/FT9WsQ=="
	a := post(t, s, "user", `{`+alice+`,"openid":"oFixed","unionid":"oUnion",
		"session_key":"`+key+`","key_refresh":"-1ns"}`)
	if a.text("openid") != "oFixed" || a.text("unionid") != "oUnion" ||
		a.text("session_key") != key {
		t.Errorf("user: %s", a.raw)
	}
	if login(t, s, s.Code(appA, "alice")).text("session_key") == a.text("session_key") {
		t.Error("key_refresh has no effect")
	}
	a = post(t, s, "rotate_key", `{`+alice+`}`)
	if a.text("session_key") != s.SessionKey(appA, "alice") || a.text("openid") != "oFixed" {
		t.Errorf("rotate_key: %s", a.raw)
	}
	a = post(t, s, "user", `{`+alice+`,"no_unionid":true,"blocked":true}`)
	if _, has := a.fields["unionid"]; has || a.text("openid") != s.OpenID(appA, "alice") {
		t.Errorf("user: %s", a.raw)
	}
	wantErrCode(t, login(t, s, s.Code(appA, "alice")), 40226)
	a = post(t, s, "encrypt", `{`+alice+`,"data":{"nickName":"Band"}}`)
	plain, err := unseal(s.SessionKey(appA, "alice"), a.text("iv"), a.text("encryptedData"))
	if err != nil || !strings.HasPrefix(plain, `{"nickName":"Band","watermark":{`) ||
		a.text("rawData") != `{"nickName":"Band"}` || a.text("signature") == "" {
		t.Errorf("encrypt: %v, %s", err, a.raw)
	}
	if a = post(t, s, "pay", `{`+alice+`}`); a.text("transaction_id") == "" {
		t.Errorf("pay: %s", a.raw)
	}
}

func TestControl_FaultsAndCalls_Work(t *testing.T) { synctest.Test(t, testControlFaultsAndCalls) }

func testControlFaultsAndCalls(t *testing.T) {
	s := weixintest.New(config())
	a := call(t, s, "POST", "/_sim/fault", `{"kind":"errcode","errcode":-1,"path":"`+loginPath+`",
		"times":2,"delay":"1h"}`)
	if a.status != 204 {
		t.Fatalf("status %d, %s", a.status, a.raw)
	}
	begin := time.Now()
	wantErrCode(t, login(t, s, "0x"), -1)
	if d := time.Since(begin); d != time.Hour {
		t.Errorf("delay of %v", d)
	}
	a = call(t, s, "GET", "/_sim/calls", "")
	counts, _ := a.fields["counts"].(map[string]any)
	calls, _ := a.fields["calls"].([]any)
	if len(calls) != 1 || counts[loginPath] != 1.0 {
		t.Fatalf("calls: %s", a.raw)
	}
	c := calls[0].(map[string]any)
	if c["errcode"] != -1.0 || c["fault"] != "errcode" || c["path"] != loginPath {
		t.Errorf("call %v", c)
	}
	if a := call(t, s, "POST", "/_sim/reset", ""); a.status != 204 || len(s.Calls()) != 0 {
		t.Errorf("reset: status %d, calls %v", a.status, s.Calls())
	}
	wantErrCode(t, login(t, s, "0x"), 40029)
	a = call(t, s, "GET", "/_sim/calls", "")
	if !strings.Contains(a.raw, `"calls":[{`) || strings.Contains(a.raw, `_sim`) {
		t.Errorf("calls: %s", a.raw)
	}
}

func TestControl_BadRequest_400(t *testing.T) {
	s := weixintest.New(config())
	for name, c := range map[string]struct{ path, body, holds string }{
		"unknown field":   {"code", `{` + alice + `,"usr":"alice"}`, `unknown field \"usr\"`},
		"in a fault":      {"fault", `{"kind":"hang","sleep":1}`, `unknown field \"sleep\"`},
		"in user options": {"user", `{` + alice + `,"union":"x"}`, `unknown field \"union\"`},
		"in reset":        {"reset", `{"all":true}`, `unknown field \"all\"`},
		"duration":        {"fault", `{"kind":"slow","delay":"soon"}`, `invalid duration`},
		"number for time": {"fault", `{"kind":"slow","delay":5}`, `cannot unmarshal`},
		"every":           {"fault", `{"kind":"html","every":-1}`, `is negative`},
		"secret appid":    {"secret", `{"secret":"x"}`, `unknown appid`},
		"fault kind":      {"fault", `{"kind":"explode"}`, `unknown fault kind \"explode\"`},
		"two values":      {"code", `{` + alice + `}{}`, `more than one`},
		"not JSON":        {"code", `appid=x`, `invalid character`},
		"code appid":      {"code", `{"appid":"wx0","user":"alice"}`, `unknown appid \"wx0\"`},
		"phone appid":     {"phone_code", `{}`, `unknown appid`},
		"plugin appid":    {"plugin_code", `{"host":"` + appA + `"}`, `unknown appid`},
		"user appid":      {"user", `{"user":"alice"}`, `unknown appid`},
		"rotate appid":    {"rotate_key", `{"user":"alice"}`, `unknown appid`},
		"pay appid":       {"pay", `{"user":"alice"}`, `unknown appid`},
		"encrypt appid":   {"encrypt", `{"user":"alice","data":{}}`, `unknown appid`},
		"encrypt data":    {"encrypt", `{` + alice + `,"data":[1]}`, `not a JSON object`},
		"encrypt nothing": {"encrypt", `{` + alice + `}`, `not a JSON object`},
	} {
		t.Run(name, func(t *testing.T) {
			a := call(t, s, "POST", "/_sim/"+c.path, c.body)
			if a.status != 400 || !strings.Contains(a.raw, c.holds) {
				t.Errorf("status %d, %s", a.status, a.raw)
			}
		})
	}
}

func TestThreat31_Control_WebPage_403(t *testing.T) {
	s := weixintest.New(config())
	for name, c := range map[string]struct {
		header, value string
		want          int
	}{
		"curl":        {"Accept", "*/*", 200},
		"address bar": {"Sec-Fetch-Site", "none", 200},
		"cross-site":  {"Sec-Fetch-Site", "cross-site", 403},
		"same-site":   {"Sec-Fetch-Site", "same-site", 403},
		"same-origin": {"Sec-Fetch-Site", "same-origin", 403},
		"origin":      {"Origin", "http://evil.example", 403},
		"own origin":  {"Origin", "http://example.com", 403},
		"null origin": {"Origin", "null", 403},
		"no origin":   {"Origin", "", 403},
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.NewReader(`{` + alice + `}`)
			r := httptest.NewRequest("POST", "http://example.com/_sim/code", body)
			r.Header.Set(c.header, c.value)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("status %d, %s", w.Code, w.Body)
			}
		})
	}
}
