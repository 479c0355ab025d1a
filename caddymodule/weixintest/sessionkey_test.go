package weixintest_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	checkPath      = "/wxa/checksession"
	resetPath      = "/wxa/resetusersessionkey"
	encryptKeyPath = "/wxa/business/getuserencryptkey"
)

func signed(t *testing.T, s *weixintest.Simulator, path, user, key string) answer {
	t.Helper()
	sum := hmac.New(sha256.New, []byte(key)).Sum(nil)
	return signedWith(t, s, path, user, hex.EncodeToString(sum), "hmac_sha256")
}

func signedWith(
	t *testing.T, s *weixintest.Simulator, path, user, signature, method string,
) answer {
	t.Helper()
	q := url.Values{
		"access_token": {token(t, s)}, "openid": {s.OpenID(appA, user)},
		"signature": {signature}, "sig_method": {method},
	}
	return call(t, s, "GET", path+"?"+q.Encode(), "")
}

// Test vectors of docs/wechat.md#check-session-key.
func TestCheckSession_Vectors_Match(t *testing.T) {
	s := weixintest.New(config())
	for name, v := range map[string]struct{ key, signature string }{
		"M2": {
			"o0q0otL8aEzpcZL/FT9WsQ==",
			"46e043c5525c2d817c44be603d30837a808a1d930d038f6fdc3e62a201fed128",
		},
		"M3": {
			"HyVFkGl5F5OQWJZZaNzBBg==",
			"252b75c92698025afe925b29cca5517fdf9ee67aae072cf3225ebf3a53783058",
		},
		"M4": {
			"tiihtNczf5v6AKRyjwEUhQ==",
			"7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.SetUser(appA, "alice", weixintest.UserOptions{SessionKey: v.key})
			a := signedWith(t, s, checkPath, "alice", v.signature, "hmac_sha256")
			if a.raw != `{"errcode":0,"errmsg":"ok"}` {
				t.Errorf("answer %s", a.raw)
			}
		})
	}
	const swapped = "960b00797a7ea423d40216c7e6e9c227ce79ab6535f7bd1b47eac64555a08085"
	s.SetUser(appA, "alice", weixintest.UserOptions{SessionKey: "o0q0otL8aEzpcZL/FT9WsQ=="})
	wantErrCode(t, signedWith(t, s, checkPath, "alice", swapped, "hmac_sha256"), 87009)
}

func TestCheckSession_BadSignature_ErrCode(t *testing.T) {
	s := weixintest.New(config())
	key := s.SessionKey(appA, "alice")
	wantErrCode(t, signed(t, s, checkPath, "nobody", key), 40003)
	wantErrCode(t, signedWith(t, s, checkPath, "alice", "", "hmac_sha256"), 87009)
	wantErrCode(t, signedWith(t, s, checkPath, "alice", "", "md5"), 40097)
	wantErrCode(t, call(t, s, "POST", checkPath, ""), 43001)
	s.RotateKey(appA, "alice")
	wantErrCode(t, signed(t, s, checkPath, "alice", key), 87009)
	s.SetUser(appA, "fresh", weixintest.UserOptions{}) // known, but has no session_key
	wantErrCode(t, signed(t, s, checkPath, "fresh", ""), 87009)
}

func TestSessionKey_Logins_RenewAndExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		key := func() string { return login(t, s, s.Code(appA, "alice")).text("session_key") }
		first := key()
		raw, err := base64.StdEncoding.DecodeString(first)
		if err != nil || len(raw) != 16 || len(first) != 24 {
			t.Errorf("session_key %q", first)
		}
		time.Sleep(weixintest.DefaultKeyRefresh - time.Nanosecond)
		if key() != first {
			t.Error("renewed too early")
		}
		time.Sleep(time.Nanosecond)
		code := s.Code(appA, "alice")
		second := s.SessionKey(appA, "alice")
		if second == first || login(t, s, code).text("session_key") != second {
			t.Error("wx.login after the period has not renewed the key")
		}
		s.SetUser(appA, "alice", weixintest.UserOptions{KeyRefresh: -1})
		if third := key(); third == second || key() == third {
			t.Error("not renewed at each login")
		}
		s.SetUser(appA, "alice", weixintest.UserOptions{KeyRefresh: 1000 * time.Hour})
		last := key()
		time.Sleep(72*time.Hour - time.Nanosecond)
		wantErrCode(t, signed(t, s, checkPath, "alice", last), 0)
		time.Sleep(time.Nanosecond)
		wantErrCode(t, signed(t, s, checkPath, "alice", last), 87009)
		if key() == last {
			t.Error("a dead key survives a login")
		}
	})
}

func TestResetSessionKey_OldKey_IsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		old := s.SessionKey(appA, "alice")
		time.Sleep(time.Hour)
		a := signed(t, s, resetPath, "alice", old)
		wantErrCode(t, a, 0)
		key := a.text("session_key")
		if key == old || key != s.SessionKey(appA, "alice") ||
			a.text("openid") != s.OpenID(appA, "alice") || a.text("errmsg") != "ok" {
			t.Errorf("answer %s", a.raw)
		}
		wantErrCode(t, signed(t, s, resetPath, "alice", old), 87009)
		time.Sleep(71*time.Hour - time.Nanosecond)
		wantErrCode(t, signed(t, s, checkPath, "alice", key), 0)
		time.Sleep(time.Nanosecond)
		wantErrCode(t, signed(t, s, checkPath, "alice", key), 87009) // the end is inherited
	})
}

func TestUserEncryptKey_Hours_Rotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		list := func() []any {
			a := signed(t, s, encryptKeyPath, "alice", s.SessionKey(appA, "alice"))
			wantErrCode(t, a, 0)
			l, _ := a.fields["key_info_list"].([]any)
			return l
		}
		for i := range 5 {
			l := list()
			if len(l) != min(i+1, 3) {
				t.Fatalf("%d keys in round %d", len(l), i)
			}
			k := l[0].(map[string]any)
			raw, err := base64.StdEncoding.DecodeString(k["encrypt_key"].(string))
			if err != nil || len(raw) != 16 || len(k["iv"].(string)) != 16 ||
				k["version"] != float64(i+1) || k["expire_in"] != 3600.0 ||
				k["create_time"] != float64(time.Now().Unix()) {
				t.Errorf("round %d: %v", i, k)
			}
			for _, old := range l[1:] {
				if old.(map[string]any)["expire_in"] != 0.0 {
					t.Errorf("round %d: old key %v", i, old)
				}
			}
			time.Sleep(time.Hour - time.Second)
			if l := list(); l[0].(map[string]any)["expire_in"] != 1.0 {
				t.Errorf("round %d: %v before its end", i, l[0])
			}
			time.Sleep(time.Second)
		}
		wantErrCode(t, signed(t, s, encryptKeyPath, "alice", "stale"), 87009)
	})
}
