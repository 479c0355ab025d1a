package weixintest_test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// Test vectors of docs/wechat.md#open-data.
const (
	vectorKey = "AAECAwQFBgcICQoLDA0ODw=="
	vectorIV  = "EBESExQVFhcYGRobHB0eHw=="
)

var vectors = map[string]struct{ key, iv, plain, sealed string }{
	"D1": {
		"tiihtNczf5v6AKRyjwEUhQ==", "r7BXXKkLb8qrSNn05n0qiA==",
		`{"openId":"oGZUI0egBJY1zhBYw2KhdUfwVJJE","nickName":"Band","gender":1,"language"` +
			`:"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"h` +
			`ttp://wx.qlogo.cn/mmopen/vi_32/aSKcBBPpibyKNicHNTMM0qJVh8Kjgiak2AHWr8MHM4WgMEm7G` +
			`Fhsf8OYrySdbvAMvTsw3mo8ibKicsnfN5pRjl1p8HQ/0","unionId":"ocMvos6NjeKLIBqg5Mr9Qjx` +
			`rP1FA","watermark":{"timestamp":1477314187,"appid":"wx4f4bc4dec97d474b"}}`,
		"CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1" +
			"WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6Ch" +
			"evvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIB" +
			"zD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4P" +
			"C7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwT" +
			"yrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG" +
			"20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew==",
	},
	"D3": {
		vectorKey, vectorIV,
		`{"phoneNumber":"13580006666","purePhoneNumber":"13580006666","countryCode":"86",` +
			`"watermark":{"timestamp":1477314187,"appid":"wx4f4bc4dec97d474b"}}`,
		"aLhedzo+Z6es5zW+YHo9sgkoobhypSEeViQBPmmCx3fmcZGKbataj/52/+U/sVY3AiF2KzOGsSF26s6H" +
			"1VwLALPpPqvznm6/Yrci88llVSl0bwplNsmm05X71JB++CQv7JVek0hwIVWnfpOk5EL3KfoGLnVXGOpN" +
			"LSyidabVH6ReLoTdAsZkoun0HS27FPMsy6EZRvEHlTwWjQGREE2Kjg==",
	},
	"D4": {
		vectorKey, vectorIV,
		`{"stepInfoList":[{"timestamp":1445866601,"step":100},{"timestamp":1445876601,"st` +
			`ep":120}],"watermark":{"timestamp":1477314187,"appid":"wx4f4bc4dec97d474b"}}`,
		"6CDpDKcFFq5KYH0DPC1IOKSDuEtAp743lWdLHUCloWihleRLlYWFixgMyqQt8ClCgzyti1A3+StPKFwo" +
			"9rSJkbRYdztjxN0n7592ouX2wNxW/bGoEKOMud1S+zYFkJNNAvW9cxc2Rw02Y3RoO54N+dn7RnrVd1fk" +
			"4lkP2JQ4Y7+N9yB5TtmjZid+ICrGbmyWldcrWYftDPNJYSYDbs1OSg==",
	},
	"D5": {vectorKey, vectorIV, `{"watermark":{}}`, "S+Xe+uPoEBTjCSduZSmD9akAyPJB1z367SOVX+G/Ywg="},
}

func TestSeal_Vectors_Match(t *testing.T) {
	for name, v := range vectors {
		iv, err := base64.StdEncoding.DecodeString(v.iv)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := weixintest.Seal(v.key, iv, []byte(v.plain)); err != nil || got != v.sealed {
			t.Errorf("%s: %v, %s", name, err, got)
		}
		if got, err := unseal(v.key, v.iv, v.sealed); err != nil || got != v.plain {
			t.Errorf("%s: this test's own decryption is wrong: %v, %s", name, err, got)
		}
	}
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
