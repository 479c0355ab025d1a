package weixintest_test

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

func TestMiniProgramCode_SameScene_SamePicture(t *testing.T) {
	s := weixintest.New(config())
	path := "/wxa/getwxacodeunlimit?access_token=" + token(t, s)
	get := func(body string) []byte {
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, httptest.NewRequest("POST", path, bytes.NewReader([]byte(body))))
		if got := rec.Header().Get("Content-Type"); got != "image/jpeg" {
			t.Fatalf("Content-Type %q: %s", got, rec.Body)
		}
		return rec.Body.Bytes()
	}
	first := get(`{"scene":"a=1","page":"pages/index"}`)
	if _, err := jpeg.Decode(bytes.NewReader(first)); err != nil {
		t.Error(err)
	}
	again := get(`{"scene":"a=1","page":"pages/index"}`)
	other := get(`{"scene":"a=2","page":"pages/index"}`)
	if !bytes.Equal(first, again) || bytes.Equal(first, other) {
		t.Error("the picture does not depend on the scene alone")
	}
	wantErrCode(t, call(t, s, "POST", path, `{"page":"pages/index"}`), 40169)
	wantErrCode(t, call(t, s, "POST", "/wxa/getwxacodeunlimit", `{"scene":"a"}`), 41001)
}

func TestMedia_Uploaded_ComesBack(t *testing.T) {
	s := weixintest.New(config())
	query := "?access_token=" + token(t, s)
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("media", "a.bin")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(part, "\x00\x01{")
	form.Close()
	r := httptest.NewRequest("POST", "/cgi-bin/media/upload"+query+"&type=image", &body)
	r.Header.Set("Content-Type", form.FormDataContentType())
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, r)
	a := read(t, rec.Result())
	if a.text("type") != "image" || a.text("media_id") == "" {
		t.Fatalf("answer %s", a.raw)
	}
	rec = httptest.NewRecorder()
	target := "/cgi-bin/media/get" + query + "&media_id=" + a.text("media_id")
	s.ServeHTTP(rec, httptest.NewRequest("GET", target, nil))
	if rec.Body.String() != "\x00\x01{" || rec.Code != http.StatusOK {
		t.Errorf("got %q", rec.Body)
	}
	wantErrCode(t, call(t, s, "GET", "/cgi-bin/media/get"+query+"&media_id=x", ""), 40007)
	wantErrCode(t, call(t, s, "POST", "/cgi-bin/media/upload"+query, "x"), 41005)
}

func TestMessages_GoodAndBad_ErrCode(t *testing.T) {
	s := weixintest.New(config())
	s.Code(appA, "alice")
	const subscribe, custom = "/cgi-bin/message/subscribe/send", "/cgi-bin/message/custom/send"
	query, alice := "?access_token="+token(t, s), `{"touser":"`+s.OpenID(appA, "alice")+`"`
	for _, tt := range []struct {
		path, body string
		want       int
	}{
		{subscribe, alice + `,"template_id":"t","data":{}}`, 0},
		{subscribe, `{"touser":"nobody","template_id":"t","data":{}}`, 40003},
		{subscribe, alice + `}`, 40037},
		{custom, alice + `,"msgtype":"text","text":{"content":"x"}}`, 0},
		{custom, ``, 44002},
		{"/wxa/msg_sec_check", `{"openid":"nobody","content":"x"}`, 40003},
	} {
		wantErrCode(t, call(t, s, "POST", tt.path+query, tt.body), tt.want)
	}
	for content, want := range map[string]string{"good": "pass", "very risky": "risky"} {
		body := fmt.Sprintf(`{"openid":%q,"content":%q}`, s.OpenID(appA, "alice"), content)
		a := call(t, s, "POST", "/wxa/msg_sec_check"+query, body)
		if result, _ := a.fields["result"].(map[string]any); result["suggest"] != want {
			t.Errorf("%s: %s", content, a.raw)
		}
	}
	if calls := s.Calls(); calls[len(calls)-1].User != "alice" {
		t.Error("the log does not tell whom a message was for")
	}
}
