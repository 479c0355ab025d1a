package weixintest_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

func TestLogin_GoodCode_Answer(t *testing.T) {
	s := weixintest.New(config())
	code := s.Code(appA, "alice")
	if !regexp.MustCompile(`^0[0-9A-Za-z]{31}$`).MatchString(code) {
		t.Errorf("code %q has not the shape of a code", code)
	}
	s.SetUser(appA, "alice", weixintest.UserOptions{SessionKey: "o0q0otL8aEzpcZL/FT9WsQ=="})
	a := login(t, s, code)
	if a.status != 200 || a.mime != "text/plain" {
		t.Errorf("status %d, type %q", a.status, a.mime)
	}
	if _, has := a.fields["errcode"]; has || len(a.fields) != 3 {
		t.Errorf("fields of success: %s", a.raw)
	}
	if a.text("openid") != s.OpenID(appA, "alice") || a.text("unionid") != s.UnionID("alice") ||
		a.text("session_key") != s.SessionKey(appA, "alice") {
		t.Errorf("identity: %s", a.raw)
	}
	if !strings.Contains(a.raw, `o0q0otL8aEzpcZL\/FT9WsQ==`) {
		t.Errorf("slash is not escaped: %s", a.raw)
	}
}

func TestLogin_UsersAndApps_Identities(t *testing.T) {
	s, again := weixintest.New(config()), weixintest.New(config())
	shape := regexp.MustCompile(`^o[A-Za-z0-9_-]{27}$`)
	seen := map[string]bool{}
	for _, id := range []string{
		s.OpenID(appA, "alice"), s.OpenID(appA, "bob"), s.OpenID(appB, "alice"),
		s.UnionID("alice"), s.UnionID("bob"), weixintest.OpenPID(appA, appB, "alice"),
	} {
		if !shape.MatchString(id) || seen[id] {
			t.Errorf("id %q is misshapen or double", id)
		}
		seen[id] = true
	}
	if s.OpenID(appA, "alice") != again.OpenID(appA, "alice") {
		t.Error("openid differs between simulators")
	}
	s.Code(appA, "alice")
	if s.OpenID(appA, "alice") != again.OpenID(appA, "alice") {
		t.Error("openid changes at the first login")
	}
}

func TestLogin_BadParameters_ErrCode(t *testing.T) {
	s := weixintest.New(config())
	without := func(name string) url.Values {
		q := loginQuery(appA, secretA, "021ByuFs0fNXie1T5lJs0IwBFs0ByuF1")
		q.Del(name)
		return q
	}
	set := func(name, value string) url.Values {
		q := without(name)
		q.Set(name, value)
		return q
	}
	for name, c := range map[string]struct {
		query url.Values
		want  int
	}{
		"nothing":            {nil, 41002},
		"no appid":           {without("appid"), 41002},
		"empty appid":        {set("appid", ""), 41002},
		"no secret":          {without("secret"), 41004},
		"no code":            {without("js_code"), 41008},
		"no grant type":      {without("grant_type"), 40002},
		"wrong grant type":   {set("grant_type", "client_credential"), 40002},
		"unknown appid":      {set("appid", "wx0000000000000000"), 40013},
		"appid with a space": {set("appid", appA+" "), 40013},
		"wrong secret":       {set("secret", secretB), 40125},
		"wrong code":         {without("nothing"), 40029},
		"mock code":          {set("js_code", s.Code("wx0000000000000000", "alice")), 40029},
		"foreign code":       {set("js_code", s.Code(appB, "alice")), 40029},
		"phone code":         {set("js_code", s.PhoneCode(appA, "13580006666")), 40029},
		"plugin code":        {set("js_code", s.PluginCode(appA, appB, "alice")), 40029},
	} {
		t.Run(name, func(t *testing.T) {
			a := call(t, s, "GET", loginPath+"?"+c.query.Encode(), "")
			wantErrCode(t, a, c.want)
			if a.status != 200 || a.mime != "text/plain" || len(a.fields) != 2 {
				t.Errorf("status %d, type %q, %s", a.status, a.mime, a.raw)
			}
		})
	}
}

func TestLogin_ParametersInBody_DoNotCount(t *testing.T) {
	s := weixintest.New(config())
	q := loginQuery(appA, secretA, s.Code(appA, "alice"))
	wantErrCode(t, call(t, s, "POST", loginPath, q.Encode()), 41002)
	wantErrCode(t, call(t, s, "GET", loginPath+"?"+q.Encode(), ""), 0)
}

func TestErrMsg_Repeated_TailDiffers(t *testing.T) {
	s := weixintest.New(config())
	tails := []*regexp.Regexp{
		regexp.MustCompile(`^invalid code, rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}$`),
		regexp.MustCompile(`^invalid code, hints: \[ req_id: \w+ \]$`),
	}
	for i := range 4 {
		if msg := login(t, s, "0x").text("errmsg"); !tails[i%2].MatchString(msg) {
			t.Errorf("errmsg %q", msg)
		}
	}
	a := call(t, s, "GET", loginPath+"?"+loginQuery(appA, "wrong", "0x").Encode(), "")
	if !strings.Contains(a.raw, `http:\/\/t.cn\/`) {
		t.Errorf("slashes: %s", a.raw)
	}
}

func TestCode_UsedTwice_40163(t *testing.T) {
	s := weixintest.New(config())
	first, second := s.Code(appA, "alice"), s.Code(appA, "alice")
	foreign := call(t, s, "GET", loginTarget(appB, secretB, first), "")
	wantErrCode(t, foreign, 40029) // and spends nothing
	wantErrCode(t, login(t, s, second), 0)
	wantErrCode(t, login(t, s, first), 0) // a later code does not void an earlier one
	wantErrCode(t, login(t, s, first), 40163)
	wantErrCode(t, login(t, s, second), 40163)
}

func TestCode_AfterFiveMinutes_IsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		late, used, last := s.Code(appA, "alice"), s.Code(appA, "alice"), s.Code(appA, "bob")
		wantErrCode(t, login(t, s, used), 0)
		time.Sleep(5*time.Minute - time.Nanosecond)
		wantErrCode(t, login(t, s, used), 40163)
		wantErrCode(t, login(t, s, last), 0)
		live := s.Code(appA, "alice")
		time.Sleep(time.Nanosecond)
		wantErrCode(t, login(t, s, late), 40029)
		s.Code(appA, "alice") // sweeps the expired ones away
		wantErrCode(t, login(t, s, late), 40029)
		wantErrCode(t, login(t, s, live), 0)
	})
}

func TestConfig_OwnClock_Counts(t *testing.T) {
	cfg := config()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	cfg.Now = func() time.Time { return now }
	s := weixintest.New(cfg)
	code := s.Code(appA, "alice")
	now = now.Add(5 * time.Minute)
	wantErrCode(t, login(t, s, code), 40029)
	if at := s.Calls()[0].Time; !at.Equal(now) {
		t.Errorf("call logged at %v", at)
	}
}

func TestLogin_OverMinuteLimit_45011(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		for range 100 {
			wantErrCode(t, login(t, s, s.Code(appA, "alice")), 0)
		}
		code := s.Code(appA, "alice")
		wantErrCode(t, login(t, s, code), 45011)
		wantErrCode(t, login(t, s, s.Code(appA, "bob")), 0)
		time.Sleep(time.Minute)
		wantErrCode(t, login(t, s, code), 0) // the limit has not spent it
	})
}

func TestSetUser_Options_ChangeLogin(t *testing.T) {
	s := weixintest.New(config())
	set := func(o weixintest.UserOptions) answer {
		s.SetUser(appA, "alice", o)
		return login(t, s, s.Code(appA, "alice"))
	}
	a := set(weixintest.UserOptions{NoUnionID: true})
	if _, has := a.fields["unionid"]; has {
		t.Errorf("unionid of a user without one: %s", a.raw)
	}
	a = set(weixintest.UserOptions{OpenID: "oFixed", UnionID: "oUnion"})
	if a.text("openid") != "oFixed" || a.text("unionid") != "oUnion" ||
		s.OpenID(appA, "alice") != "oFixed" {
		t.Errorf("fixed ids: %s", a.raw)
	}
	wantErrCode(t, set(weixintest.UserOptions{Blocked: true}), 40226)
	a = set(weixintest.UserOptions{})
	if a.text("openid") != s.OpenID(appA, "alice") || a.text("unionid") != s.UnionID("alice") {
		t.Errorf("options are not replaced: %s", a.raw)
	}
}

func exchange(t *testing.T, s *weixintest.Simulator, path, code string) answer {
	t.Helper()
	return call(t, s, "POST", path+"?access_token="+token(t, s), `{"code":"`+code+`"}`)
}

const (
	phonePath  = "/wxa/business/getuserphonenumber"
	pluginPath = "/wxa/getpluginopenpid"
)

func TestPhoneNumber_GoodCode_Answer(t *testing.T) {
	s := weixintest.New(config())
	for phone, want := range map[string][3]string{
		"13580006666":  {"13580006666", "13580006666", "86"},
		"852-51230000": {"85251230000", "51230000", "852"},
	} {
		code := s.PhoneCode(appA, phone)
		a := exchange(t, s, phonePath, code)
		wantErrCode(t, a, 0)
		info, _ := a.fields["phone_info"].(map[string]any)
		mark, _ := info["watermark"].(map[string]any)
		if info["phoneNumber"] != want[0] || info["purePhoneNumber"] != want[1] ||
			info["countryCode"] != want[2] || mark["appid"] != appA ||
			mark["timestamp"] == 0.0 || a.text("errmsg") != "ok" {
			t.Errorf("%s: %s", phone, a.raw)
		}
		wantErrCode(t, exchange(t, s, phonePath, code), 40029)
	}
}

func TestPluginOpenPID_GoodCode_Answer(t *testing.T) {
	s := weixintest.New(config())
	code := s.PluginCode(appA, "wxhost", "alice")
	a := exchange(t, s, pluginPath, code)
	if a.text("openpid") != weixintest.OpenPID(appA, "wxhost", "alice") || a.errcode() != 0 {
		t.Errorf("answer %s", a.raw)
	}
	wantErrCode(t, exchange(t, s, pluginPath, code), 1007)
}

// The three kinds of code are not interchangeable, nor is a code of another
// app.
func TestExchange_CodeOfOtherKind_ErrCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		shape := regexp.MustCompile(`^[0-9a-f]{64}$`)
		expiredPhone := s.PhoneCode(appA, "13580006666")
		expiredPlugin := s.PluginCode(appA, appB, "alice")
		if !shape.MatchString(expiredPhone) || !shape.MatchString(expiredPlugin) {
			t.Errorf("codes %q, %q", expiredPhone, expiredPlugin)
		}
		time.Sleep(5 * time.Minute)
		for name, code := range map[string]string{
			"login": s.Code(appA, "alice"), "plugin": s.PluginCode(appA, appB, "alice"),
			"foreign": s.PhoneCode(appB, "13580006666"), "expired": expiredPhone, "wrong": "x",
			"mock": s.PhoneCode("wx0", "13580006666"),
		} {
			if got := exchange(t, s, phonePath, code).errcode(); got != 40029 {
				t.Errorf("%s code: errcode %d for a phone number", name, got)
			}
		}
		for name, code := range map[string]string{
			"login": s.Code(appA, "alice"), "phone": s.PhoneCode(appA, "13580006666"),
			"foreign": s.PluginCode(appB, appA, "alice"), "expired": expiredPlugin, "wrong": "x",
			"mock": s.PluginCode("wx0", appA, "alice"),
		} {
			if got := exchange(t, s, pluginPath, code).errcode(); got != 1007 {
				t.Errorf("%s code: errcode %d for an openpid", name, got)
			}
		}
	})
}

func TestExchange_BadRequest_ErrCode(t *testing.T) {
	s := weixintest.New(config())
	target := phonePath + "?access_token=" + token(t, s)
	wantErrCode(t, call(t, s, "GET", target, ""), 43002)
	wantErrCode(t, call(t, s, "POST", target, ""), 44002)
	wantErrCode(t, call(t, s, "POST", target, "{"), 47001)
	wantErrCode(t, call(t, s, "POST", target, "{}"), 41008)
	wantErrCode(t, call(t, s, "POST", phonePath, `{"code":"x"}`), 41001)
}

func TestPaidUnionID_Payment_Answer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		s.Code(appA, "bob")
		ask := func(user, order string) answer {
			query := "?access_token=" + token(t, s) + "&openid=" + s.OpenID(appA, user) + order
			return call(t, s, "GET", "/wxa/getpaidunionid"+query, "")
		}
		p := s.Pay(appA, "alice")
		byTransaction := "&transaction_id=" + p.TransactionID
		byOrder := "&mch_id=" + p.MchID + "&out_trade_no=" + p.OutTradeNo
		for _, order := range []string{byTransaction, byOrder} {
			a := ask("alice", order)
			if a.text("unionid") != s.UnionID("alice") || a.errcode() != 0 {
				t.Errorf("answer %s", a.raw)
			}
			wantErrCode(t, ask("bob", order), 89300)
		}
		wantErrCode(t, ask("alice", ""), 89300)
		wantErrCode(t, ask("alice", byOrder+"1"), 89300)
		wantErrCode(t, ask("alice", byOrder+"&transaction_id=1"), 89300)
		wantErrCode(t, ask("nobody", byOrder), 40003)
		s.SetUser(appA, "alice", weixintest.UserOptions{NoUnionID: true})
		wantErrCode(t, ask("alice", byOrder), 89002)
		s.SetUser(appA, "alice", weixintest.UserOptions{})
		time.Sleep(5*time.Minute - time.Nanosecond)
		wantErrCode(t, ask("alice", byOrder), 0)
		time.Sleep(time.Nanosecond)
		wantErrCode(t, ask("alice", byOrder), 89300)
	})
}

func TestServe_UnknownPath_40066(t *testing.T) {
	a := call(t, weixintest.New(config()), "GET", "/sns/userinfo", "")
	if a.status != 200 || a.errcode() != 40066 {
		t.Errorf("status %d, %s", a.status, a.raw)
	}
}

func TestSimulator_UnknownApp_IsEmpty(t *testing.T) {
	s := weixintest.New(config())
	const unknown = "wx0000000000000000"
	s.SetUser(unknown, "alice", weixintest.UserOptions{OpenID: "oFixed"})
	if s.Code(unknown, "alice") != weixintest.MockCode || s.SessionKey(unknown, "alice") != "" ||
		s.RotateKey(unknown, "alice") != "" || s.Pay(unknown, "alice") != (weixintest.Payment{}) ||
		s.OpenID(unknown, "alice") == "oFixed" {
		t.Error("an unknown appid has users")
	}
}
