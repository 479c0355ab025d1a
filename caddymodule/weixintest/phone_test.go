package weixintest_test

import (
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

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
