package weixin_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func TestRequest(t *testing.T) {
	app := weixin.Credentials{ID: "wx&appid=evil", Secret: "s+/=?#%&x=y"}
	code := "x&appid=evil#%00\"+/"
	var got *http.Request
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		reply(200, goodBody)(w, r)
	})
	if _, err := c.Code2Session(context.Background(), app, code); err != nil {
		t.Fatal(err)
	}
	want := url.Values{"appid": {app.ID}, "secret": {app.Secret}, "js_code": {code}, "grant_type": {"authorization_code"}}
	if q := got.URL.Query(); q.Encode() != want.Encode() {
		t.Errorf("query %v", q)
	}
	if got.Method != "GET" || got.ContentLength != 0 || got.TransferEncoding != nil || got.Header.Get("Accept-Encoding") != "" {
		t.Errorf("%s, length %d, %v, %v", got.Method, got.ContentLength, got.TransferEncoding, got.Header)
	}
}

func TestSuccess(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
		unionid    string
	}{
		{"plain", goodBody, 200, "oTEST-unionid"},
		{"errcode 0", `{"errcode":0,"errmsg":"ok","openid":"o1","session_key":"k"}`, 200, ""},
		{"errcode \"0\"", `{"errcode":"0","openid":"o1","session_key":"k"}`, 200, ""},
		{"errcode null", `{"errcode":null,"openid":"o1","session_key":"k"}`, 200, ""},
		{"BOM", "\ufeff" + `{"openid":"o1","session_key":"k"}`, 200, ""},
		{"escaped slash", `{"openid":"o1","session_key":"a\/b"}`, 200, ""},
		{"unknown fields", `{"openid":"o1","session_key":"k","expires_in":7200,"x":{"y":[1]}}`, 200, ""},
		{"white space", "\r\n {\"openid\":\"o1\",\n\"session_key\":\"k\"} \n", 200, ""},
		{"odd status", `{"openid":"o1","session_key":"k"}`, 500, ""},
		{"unionid with line break", `{"openid":"o1","session_key":"k","unionid":"u\r\nX-Wx-Openid: v"}`, 200, ""},
		{"unionid with other script", `{"openid":"o1","session_key":"k","unionid":"ü"}`, 200, ""},
		{"unionid of a wrong type", `{"openid":"o1","session_key":"k","unionid":7}`, 200, ""},
		{"unionid too long", `{"openid":"o1","session_key":"k","unionid":"` + strings.Repeat("u", 129) + `"}`, 200, ""},
		{"longest unionid", `{"openid":"o1","session_key":"k","unionid":"` + strings.Repeat("u", 128) + `"}`, 200, strings.Repeat("u", 128)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := exchange(serve(t, reply(tc.status, tc.body)))
			if err != nil {
				t.Fatal(err)
			}
			if s.OpenID == "" || s.SessionKey == "" || s.UnionID != tc.unionid {
				t.Errorf("%v", s)
			}
		})
	}
	if s, _ := exchange(serve(t, reply(200, `{"openid":"o1","session_key":"a\/b"}`))); s.SessionKey != "a/b" {
		t.Errorf("session_key %q", s.SessionKey)
	}
}

func TestErrcodes(t *testing.T) {
	for errcode, tc := range map[int]struct {
		class weixin.Class
		says  string
	}{
		-1:    {weixin.ClassUnavailable, "busy"},
		40029: {weixin.ClassCodeInvalid, "expired"},
		40163: {weixin.ClassCodeUsed, "already used"},
		40226: {weixin.ClassUserBlocked, "high-risk"},
		45011: {weixin.ClassRateLimited, "minute"},
		45009: {weixin.ClassRateLimited, "quota"},
		40013: {weixin.ClassMisconfigured, "appid"},
		40125: {weixin.ClassMisconfigured, "reset"},
		40164: {weixin.ClassMisconfigured, "whitelist"},
		40243: {weixin.ClassMisconfigured, "frozen"},
		41002: {weixin.ClassMisconfigured, "appid missing"},
		41004: {weixin.ClassMisconfigured, "AppSecret missing"},
		41008: {weixin.ClassMisconfigured, "code missing"},
		48001: {weixin.ClassMisconfigured, "not authorised"},
		50001: {weixin.ClassUserBlocked, "authorised"},
		50002: {weixin.ClassUserBlocked, "limited"},
		99999: {weixin.ClassRejected, "not known"},
	} {
		// Both as a number and as a string, and even beside a seemingly good session.
		for _, form := range []string{"%d", `"%d"`} {
			body := fmt.Sprintf(`{"errcode":`+form+`,"errmsg":"mumble, rid: 61a0b1c2-00000001-0a0b0c0d","openid":"o1","session_key":"k"}`, errcode)
			s, err := exchange(serve(t, reply(200, body)))
			e := wantClass(t, err, tc.class)
			if e.ErrCode != errcode || e.RID != "61a0b1c2-00000001-0a0b0c0d" || s != (weixin.Session{}) {
				t.Errorf("%d: %+v, %v", errcode, e, s)
			}
			msg := e.Error()
			for _, want := range []string{"exchanging code: errcode", fmt.Sprint(errcode), tc.says, "rid 61a0b1c2-00000001-0a0b0c0d"} {
				if !strings.Contains(msg, want) {
					t.Errorf("%q lacks %q", msg, want)
				}
			}
			if strings.Contains(msg, "mumble") {
				t.Errorf("errmsg passed through: %s", msg)
			}
		}
	}
}

func TestThreat27_Nonsense(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status int
		body   string
		class  weixin.Class
	}{
		{"HTML", 200, "<html>hello</html>", weixin.ClassProtocol},
		{"HTML 404", 404, "<html>not here</html>", weixin.ClassProtocol},
		{"HTML 500", 500, "<html>oops</html>", weixin.ClassUnavailable},
		{"HTML 502", 502, "<html>bad gateway</html>", weixin.ClassUnavailable},
		{"foreign JSON 503", 503, `{"message":"no healthy upstream"}`, weixin.ClassUnavailable},
		{"unknown errcode 503", 503, `{"errcode":12345}`, weixin.ClassUnavailable},
		{"known errcode 503", 503, `{"errcode":40029}`, weixin.ClassCodeInvalid},
		{"empty", 200, "", weixin.ClassProtocol},
		{"no content", 204, "", weixin.ClassProtocol},
		{"null", 200, "null", weixin.ClassProtocol},
		{"array", 200, `["openid"]`, weixin.ClassProtocol},
		{"empty object", 200, "{}", weixin.ClassProtocol},
		{"truncated JSON", 200, goodBody[:len(goodBody)-1], weixin.ClassProtocol},
		{"trailing junk", 200, goodBody + goodBody, weixin.ClassProtocol},
		{"deep nesting", 200, strings.Repeat("[", 60000), weixin.ClassProtocol},
		{"no openid", 200, `{"session_key":"k"}`, weixin.ClassProtocol},
		{"empty openid", 200, `{"openid":"","session_key":"k"}`, weixin.ClassProtocol},
		{"openid of a wrong type", 200, `{"openid":1,"session_key":"k"}`, weixin.ClassProtocol},
		{"openid with line break", 200, `{"openid":"o\r\nX-Wx-Unionid: v","session_key":"k"}`, weixin.ClassProtocol},
		{"openid with space", 200, `{"openid":"o o","session_key":"k"}`, weixin.ClassProtocol},
		{"openid with DEL", 200, `{"openid":"o\u007f","session_key":"k"}`, weixin.ClassProtocol},
		{"openid too long", 200, `{"openid":"` + strings.Repeat("o", 129) + `","session_key":"k"}`, weixin.ClassProtocol},
		{"no session_key", 200, `{"openid":"o1"}`, weixin.ClassProtocol},
		{"session_key with line break", 200, `{"openid":"o1","session_key":"k\n"}`, weixin.ClassProtocol},
		{"session_key too long", 200, `{"openid":"o1","session_key":"` + strings.Repeat("k", 129) + `"}`, weixin.ClassProtocol},
		{"errcode text", 200, `{"errcode":"no","openid":"o1","session_key":"k"}`, weixin.ClassProtocol},
		{"errcode empty text", 200, `{"errcode":"","openid":"o1","session_key":"k"}`, weixin.ClassProtocol},
		{"errcode bool", 200, `{"errcode":false,"openid":"o1","session_key":"k"}`, weixin.ClassProtocol},
		{"errcode object", 200, `{"errcode":{},"openid":"o1","session_key":"k"}`, weixin.ClassProtocol},
		{"errcode fraction", 200, `{"errcode":0.5,"openid":"o1","session_key":"k"}`, weixin.ClassProtocol},
		{"errcode huge", 200, `{"errcode":1e99,"openid":"o1","session_key":"k"}`, weixin.ClassProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := exchange(serve(t, reply(tc.status, tc.body)))
			if wantClass(t, err, tc.class); s != (weixin.Session{}) {
				t.Errorf("session %v", s)
			}
		})
	}
}

func TestThreat27_Redirect(t *testing.T) {
	for _, status := range []int{301, 302, 303, 304, 307, 308} {
		followed := false
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				followed = true
			}
			w.Header().Set("Location", "/elsewhere")
			reply(status, goodBody)(w, r)
		})
		_, err := exchange(c)
		wantClass(t, err, weixin.ClassProtocol)
		if followed {
			t.Errorf("%d followed", status)
		}
	}
}

func TestNoCookies(t *testing.T) {
	var cookie string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		cookie += r.Header.Get("Cookie")
		w.Header().Set("Set-Cookie", "a=b")
		reply(200, goodBody)(w, r)
	})
	_, _ = exchange(c)
	if _, err := exchange(c); err != nil || cookie != "" {
		t.Errorf("cookie %q, error %v", cookie, err)
	}
}

func TestThreat27_GzipIsNotInflated(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		zw := gzip.NewWriter(w)
		_, _ = zw.Write([]byte(goodBody))
		_ = zw.Close()
	})
	_, err := exchange(c)
	wantClass(t, err, weixin.ClassProtocol)
}

func TestThreat24_ImpossibleArguments(t *testing.T) {
	c := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("WeChat was called") })
	for _, code := range []string{
		"", strings.Repeat("c", 257), "the code is a mock one", "a b", "a\x00", "a\nb", "a\x7f", "é", "代码",
	} {
		_, err := c.Code2Session(context.Background(), testApp, code)
		wantClass(t, err, weixin.ClassCodeInvalid)
	}
	_, err := c.Code2Session(context.Background(), testApp, "the code is a mock one")
	if !strings.Contains(err.Error(), "developer tools") {
		t.Errorf("no hint: %v", err)
	}
	for _, app := range []weixin.Credentials{
		{}, {ID: "wx1"}, {Secret: "s"}, {ID: "wx1 ", Secret: "s"}, {ID: "wx1", Secret: "s\n"}, {ID: "wx1", Secret: strings.Repeat("s", 129)},
	} {
		_, err := c.Code2Session(context.Background(), app, goodCode)
		wantClass(t, err, weixin.ClassMisconfigured)
	}
	ok := serve(t, reply(200, goodBody))
	if _, err := ok.Code2Session(context.Background(), testApp, strings.Repeat("~", 256)); err != nil {
		t.Errorf("longest code: %v", err)
	}
}

func TestRID(t *testing.T) {
	for errmsg, want := range map[string]string{
		"invalid code, rid: 623d8350-5aaf78a5-21548a6c":              "623d8350-5aaf78a5-21548a6c",
		"invalid code rid: 623d8350-5aaf78a5-21548a6c":               "623d8350-5aaf78a5-21548a6c",
		"x, hints: [ req_id: 623D8350-5aaf78a5-21548a6c ]":           "623D8350-5aaf78a5-21548a6c",
		"rid: 1-2-3, rid: 4-5-6":                                     "4-5-6",
		"rid: 0123456789abcdef0123456789abcdef":                      "", // the shape of an AppSecret
		"rid: 021ByuFs0fNXie1T5lJs0IwBFs0ByuF1":                      "", // of a code
		"rid: AAECAwQFBgcICQoLDA0ODw==":                              "", // of a session_key
		"rid: 623d8350-5aaf78a5-21548a6c-21548a6c-21548a6c-21548a6c": "",
		"rid: 623d83501-5aaf78a5-21548a6c":                           "",
		"rid: 623d8350--21548a6c":                                    "",
		"rid: 623d8350-5aaf78ag-21548a6c":                            "",
		"rid: 623d8350-5aaf78a5-21548a6c\r\nforged log line":         "",
		"rid: 623d8350":          "",
		"rid: 623d8350-5aaf78a5": "",
		"rid:":                   "",
		"no trace":               "",
	} {
		body := fmt.Sprintf(`{"errcode":40029,"errmsg":%q}`, errmsg)
		if _, e := weixin.DecodeSession(200, []byte(body)); e == nil || e.RID != want {
			t.Errorf("%q: %+v, want %q", errmsg, e, want)
		}
	}
}
