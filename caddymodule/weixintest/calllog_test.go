package weixintest_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

func TestCalls_ThreeLogins_AreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		var seen []weixintest.Call
		cfg.OnCall = func(c weixintest.Call) { seen = append(seen, c) }
		s := weixintest.New(cfg)
		code := s.Code(appA, "alice")
		login(t, s, code)
		time.Sleep(time.Second)
		login(t, s, code)
		login(t, s, "other")
		calls := s.Calls()
		if len(calls) != 3 || len(seen) != 3 || s.Count(loginPath) != 3 || s.Count(tokenPath) != 0 {
			t.Fatalf("%d calls, %d seen, %d counted", len(calls), len(seen), s.Count(loginPath))
		}
		now, openid := time.Now(), s.OpenID(appA, "alice")
		for i, want := range []weixintest.Call{
			{Time: now.Add(-time.Second), ErrCode: 0, User: "alice", OpenID: openid},
			{Time: now, ErrCode: 40163, User: "alice", OpenID: openid},
			{Time: now, ErrCode: 40029},
		} {
			want.Method, want.Path, want.AppID, want.Code = "GET", loginPath, appA, calls[i].Code
			if calls[i] != want || seen[i] != want {
				t.Errorf("call %d: %+v, seen %+v, want %+v", i, calls[i], seen[i], want)
			}
		}
		first, again, other := calls[0].Code, calls[1].Code, calls[2].Code
		if first != again || first == other || len(first) != 4 {
			t.Errorf("codes %q", []string{first, again, other})
		}
		s.Reset()
		if len(s.Calls()) != 0 || s.Count(loginPath) != 0 {
			t.Error("calls survive Reset")
		}
		wantErrCode(t, login(t, s, code), 40163) // codes do
	})
}

func TestThreat28_Calls_HoldNoSecrets(t *testing.T) {
	s := weixintest.New(config())
	code, phone, access := s.Code(appA, "alice"), s.PhoneCode(appA, "13580006666"), token(t, s)
	key := login(t, s, code).text("session_key")
	// Values in the wrong place do not get in either.
	call(t, s, "GET", loginTarget(secretA, appA, code), "")
	signed(t, s, checkPath, "alice", key)
	newKey := signed(t, s, resetPath, "alice", key).text("session_key")
	exchange(t, s, phonePath, phone)
	log, err := json.Marshal(s.Calls())
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{secretA, code, phone, access, key, newKey, "13580006666"} {
		if strings.Contains(string(log), secret) {
			t.Errorf("%q is in %s", secret, log)
		}
	}
}

func TestCalls_Flood_LogIsBounded(t *testing.T) {
	s := weixintest.New(config())
	r := httptest.NewRequest("GET", "/x", nil)
	for range 10001 {
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
	if len(s.Calls()) != 10000 || s.Count("/x") != 10001 {
		t.Errorf("%d calls kept, %d counted", len(s.Calls()), s.Count("/x"))
	}
}
