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
