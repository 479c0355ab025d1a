package weixin_test

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func TestCode2Session_UsableAnswer_IsAccepted(t *testing.T) {
	const ids = `{"openid":"o1","session_key":"k"`
	longest := strings.Repeat("u", 128)
	for _, tc := range []struct {
		name, body string
		status     int
		unionid    string
	}{
		{"plain", goodBody, 200, "oTEST-unionid"},
		{"errcode 0", ids + `,"errcode":0,"errmsg":"ok"}`, 200, ""},
		{"errcode \"0\"", ids + `,"errcode":"0"}`, 200, ""},
		{"errcode null", ids + `,"errcode":null}`, 200, ""},
		{"BOM", "\ufeff" + ids + `}`, 200, ""},
		{"unknown fields", ids + `,"expires_in":7200,"x":{"y":[1]}}`, 200, ""},
		{"white space", "\r\n {\"openid\":\"o1\",\n\"session_key\":\"k\"} \n", 200, ""},
		{"odd status", ids + `}`, 500, ""},
		{"unionid with line break", ids + `,"unionid":"u\r\nX-Wx-Openid: v"}`, 200, ""},
		{"unionid with other script", ids + `,"unionid":"ü"}`, 200, ""},
		{"unionid of a wrong type", ids + `,"unionid":7}`, 200, ""},
		{"unionid too long", ids + `,"unionid":"u` + longest + `"}`, 200, ""},
		{"longest unionid", ids + `,"unionid":"` + longest + `"}`, 200, longest},
	} {
		v, e := weixin.Decoders["code2session"](tc.status, []byte(tc.body))
		s := v.(weixin.Session)
		if e != nil || s.OpenID == "" || s.SessionKey == "" || s.UnionID != tc.unionid {
			t.Errorf("%s: %v, %v", tc.name, s, e)
		}
	}
	const escaped = `{"openid":"o1","session_key":"a\/b"}`
	if s, _ := exchange(serve(t, reply(200, escaped))); s.SessionKey != "a/b" {
		t.Errorf("session_key %q", s.SessionKey)
	}
}

// Each errcode has its class and meaning in the answer of every call, as a
// number and as a string, and beside a seemingly good result.
func TestErrcodes_AnyCall_GivesClassAndMeaning(t *testing.T) {
	for errcode, tc := range map[int]struct {
		class weixin.Class
		says  string
	}{
		-1:    {weixin.ClassUnavailable, "busy"},
		1005:  {weixin.ClassMisconfigured, "plugin"},
		1007:  {weixin.ClassCodeInvalid, "pluginLogin"},
		40001: {weixin.ClassMisconfigured, "forces refreshes"},
		40002: {weixin.ClassMisconfigured, "malformed"},
		40003: {weixin.ClassMisconfigured, "openid"},
		40013: {weixin.ClassMisconfigured, "appid"},
		40014: {weixin.ClassMisconfigured, "token file"},
		40029: {weixin.ClassCodeInvalid, "expired"},
		40066: {weixin.ClassMisconfigured, "base URL"},
		40097: {weixin.ClassMisconfigured, "malformed"},
		40125: {weixin.ClassMisconfigured, "reset"},
		40163: {weixin.ClassCodeUsed, "already used"},
		40164: {weixin.ClassMisconfigured, "whitelist"},
		40226: {weixin.ClassUserBlocked, "high-risk"},
		40243: {weixin.ClassMisconfigured, "frozen"},
		41001: {weixin.ClassMisconfigured, "missing"},
		41002: {weixin.ClassMisconfigured, "appid missing"},
		41004: {weixin.ClassMisconfigured, "AppSecret missing"},
		41008: {weixin.ClassMisconfigured, "code missing"},
		42001: {weixin.ClassMisconfigured, "access token refused"},
		43001: {weixin.ClassMisconfigured, "malformed"},
		43002: {weixin.ClassMisconfigured, "malformed"},
		44002: {weixin.ClassMisconfigured, "malformed"},
		45009: {weixin.ClassRateLimited, "quota"},
		45011: {weixin.ClassRateLimited, "minute"},
		47001: {weixin.ClassMisconfigured, "malformed"},
		48001: {weixin.ClassMisconfigured, "not authorised"},
		50001: {weixin.ClassUserBlocked, "authorised"},
		50002: {weixin.ClassUserBlocked, "limited"},
		87009: {weixin.ClassKeyStale, "session_key"},
		89002: {weixin.ClassMisconfigured, "Open Platform"},
		89300: {weixin.ClassOrderInvalid, "order"},
		89503: {weixin.ClassMisconfigured, "confirmation"},
		99999: {weixin.ClassRejected, "not known"},
	} {
		const rid = "61a0b1c2-00000001-0a0b0c0d"
		for _, form := range []string{"%d", `"%d"`} {
			body := fmt.Appendf(nil, `{"errcode":`+form+`,"errmsg":"mumble, rid: `+rid+`",`+
				`"openid":"o1","session_key":"k"}`, errcode)
			for call, decode := range weixin.Decoders {
				_, e := decode(200, body)
				if e == nil || e.Class != tc.class || e.ErrCode != errcode || e.RID != rid {
					t.Errorf("%s: %d: %+v", call, errcode, e)
					continue
				}
				msg := e.Error()
				for _, want := range []string{
					fmt.Sprint("errcode ", errcode), tc.says,
					"rid " + rid,
				} {
					if !strings.Contains(msg, want) || strings.Contains(msg, "mumble") {
						t.Errorf("%s: %q lacks %q, or holds the errmsg", call, msg, want)
					}
				}
			}
		}
	}
	s, err := exchange(serve(t, reply(200, `{"errcode":40163,"openid":"o1","session_key":"k"}`)))
	e := wantClass(t, err, weixin.ClassCodeUsed)
	if s != (weixin.Session{}) ||
		!strings.HasPrefix(e.Error(), "exchanging code: errcode 40163 (") {
		t.Errorf("%v, %v", s, e)
	}
}

func TestThreat27_Nonsense(t *testing.T) {
	const (
		ids   = `"openid":"o1","session_key":"k"}`
		other = weixin.ClassProtocol
		down  = weixin.ClassUnavailable
	)
	long := strings.Repeat("o", 129)
	for _, tc := range []struct {
		name   string
		status int
		body   string
		class  weixin.Class
	}{
		{"HTML", 200, "<html>hello</html>", other},
		{"HTML 404", 404, "<html>not here</html>", other},
		{"HTML 500", 500, "<html>oops</html>", down},
		{"HTML 502", 502, "<html>bad gateway</html>", down},
		{"foreign JSON 503", 503, `{"message":"no healthy upstream"}`, down},
		{"unknown errcode 503", 503, `{"errcode":12345}`, down},
		{"known errcode 503", 503, `{"errcode":40029}`, weixin.ClassCodeInvalid},
		{"empty", 200, "", other},
		{"no content", 204, "", other},
		{"null", 200, "null", other},
		{"array", 200, `["openid"]`, other},
		{"empty object", 200, "{}", other},
		{"truncated JSON", 200, goodBody[:len(goodBody)-1], other},
		{"trailing junk", 200, goodBody + goodBody, other},
		{"deep nesting", 200, strings.Repeat("[", 60000), other},
		{"no openid", 200, `{"session_key":"k"}`, other},
		{"empty openid", 200, `{"openid":"","session_key":"k"}`, other},
		{"openid of a wrong type", 200, `{"openid":1,"session_key":"k"}`, other},
		{"openid, line break", 200, `{"openid":"o\r\nX-Wx-Unionid: v","session_key":"k"}`, other},
		{"openid with space", 200, `{"openid":"o o","session_key":"k"}`, other},
		{"openid with DEL", 200, `{"openid":"o\u007f","session_key":"k"}`, other},
		{"openid too long", 200, `{"openid":"` + long + `","session_key":"k"}`, other},
		{"no session_key", 200, `{"openid":"o1"}`, other},
		{"session_key, line break", 200, `{"openid":"o1","session_key":"k\n"}`, other},
		{"session_key too long", 200, `{"openid":"o1","session_key":"` + long + `"}`, other},
		{"errcode text", 200, `{"errcode":"no",` + ids, other},
		{"errcode empty text", 200, `{"errcode":"",` + ids, other},
		{"errcode bool", 200, `{"errcode":false,` + ids, other},
		{"errcode object", 200, `{"errcode":{},` + ids, other},
		{"errcode fraction", 200, `{"errcode":0.5,` + ids, other},
		{"errcode huge", 200, `{"errcode":1e99,` + ids, other},
	} {
		s, e := weixin.Decoders["code2session"](tc.status, []byte(tc.body))
		if e == nil || e.Class != tc.class || s != (weixin.Session{}) {
			t.Errorf("%s: session %v, %v", tc.name, s, e)
		}
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

func TestCode2Session_Cookie_IsNotKept(t *testing.T) {
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
	const mock = "the code is a mock one"
	long := strings.Repeat("c", 257)
	for _, code := range []string{"", long, mock, "a b", "a\x00", "a\nb", "a\x7f", "é", "代码"} {
		_, err := c.Code2Session(t.Context(), testApp, code)
		wantClass(t, err, weixin.ClassCodeInvalid)
	}
	_, err := c.Code2Session(t.Context(), testApp, mock)
	if !strings.Contains(err.Error(), "developer tools") {
		t.Errorf("no hint: %v", err)
	}
	for _, app := range []weixin.Credentials{
		{},
		{ID: "wx1"},
		{Secret: "s"},
		{ID: "wx1 ", Secret: "s"},
		{ID: "wx1", Secret: "s\n"},
		{ID: "wx1", Secret: long[:129]},
	} {
		_, err := c.Code2Session(t.Context(), app, goodCode)
		wantClass(t, err, weixin.ClassMisconfigured)
	}
	ok := serve(t, reply(200, goodBody))
	if _, err := ok.Code2Session(t.Context(), testApp, long[:256]); err != nil {
		t.Errorf("longest code: %v", err)
	}
}

func TestRID_OnlyItsShapePasses(t *testing.T) {
	for errmsg, want := range map[string]string{
		"invalid code, rid: 623d8350-5aaf78a5-21548a6c":              "623d8350-5aaf78a5-21548a6c",
		"invalid code rid: 623d8350-5aaf78a5-21548a6c":               "623d8350-5aaf78a5-21548a6c",
		"x, hints: [ req_id: 623D8350-5aaf78a5-21548a6c ]":           "623D8350-5aaf78a5-21548a6c",
		"rid: 1-2-3, rid: 4-5-6":                                     "4-5-6",
		"rid: " + testApp.Secret:                                     "",
		"rid: " + goodCode:                                           "",
		"rid: " + goodSession.SessionKey:                             "",
		"rid: 623d8350-5aaf78a5-21548a6c-21548a6c-21548a6c-21548a6c": "",
		"rid: 623d83501-5aaf78a5-21548a6c":                           "",
		"rid: 623d8350--21548a6c":                                    "",
		"rid: 623d8350-5aaf78ag-21548a6c":                            "",
		"rid: 623d8350-5aaf78a5-21548a6c\r\nforged log line":         "",
		"rid: 623d8350":                                              "",
		"rid: 623d8350-5aaf78a5":                                     "",
		"rid:":                                                       "",
		"no trace":                                                   "",
	} {
		body := fmt.Sprintf(`{"errcode":40029,"errmsg":%q}`, errmsg)
		if _, e := weixin.Decoders["code2session"](200, []byte(body)); e == nil || e.RID != want {
			t.Errorf("%q: %+v, want %q", errmsg, e, want)
		}
	}
}
