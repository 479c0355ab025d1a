package e2e_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// remembering is the line of the global option that keeps telephone numbers.
const remembering = "\t\tphone {\n\t\t\tremember\n\t\t}"

const phonePath = "/wxa/business/getuserphonenumber"

// openData is what WeChat hands to a user's phone of an object, as the body of
// a decrypt call.
func (w *world) openData(tb testing.TB, appID, user, object string) string {
	tb.Helper()
	d, err := w.wechat.Encrypt(appID, user, json.RawMessage(object))
	if err != nil {
		tb.Fatal(err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// userinfo is an object of wx.getUserInfo with its watermark, so that nothing
// is added to it.
func (w *world) userinfo(user, unionID string) string {
	return fmt.Sprintf(`{"openId":%q,"nickName":"<é> \u00e9","unionId":%q,`+
		`"watermark":{"timestamp":%d,"appid":%q}}`,
		w.wechat.OpenID(appA, user), unionID, time.Now().Unix(), appA)
}

// TestOpenData_UnionID gives the app a unionid from open data with the next
// request of every session, also after a kill. Each binding is one line in the
// audit log.
func TestOpenData_UnionID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.wechat.SetUser(appA, "noah", weixintest.UserOptions{NoUnionID: true})
	first, second := w.login(t, "noah"), w.login(t, "noah")
	noah := &identity{openid: w.wechat.OpenID(appA, "noah"), appid: appA}
	for _, token := range []string{first, second} {
		w.checkAlive(t, token, noah)
	}
	for _, c := range []struct {
		unionid, line string
		bound         int
	}{
		{"u-first", "unionid bound", 1},
		{"u-first", "unionid bound", 1},
		{"u-second", "unionid changed", 1},
	} {
		object := w.userinfo("noah", c.unionid)
		r := w.post(t, "/wx/decrypt", w.openData(t, appA, "noah", object), bearer(first))
		r.made(t, 200)
		if r.body != object || r.header.Get("Content-Type") != "application/json" {
			t.Errorf("the answer is %s, want %s", r, object)
		}
		noah.unionid = c.unionid
		for _, token := range []string{first, second} {
			w.checkAlive(t, token, noah)
		}
		w.audited(t, c.line, c.bound)
	}
	if r := w.call(t, "GET", "/wx/session", "",
		bearer(second)); !strings.Contains(r.body, `"unionid_bound":true`) {
		t.Errorf("the session is %s", r)
	}
	w.gate.kill()
	w.start(t)
	w.checkAlive(t, first, noah)
	for _, secret := range []string{"u-first", "u-second"} {
		if strings.Contains(w.out.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
}

// TestOpenData_Phone gives a number to the client, and to the app only where
// the operator asks for it. The number survives a kill, nobody can forge it,
// and the audit log has a line for each without the number.
func TestOpenData_Phone(t *testing.T) {
	t.Parallel()
	s := mixed
	w := newWorld(t, s)
	ada, bob := w.login(t, "ada"), w.login(t, "bob")
	who := w.who(appA, "ada")
	const number = "13580006666"
	ask := func(token, number string) reply {
		return w.post(t, "/wx/phone", codeBody(w.wechat.PhoneCode(appA, number)), bearer(token))
	}
	r := ask(ada, number)
	r.made(t, 200)
	if want := `{"phoneNumber":"13580006666","purePhoneNumber":"13580006666",` +
		`"countryCode":"86"}`; r.body != want {
		t.Errorf("the answer is %s", r)
	}
	w.checkAlive(t, ada, who)

	s.wechat = remembering
	w.setup = s.complete()
	w.mustReload(t, s)
	w.checkAlive(t, ada, who) // the number of before was not kept
	ask(ada, number).made(t, 200)
	who.phone = number
	check := func() {
		t.Helper()
		w.checkAlive(t, ada, who)
		w.checkAlive(t, bob, w.who(appA, "bob"))
		for _, forged := range []string{
			"X-WX-PHONE", "x-wx-phone", "X-Wx_Phone", "X_WX_PHONE", "X~WX~PHONE",
		} {
			w.call(t, "GET", "/x", "", bearer(ada),
				forged+": 10000000000").received(t).check(t, who)
			w.call(t, "GET", "/x", "", bearer(bob),
				forged+": 10000000000").received(t).check(t, w.who(appA, "bob"))
			w.call(t, "GET", "/public/x", "", forged+": 10000000000").received(t).check(t, nil)
		}
		w.call(t, "GET", "/x", "", bearer(ada), "Connection: X-Wx-Phone").received(t).check(t, who)
	}
	check()
	ask(ada, "852-51230000").made(t, 200) // another one takes its place
	who.phone = "85251230000"
	check()
	w.gate.kill()
	w.searchFiles(t,
		canaries{"a number": number, "another number": "51230000"}) // at rest it is encrypted
	w.start(t)
	check()
	w.audited(t, "phone number given", 3)

	named := s
	named.auth += "\n\t\theaders {\n\t\t\tphone X-User-Phone\n\t\t}"
	w.mustReload(t, named)
	for _, forged := range []string{"", "X-User-Phone: 1", "x_user_phone: 1", "X-WX-Phone: 1"} {
		got := w.call(t, "GET", "/x", "", bearer(ada), "X-Other: 1",
			cmp.Or(forged, "X-Another: 1")).received(t)
		if v := got.Values("x-user-phone"); len(v) != 1 || v[0] != who.phone ||
			len(got.Values("x-wx-phone"))+len(got.Values("x_user_phone")) != 0 {
			t.Errorf("with %q the app is told %q", forged, got.Headers)
		}
	}
	if got := w.call(t, "GET", "/x", "", bearer(bob),
		"X-User-Phone: 1").received(t).Values("x-user-phone"); got != nil {
		t.Errorf("the app is told %q of a user without a number", got)
	}

	w.mustReload(t, mixed)
	w.checkAlive(t, ada, &identity{openid: who.openid, unionid: who.unionid, appid: who.appid})
	if out := w.out.String(); strings.Contains(out, number) || strings.Contains(out, "51230000") {
		t.Error("the log holds a number")
	}
}

// TestOpenData_WeChatAPIOutage tells an outage of WeChat's API from one of
// logins, to clients and in the log, with one line a transition.
func TestOpenData_WeChatAPIOutage(t *testing.T) {
	t.Parallel()
	slow(t)
	s := mixed
	s.timeout = "1s"
	w := newWorld(t, s)
	token := w.login(t, "ada")
	code := codeBody(w.wechat.PhoneCode(appA, "13580006666"))
	for _, path := range []string{"/cgi-bin/stable_token", "/wxa/business/getuserphonenumber"} {
		w.wechat.Inject(
			weixintest.Fault{Kind: weixintest.FaultStatus, Status: 503, Path: path, Times: -1})
	}
	for range 3 {
		w.post(t, "/wx/phone", code, bearer(token)).problem(t, 503, "wechat_unavailable")
		w.login(t, "bob")
	}
	users := 0
	phone := func() int {
		users++ // each with a limit of their own
		token := w.login(t, fmt.Sprint("user ", users))
		return w.post(t, "/wx/phone", code, bearer(token)).status
	}
	eventually(t, "the outage has lasted", func() bool {
		phone()
		return strings.Contains(w.out.String(), "WeChat API is unavailable")
	})
	w.wechat.Reset()
	eventually(t, "numbers are to be had again", func() bool { return phone() == 200 })
	w.gate.logs(t, 0, map[string]int{
		"WeChat API is unavailable": 1, "WeChat API is back": 1, "WeChat is unavailable": 0,
		"WeChat is back": 0,
	})
}
