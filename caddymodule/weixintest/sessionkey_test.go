package weixintest_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
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

// TestCheckSession_VectorM2 is of docs/wechat.md#check-session-key; the client's test has
// the others.
func TestCheckSession_VectorM2_Matches(t *testing.T) {
	s := weixintest.New(config())
	const signature = "46e043c5525c2d817c44be603d30837a808a1d930d038f6fdc3e62a201fed128"
	s.SetUser(appA, "alice", weixintest.UserOptions{SessionKey: "o0q0otL8aEzpcZL/FT9WsQ=="})
	a := signedWith(t, s, checkPath, "alice", signature, "hmac_sha256")
	if a.raw != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("answer %s", a.raw)
	}
	const swapped = "960b00797a7ea423d40216c7e6e9c227ce79ab6535f7bd1b47eac64555a08085"
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

func TestEncrypt_VectorS1_Signature(t *testing.T) {
	const rawData = `{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou",` +
		`"province":"Guangdong","country":"CN",` +
		`"avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}`
	s := weixintest.New(config())
	s.SetUser(appA, "band", weixintest.UserOptions{SessionKey: "HyVFkGl5F5OQWJZZaNzBBg=="})
	d, err := s.Encrypt(appA, "band", json.RawMessage(rawData))
	const signature = "75e81ceda165f4ffa64f4068af58c64b8f54b88c"
	if err != nil || d.RawData != rawData || d.Signature != signature {
		t.Errorf("%v, %+v", err, d)
	}
}

func TestEncrypt_Objects_OpenWithKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.New(config())
		const own = `{"watermark":{}}`
		mark := fmt.Sprintf(`"watermark":{"timestamp":%d,"appid":"%s"}}`, time.Now().Unix(), appA)
		for name, c := range map[string]struct {
			data        any
			raw, sealed string
		}{
			"struct":      {struct{ A string }{"<&>"}, `{"A":"<&>"}`, `{"A":"<&>",` + mark},
			"empty":       {struct{}{}, `{}`, `{` + mark},
			"own mark":    {json.RawMessage(own), own, own},
			"white space": {json.RawMessage(" { \"a\" : 1 } "), `{"a":1}`, `{"a":1,` + mark},
		} {
			d, err := s.Encrypt(appA, "alice", c.data)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			plain, err := unseal(s.SessionKey(appA, "alice"), d.IV, d.EncryptedData)
			if err != nil || plain != c.sealed || d.RawData != c.raw {
				t.Errorf("%s: %v, raw %s, sealed %s", name, err, d.RawData, plain)
			}
		}
		old := s.SessionKey(appA, "alice")
		s.RotateKey(appA, "alice")
		d, err := s.Encrypt(appA, "alice", struct{}{})
		if err != nil {
			t.Fatal(err)
		}
		plain, err := unseal(old, d.IV, d.EncryptedData)
		if err == nil && strings.Contains(plain, appA) {
			t.Error("data is sealed with a key that was rotated away")
		}
	})
}

func TestEncrypt_BadInput_Error(t *testing.T) {
	s := weixintest.New(config())
	s.SetUser(appA, "short", weixintest.UserOptions{SessionKey: "AAEC"})
	s.SetUser(appA, "garbled", weixintest.UserOptions{SessionKey: "?"})
	for name, c := range map[string]struct {
		appid, user string
		data        any
	}{
		"unknown appid": {"wx0000000000000000", "alice", struct{}{}},
		"array":         {appA, "alice", []int{1}},
		"null":          {appA, "alice", nil},
		"not JSON":      {appA, "alice", func() {}},
		"short key":     {appA, "short", struct{}{}},
		"garbled key":   {appA, "garbled", struct{}{}},
	} {
		if d, err := s.Encrypt(c.appid, c.user, c.data); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// unseal decrypts honest input (docs/wechat.md#decryption).
func unseal(key, iv, sealed string) (string, error) {
	var raw [3][]byte
	for i, text := range []string{key, iv, sealed} {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", err
		}
		raw[i] = b
	}
	block, err := aes.NewCipher(raw[0])
	if err != nil {
		return "", err
	}
	buf := raw[2]
	cipher.NewCBCDecrypter(block, raw[1]).CryptBlocks(buf, buf)
	pad := int(buf[len(buf)-1])
	if pad < 1 || pad > aes.BlockSize ||
		strings.Count(string(buf[len(buf)-pad:]), string(rune(pad))) != pad {
		return "", fmt.Errorf("padding of %d", pad)
	}
	return string(buf[:len(buf)-pad]), nil
}
