package weixin_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

var rid = regexp.MustCompile(`^[0-9a-fA-F-]{5,44}$`)

// FuzzDecodeSession: no answer panics; a success is complete and fit for headers; a failure consists of our own words, whatever the
// answer holds, so it cannot hold the answer's session_key.
func FuzzDecodeSession(f *testing.F) {
	for _, body := range []string{
		goodBody, "\ufeff" + goodBody, "", "null", "{}", "[]", "<html>", `{"errcode":-1}`, `{"errcode":"40029","errmsg":"invalid code, rid: 1-2-3"}`,
		`{"errcode":0,"openid":"o","session_key":"a\/b","unionid":"\n"}`, `{"openid":"\u0000","session_key":"k"}`, `{"errcode":1e9}`,
		`{"errcode":40125,"errmsg":"invalid appsecret, view more at http:\/\/t.cn\/x, hints: [ req_id: a-b-c ]"}`, `{"errmsg":"rid:","errcode":1}`,
		`{"openid":"o","OPENID":"p","session_key":"k","Session_Key":null}`,
	} {
		f.Add(200, []byte(body))
		f.Add(502, []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		s, e := weixin.DecodeSession(status, body)
		if e == nil {
			for _, v := range []string{s.OpenID, s.SessionKey, s.UnionID + "x"} {
				if v == "" || len(v) > 129 || strings.ContainsFunc(v, func(r rune) bool { return r < '!' || r > '~' }) {
					t.Fatalf("accepted %q from %q", v, body)
				}
			}
			return
		}
		if s != (weixin.Session{}) {
			t.Fatalf("%v beside %v", s, e)
		}
		if e.Class == weixin.ClassOK || e.Class == weixin.ClassCanceled {
			t.Fatalf("class %v", e.Class)
		}
		if e.RID != "" && !rid.MatchString(e.RID) {
			t.Fatalf("rid %q", e.RID)
		}
		want := ": "
		if e.ErrCode != 0 {
			_, meaning := weixin.Explain(e.ErrCode)
			want += "errcode " + strconv.Itoa(e.ErrCode) + " (" + meaning + ")"
		} else {
			want += e.Reason
			switch reason, _, _ := strings.Cut(e.Reason, " (HTTP status "+strconv.Itoa(status)+")"); reason {
			case "the answer is not a JSON object of this API", "the answer holds no usable openid", "the answer holds no usable session_key":
			default:
				t.Fatalf("unknown reason %q", reason)
			}
		}
		if e.RID != "" {
			want += ", rid " + e.RID
		}
		if e.Error() != want {
			t.Fatalf("got  %q\nwant %q", e.Error(), want)
		}
	})
}
