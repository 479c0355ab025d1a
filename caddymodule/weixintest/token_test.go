package weixintest_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const tokenPath = "/cgi-bin/stable_token"

func tokenBody(grant, appid, secret, force string) string {
	return fmt.Sprintf(`{"grant_type":%q,"appid":%q,"secret":%q,"force_refresh":%s}`,
		grant, appid, secret, force)
}

func force(t *testing.T, s *weixintest.Simulator) answer {
	t.Helper()
	return call(t, s, "POST", tokenPath, tokenBody("client_credential", appA, secretA, "true"))
}

// use calls a path that needs an access_token; 40003 says that the token was
// good.
func use(t *testing.T, s *weixintest.Simulator, token string) int {
	t.Helper()
	return call(t, s, "GET", "/wxa/checksession?access_token="+token, "").errcode()
}

func TestToken_Life_Renewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		a := call(t, s, "POST", tokenPath, tokenBody("client_credential", appA, secretA, "false"))
		first := a.text("access_token")
		if len(first) < 100 || a.fields["expires_in"] != 7200.0 || len(a.fields) != 2 {
			t.Fatalf("answer %s", a.raw)
		}
		time.Sleep(2*time.Hour - 5*time.Minute - time.Second)
		a = call(t, s, "POST", tokenPath, tokenBody("client_credential", appA, secretA, "false"))
		if a.text("access_token") != first || a.fields["expires_in"] != 301.0 {
			t.Errorf("before the last 5 minutes: %s", a.raw)
		}
		time.Sleep(time.Second)
		second := token(t, s)
		if second == first {
			t.Error("not renewed in the last 5 minutes")
		}
		time.Sleep(5*time.Minute - time.Nanosecond)
		for _, tok := range []string{first, second} {
			if code := use(t, s, tok); code != 40003 {
				t.Errorf("errcode %d while both are valid", code)
			}
		}
		time.Sleep(time.Nanosecond)
		if code := use(t, s, first); code != 42001 {
			t.Errorf("errcode %d for the expired token", code)
		}
		if code := use(t, s, second); code != 40003 {
			t.Errorf("errcode %d for the new token", code)
		}
	})
}

func TestToken_ForceRefresh_Limits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		old := token(t, s)
		a := force(t, s)
		wantErrCode(t, a, 0)
		if code := use(t, s, old); code != 40001 {
			t.Errorf("errcode %d for the token before", code)
		}
		if token(t, s) != a.text("access_token") {
			t.Error("normal mode differs from the forced token")
		}
		time.Sleep(30*time.Second - time.Nanosecond)
		wantErrCode(t, force(t, s), 45011)
		time.Sleep(time.Nanosecond)
		for range 19 {
			wantErrCode(t, force(t, s), 0)
			time.Sleep(30 * time.Second)
		}
		wantErrCode(t, force(t, s), 45009)
		time.Sleep(24*time.Hour - 20*30*time.Second)
		wantErrCode(t, force(t, s), 0)
	})
}

func TestToken_BadRequest_ErrCode(t *testing.T) {
	s := weixintest.New(config())
	for name, c := range map[string]struct {
		method, body string
		want         int
	}{
		"GET":           {"GET", "", 43002},
		"no body":       {"POST", "", 44002},
		"form body":     {"POST", "grant_type=client_credential", 47001},
		"no appid":      {"POST", `{}`, 41002},
		"no secret":     {"POST", tokenBody("client_credential", appA, "", "false"), 41004},
		"grant type":    {"POST", tokenBody("authorization_code", appA, secretA, "false"), 40002},
		"unknown appid": {"POST", tokenBody("client_credential", "wx0", secretA, "false"), 40013},
		"wrong secret":  {"POST", tokenBody("client_credential", appA, secretB, "false"), 40125},
	} {
		t.Run(name, func(t *testing.T) {
			wantErrCode(t, call(t, s, c.method, tokenPath, c.body), c.want)
		})
	}
}

func TestAccessToken_Bad_ErrCode(t *testing.T) {
	s := weixintest.New(config())
	good, other := token(t, s), token(t, weixintest.New(config()))
	for name, c := range map[string]struct {
		token string
		want  int
	}{
		"missing":   {"", 41001},
		"malformed": {"xyz", 40014},
		"cut":       {good[:len(good)-1], 40014},
		"unknown":   {other, 40001},
		"good":      {good, 40003},
	} {
		for _, path := range []string{
			checkPath, resetPath, "/wxa/getpaidunionid", encryptKeyPath,
		} {
			a := call(t, s, "GET", path+"?access_token="+c.token, "")
			if got := a.errcode(); got != c.want {
				t.Errorf("%s token on %s: errcode %d, want %d", name, path, got, c.want)
			}
		}
	}
	if strings.ContainsAny(good, "/+=") {
		t.Errorf("token %q needs escaping", good)
	}
}
