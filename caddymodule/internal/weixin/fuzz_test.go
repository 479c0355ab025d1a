package weixin_test

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

var rid = regexp.MustCompile(`^[0-9a-fA-F-]{5,44}$`)

// FuzzDecode: no answer of any call panics; a success is complete and fit for headers; a
// failure consists of our own words, whatever the answer holds, so it cannot hold the
// answer's session_key or token.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		goodBody, "\ufeff" + goodBody, "[]", "<html>", `{"errcode":-1}`,
		`{"errcode":"40029","errmsg":"invalid code, rid: 1-2-3"}`,
		`{"errcode":0,"openid":"o","session_key":"a\/b","unionid":"\n"}`,
		`{"openid":"\u0000","session_key":"k"}`, `{"errcode":1e9}`,
		`{"errcode":40125,"errmsg":"see http:\/\/t.cn\/x, hints: [ req_id: a-b-c ]"}`,
		`{"errmsg":"rid:","errcode":1}`,
		`{"openid":"o","OPENID":"p","session_key":"k","Session_Key":null}`,
		`{"errcode":0,"errmsg":"ok"}`, `{"errcode":40001,"errmsg":"invalid credential rid: 1-2-3"}`,
		`{"access_token":"96_x","expires_in":7200}`, `{"access_token":"96_x","expires_in":"345"}`,
		`{"errcode":0,"openid":"o1","session_key":"k"}`, `{"unionid":"u1","errcode":0}`,
		`{"errcode":0,"openpid":"p1"}`,
		`{"errcode":0,"phone_info":{"phoneNumber":"13580006666","purePhoneNumber":"13580006666",` +
			`"countryCode":86,"watermark":{"timestamp":1477314187,"appid":"wx0123456789abcdef"}}}`,
		`{"errcode":0,"key_info_list":[{"encrypt_key":"AAAAAAAAAAAAAAAAAAAAAA==","version":10,` +
			`"expire_in":3597,"iv":"6003f73ec441c386","create_time":1616572301}]}`,
		"", "null", `{"phone_info":null}`, `{"key_info_list":[null]}`, "\ufeff{}",
	} {
		f.Add(200, []byte(body))
		f.Add(502, []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		for name, decode := range weixin.Decoders {
			v, e := decode(status, body)
			if e != nil {
				if s, ok := v.(weixin.Session); ok && s != (weixin.Session{}) {
					t.Fatalf("%v beside %v", s, e)
				}
				wantOwnWords(t, status, e)
				continue
			}
			switch v := v.(type) {
			case string:
				wantVisible(t, body, v)
			case weixin.Session:
				for _, text := range []string{v.OpenID, v.SessionKey, v.UnionID + "x"} {
					wantVisible(t, body, text)
				}
			case opendata.Phone:
				if v.Number == "" || v.PureNumber == "" || v.CountryCode == "" {
					t.Fatalf("part of a number from %q", body)
				}
			case []weixin.UserKey:
				for _, k := range v {
					wantVisible(t, body, string(k.IV[:]))
					if k.ExpiresIn < 0 || k.Version < 0 || k.Created.Year() > 2200 {
						t.Fatalf("key from %q", body)
					}
				}
				if len(v) == 0 {
					t.Fatalf("no keys from %q", body)
				}
			case weixin.Grant:
				if v.Token == "" || len(v.Token) > 2048 || v.Life < time.Second ||
					v.Life > 2*time.Hour {
					t.Fatalf("token of %v from %q", v.Life, body)
				}
			case struct{}:
			default:
				t.Fatalf("%s: %T", name, v)
			}
		}
	})
}

func wantVisible(t *testing.T, body []byte, v string) {
	t.Helper()
	if v == "" || len(v) > 129 ||
		strings.ContainsFunc(v, func(r rune) bool { return r < '!' || r > '~' }) {
		t.Fatalf("accepted %q from %q", v, body)
	}
}

// nonsense is every reason for which an answer is none.
var nonsense = []string{
	"with an empty body", "with truncated or malformed JSON", "from a proxy",
	"text/html instead of JSON" + weixin.Elsewhere,
	"with another type instead of JSON" + weixin.Elsewhere,
	"without a usable openid", "without a usable session_key",
	"without a usable access_token", "without a usable expires_in",
	"without a usable phone number of this mini program",
	"without an errcode", "with the session_key of another user",
	"without a usable unionid",
	"without a usable openpid", "without a usable list of keys",
}

// wantOwnWords: the error is made of a known text, numbers and a rid.
func wantOwnWords(t *testing.T, status int, e *weixin.Error) {
	t.Helper()
	if e.Class == weixin.ClassOK || e.Class == weixin.ClassCanceled {
		t.Fatalf("class %v", e.Class)
	}
	if e.RID != "" && !rid.MatchString(e.RID) {
		t.Fatalf("rid %q", e.RID)
	}
	want := ": "
	if e.ErrCode != 0 {
		_, meaning := weixin.Explain(e.ErrCode)
		if seen, ok := strings.CutPrefix(e.Reason, meaning+"; WeChat sees "); ok {
			if _, err := netip.ParseAddr(seen); err != nil {
				t.Fatal(err)
			}
			meaning = e.Reason
		}
		want += "errcode " + strconv.Itoa(e.ErrCode) + " (" + meaning + ")"
	} else {
		want += e.Reason
		reason := strings.TrimPrefix(e.Reason, "HTTP "+strconv.Itoa(status)+" ")
		if !slices.Contains(nonsense, reason) {
			t.Fatalf("unknown reason %q", reason)
		}
	}
	if e.RID != "" {
		want += ", rid " + e.RID
	}
	if e.Error() != want {
		t.Fatalf("got  %q\nwant %q", e.Error(), want)
	}
}
