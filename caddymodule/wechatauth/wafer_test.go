package wechatauth

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// newWaferWorld is a site for Wafer's clients. call sends a request of one.
func newWaferWorld(t testing.TB) (w *dataWorld, call func(
	method, path, body string, header ...string,
) (*httptest.ResponseRecorder, *caddytest.Next),
) {
	w = newDataWorld(t, "")
	gate := w.newGate(&Handler{
		Dialect: dialectWafer, LoginFields: []string{"code", "js_code"},
		Apps: []string{caddytest.AppID},
	})
	return w, func(
		method, path, body string, header ...string,
	) (*httptest.ResponseRecorder, *caddytest.Next) {
		t.Helper()
		r, rec := caddytest.Request(method, path, "")
		if body != "" {
			r.Body = caddytest.Body(body)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		next := new(caddytest.Next)
		if err := gate.ServeHTTP(rec, r, next); err != nil {
			t.Fatal(err)
		}
		return rec, next
	}
}

func TestWafer_Login_AnswersBothPackages(t *testing.T) {
	w, call := newWaferWorld(t)
	for _, method := range []string{"GET", "POST"} {
		rec, _ := call(method, "/wx/login", "", waferCode, w.wechat.Code(caddytest.AppID, "ada"))
		var a waferAnswer
		if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil || rec.Code != 200 {
			t.Fatalf("%s: %d %s", method, rec.Code, rec.Body)
		}
		token := a.ThirdSession
		if !strings.HasPrefix(token, "wxs_") || a.Data.Skey != token || a.Session.Skey != token ||
			a.Session.ID == "" || a.Code != 0 || a.Mark != 1 || string(a.Data.UserInfo) != "{}" {
			t.Errorf("%s: %s", method, rec.Body)
		}
		rec, next := call("GET", "/orders", "", waferSkey, token, "X-Wx-Id", a.Session.ID)
		if want := w.wechat.OpenID(caddytest.AppID, "ada"); !next.Called ||
			next.R.Header.Get("X-Wx-Openid") != want {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		for name := range next.R.Header {
			if name == waferSkey || name == "X-Wx-Id" || name == "X-3rd-Session" {
				t.Errorf("the app gets %s", name)
			}
		}
		if vary := rec.Header().Get("Vary"); !strings.HasSuffix(vary, ", X-Wx-Skey") {
			t.Errorf("Vary: %s", vary)
		}
	}
}

func TestWafer_SealedData_IsUserInfo(t *testing.T) {
	w, call := newWaferWorld(t)
	for _, c := range []struct {
		name, want string
		spoil      func(string) string
	}{
		{"good", "Ada", func(s string) string { return s }},
		{"damaged", "", func(s string) string { return "AAAA" + s[4:] }},
		{"no base64", "", func(string) string { return "!" }},
	} {
		code, d := w.wechat.Code(caddytest.AppID, "ada"), w.seal("ada", `{"nickName":"Ada"}`)
		rec, _ := call("GET", "/wx/login", "", waferCode, code,
			waferData, c.spoil(d.EncryptedData), waferIV, d.IV)
		var a waferAnswer
		if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil || rec.Code != 200 {
			t.Fatalf("%s: %d %s", c.name, rec.Code, rec.Body)
		}
		var info struct {
			NickName string `json:"nickName"`
		}
		if err := json.Unmarshal(a.Data.UserInfo, &info); err != nil || info.NickName != c.want {
			t.Errorf("%s: %s", c.name, a.Data.UserInfo)
		}
	}
}

// TestWafer_Refusals_SayLoginAgain: Wafer 2 reads the status, Wafer 1 the mark.
func TestWafer_Refusals_SayLoginAgain(t *testing.T) {
	w, call := newWaferWorld(t)
	token := w.login("ada")
	other := w.login("bob")
	const mark = `"F2C224D4-2BCE-4C64-AF9F-A6D872000D1A":1,"error":"ERR_INVALID_SESSION"`
	for _, c := range []struct {
		name   string
		header []string
		status int
		code   string
	}{
		{"no token", nil, 401, "session_missing"},
		{"made up", []string{waferSkey, caddytest.MadeUp}, 401, "session_invalid"},
		{"not ours", []string{waferSkey, "x"}, 401, "session_invalid"},
		{"two tokens", []string{waferSkey, token, waferSkey, other}, 400, "ambiguous_credentials"},
		{
			"and a bearer",
			[]string{waferSkey, token, "Authorization", "Bearer " + other},
			400, "ambiguous_credentials",
		},
		{"the same twice", []string{waferSkey, token, "Authorization", "Bearer " + token}, 200, ""},
	} {
		rec, next := call("GET", "/orders", "", c.header...)
		if next.Called != (c.status == 200) || rec.Code != c.status {
			t.Errorf("%s: %d %s", c.name, rec.Code, rec.Body)
			continue
		}
		if c.status == 200 {
			continue
		}
		body := rec.Body.String()
		if got := caddytest.Code(t, rec); got != c.code {
			t.Errorf("%s: %s", c.name, got)
		}
		if strings.Contains(body, mark) != (c.status == http.StatusUnauthorized) {
			t.Errorf("%s: %s", c.name, body)
		}
	}
}

func TestWafer_BadLogin_IsRefused(t *testing.T) {
	w, call := newWaferWorld(t)
	code := w.wechat.Code(caddytest.AppID, "ada")
	for _, c := range []struct {
		name, method, body string
		header             []string
		status             int
	}{
		{"GET without code", "GET", "", nil, 405},
		{"two codes", "GET", "", []string{waferCode, code, waferCode, "x"}, 405},
		{"PUT", "PUT", "", []string{waferCode, code}, 405},
		{"empty code", "GET", "", []string{waferCode, ""}, 400},
		{"long code", "GET", "", []string{waferCode, strings.Repeat("x", 2000)}, 400},
		{"tourist", "GET", "", []string{waferCode, touristCode}, 400},
		{"unknown code", "GET", "", []string{waferCode, "unknown"}, 401},
		{"both fields", "POST", `{"code":"` + code + `","js_code":"x"}`, nil, 400},
		{"js_code", "POST", `{"js_code":"` + code + `"}`, nil, 200},
	} {
		rec, _ := call(c.method, "/wx/login", c.body, c.header...)
		if rec.Code != c.status {
			t.Errorf("%s: %d %s", c.name, rec.Code, rec.Body)
		}
	}
}

// TestWafer_WithoutDialect_MeansNothing: the headers of the family are owned.
func TestWafer_WithoutDialect_MeansNothing(t *testing.T) {
	w := newDataWorld(t, "")
	r, rec := caddytest.Request("GET", "/orders", "")
	r.Header.Set(waferSkey, w.login("ada"))
	if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil || rec.Code != 401 ||
		strings.Contains(rec.Body.String(), "F2C224D4") {
		t.Errorf("%v %d %s", err, rec.Code, rec.Body)
	}
	r, rec = caddytest.Request("GET", "/wx/login", "")
	r.Header.Set(waferCode, w.wechat.Code(caddytest.AppID, "ada"))
	if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil || rec.Code != 405 {
		t.Errorf("%v %d %s", err, rec.Code, rec.Body)
	}
}

func TestLoginFields_Names_OnlyThese(t *testing.T) {
	w := newDataWorld(t, "")
	gate := w.newGate(&Handler{LoginFields: []string{"js_code"}, Apps: []string{caddytest.AppID}})
	code := w.wechat.Code(caddytest.AppID, "ada")
	for body, want := range map[string]int{
		`{"code":"` + code + `"}`:                 400,
		`{"code":"x","js_code":"` + code + `"}`:   200,
		`{"js_code":1}`:                           400,
		`{"js_code":null,"code":"` + code + `"}`:  400,
		`{"jscode":"` + code + `","wxcode":"yy"}`: 400,
	} {
		if rec := serve(t, gate, "/wx/login", "", strings.NewReader(body)); rec.Code != want {
			t.Errorf("%s: %d %s", body, rec.Code, rec.Body)
		}
	}
}
