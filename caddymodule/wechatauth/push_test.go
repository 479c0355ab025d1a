package wechatauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/pushbox"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// pushWorld is a gate whose first mini program takes pushes, and WeChat's half.
type pushWorld struct {
	*dataWorld
	wechat *push.Receiver // seals and signs as WeChat does
}

func newPushWorld(t testing.TB, fields string) *pushWorld {
	t.Helper()
	wx := weixintest.NewServer(weixintest.Config{Apps: map[string]string{
		caddytest.AppID: caddytest.Canary, caddytest.OtherAppID: caddytest.Canary,
	}})
	t.Cleanup(wx.Close)
	w := newWorld(t, &Handler{}, apptest.WithWeChat(wx.URL), apptest.WithPush(fields),
		apptest.WithFields(`"phone":{"remember":true}`)).start()
	return &pushWorld{&dataWorld{w, wx}, pushReceiver(t, caddytest.AppID)}
}

func pushReceiver(t testing.TB, id string) *push.Receiver {
	t.Helper()
	r, err := push.New(id, caddytest.PushToken, caddytest.PushKey)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// call sends one call to the receiver of a mini program.
func (w *pushWorld) call(
	method, appID string, q url.Values, body string,
) *httptest.ResponseRecorder {
	w.T.Helper()
	r, rec := caddytest.Request(method, "/wx/push/"+appID+"?"+q.Encode(), "")
	r.Body = caddytest.Body(body)
	next := new(caddytest.Next)
	if err := w.gate.ServeHTTP(rec, r, next); err != nil || next.Called {
		w.T.Fatalf("%v, passed on: %v", err, next.Called)
	}
	return rec
}

// sealed returns the query and body of a push in secure mode.
func sealed(r *push.Receiver, f push.Format, message string) (url.Values, string) {
	encrypt := r.Seal([]byte(message), 0)
	return r.Sign(encrypt, "415670741", time.Now()),
		string(push.Envelope{Format: f, Encrypt: encrypt, To: "gh_1"}.Body(false))
}

// push sends a message in secure mode and wants success.
func (w *pushWorld) push(f push.Format, message string) {
	w.T.Helper()
	q, body := sealed(w.wechat, f, message)
	if rec := w.call("POST", caddytest.AppID, q, body); rec.Code != 200 ||
		rec.Body.String() != "success" {
		w.T.Fatalf("%s: %d %s", message, rec.Code, rec.Body)
	}
}

func (w *pushWorld) openID(user string) string {
	return w.dataWorld.wechat.OpenID(caddytest.AppID, user)
}

// event is the message about a user, as WeChat writes it. FromUserName is another user,
// whom nothing may befall.
func (w *pushWorld) event(name, user, more string) string {
	return fmt.Sprintf(`{"ToUserName":"gh_1","FromUserName":%q,"CreateTime":%d,"MsgType":"event",`+
		`"Event":%q,"OpenID":%q,"AppID":%q%s}`,
		w.openID("bystander"), time.Now().Unix(), name, w.openID(user), caddytest.AppID, more)
}

// valid reports whether the session of a token holds, and knows whether the user has a
// record.
func (w *pushWorld) valid(token, user string) (session, record bool) {
	w.T.Helper()
	r, rec := caddytest.Request("GET", "/wx/session", token)
	if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
		w.T.Fatal(err)
	}
	_, err := w.Live().Sessions.User(w.T.Context(), userOf(w.openID(user)))
	return rec.Code == 200, err == nil
}

func userOf(openID string) session.User {
	return session.User{AppID: caddytest.AppID, OpenID: openID}
}

func TestPush_Proof_EchoesOnlyWhatIsSigned(t *testing.T) {
	w := newPushWorld(t, "")
	signed := func(at time.Time) url.Values { return w.wechat.Sign("", "1514711492", at) }
	without := func(name string) url.Values {
		q := signed(time.Now())
		q.Del(name)
		return q
	}
	with := func(q url.Values, name, value string) url.Values {
		q.Set(name, value)
		return q
	}
	const echo = "4375120948345356249"
	for _, tt := range []struct {
		name  string
		appID string
		q     url.Values
		echo  string
		want  int
	}{
		{"signed", caddytest.AppID, signed(time.Now()), echo, 200},
		{"not signed", caddytest.AppID, without("signature"), echo, 403},
		{"wrong", caddytest.AppID, with(signed(time.Now()), "signature", "0"), echo, 403},
		{"old", caddytest.AppID, signed(time.Now().Add(-11 * time.Minute)), echo, 403},
		{"early", caddytest.AppID, signed(time.Now().Add(11 * time.Minute)), echo, 403},
		{"no nonce", caddytest.AppID, without("nonce"), echo, 400},
		{"no echo", caddytest.AppID, signed(time.Now()), "", 400},
		{"markup", caddytest.AppID, signed(time.Now()), "<script>", 400},
		{"takes no pushes", caddytest.OtherAppID, signed(time.Now()), echo, 403},
		{"unknown", "wxffffffffffffffff", signed(time.Now()), echo, 403},
	} {
		rec := w.call("GET", tt.appID, with(tt.q, "echostr", tt.echo), "")
		echoed := tt.echo != "" && strings.Contains(rec.Body.String(), tt.echo)
		if rec.Code != tt.want || echoed != (tt.want == 200) {
			t.Errorf("%s: %d %s", tt.name, rec.Code, rec.Body)
		}
	}
	if rec := w.call("PUT", caddytest.AppID, signed(time.Now()), ""); rec.Code != 405 {
		t.Errorf("PUT: %d", rec.Code)
	}
}

func TestPush_Cancelled_UserIsForgotten(t *testing.T) {
	for _, tt := range []struct {
		fields string
		record bool
	}{{"", false}, {`,"keep_users":true`, true}} {
		w := newPushWorld(t, tt.fields)
		gone, bystander := w.login("ada"), w.login("bystander")
		message := w.event(push.UserCancelled, "ada", "")
		w.push(push.JSON, message)
		if s, record := w.valid(gone, "ada"); s || record != tt.record {
			t.Errorf("%q: session %v, record %v", tt.fields, s, record)
		}
		if s, record := w.valid(bystander, "bystander"); !s || !record {
			t.Errorf("%q: FromUserName: session %v, record %v", tt.fields, s, record)
		}
		// The user comes back, and WeChat repeats the push.
		again := w.login("ada")
		w.push(push.JSON, message)
		if s, _ := w.valid(again, "ada"); !s {
			t.Error("a repeated push ended a later session")
		}
		w.push(push.JSON, strings.Replace(message, `"CreateTime":1`, `"CreateTime":2`, 1))
		if s, _ := w.valid(again, "ada"); s {
			t.Error("another push of the same second had no effect")
		}
		// Users and events that are not known need nothing.
		w.push(push.JSON, w.event(push.UserCancelled, "nobody", ""))
		w.push(push.JSON, w.event("debug_demo", "bystander", ""))
		w.push(push.XML, `<xml><MsgType>text</MsgType><Content>hi</Content></xml>`)
		w.push(push.JSON, `{"Event":"user_authorization_cancellation"}`)
		if s, record := w.valid(bystander, "bystander"); !s || !record {
			t.Errorf("bystander: session %v, record %v", s, record)
		}
	}
}

func TestPush_XML_UserIsForgotten(t *testing.T) {
	w := newPushWorld(t, "")
	token := w.login("ada")
	w.push(push.XML, "<xml><MsgType><![CDATA[event]]></MsgType><Event><![CDATA["+
		push.UserCancelled+"]]></Event><OpenID><![CDATA["+w.openID("ada")+"]]></OpenID></xml>")
	if s, record := w.valid(token, "ada"); s || record {
		t.Errorf("session %v, record %v", s, record)
	}
}

func TestPush_Revoked_PhoneIsForgotten(t *testing.T) {
	for info, gone := range map[string]bool{
		`"8"`: true, `8`: true, `["6","8"]`: true, `"6,8"`: true, `"301"`: true,
		`"6"`: false, `"88"`: false, `"new"`: false, `""`: false, `{}`: false,
	} {
		w := newPushWorld(t, "")
		token := w.login("ada")
		w.dataWorld.post("/wx/phone", token,
			phoneBody(w.dataWorld.wechat.PhoneCode(caddytest.AppID, number)))
		w.push(push.JSON, w.event(push.UserRevoked, "ada", `,"RevokeInfo":`+info))
		want := []string{number}
		if gone {
			want = nil
		}
		if got := w.sees(token)["X-Wx-Phone"]; !slices.Equal(got, want) {
			t.Errorf("%s: the app sees %q", info, got)
		}
	}
}

// Each push here is a genuine one with one fault. None has an effect.
func TestThreat52_Push_Faulty_RefusedWithoutEffect(t *testing.T) {
	w := newPushWorld(t, "")
	token := w.login("ada")
	message := w.event(push.UserCancelled, "ada", "")
	other := pushReceiver(t, caddytest.OtherAppID)
	old := func(q url.Values, body string, at time.Time) (url.Values, string) {
		e, err := push.ReadEnvelope([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return w.wechat.Sign(e.Encrypt, "1", at), body
	}
	for _, tt := range []struct {
		name   string
		want   int
		change func(q url.Values, body string) (url.Values, string)
	}{
		{"msg_signature", 403, func(q url.Values, body string) (url.Values, string) {
			q.Set("msg_signature", strings.Repeat("0", 40))
			return q, body
		}},
		{"no msg_signature", 403, func(q url.Values, body string) (url.Values, string) {
			q.Del("msg_signature")
			return q, body
		}},
		{
			"plain, by leaving encrypt_type out", 400,
			func(q url.Values, _ string) (url.Values, string) {
				q.Del("encrypt_type")
				q.Del("msg_signature")
				return q, message
			},
		},
		{
			"plain beside a foreign Encrypt", 403,
			func(url.Values, string) (url.Values, string) {
				encrypt := other.Seal([]byte(`{}`), 0)
				return other.Sign(encrypt, "1", time.Now()),
					message[:len(message)-1] + `,"Encrypt":"` + encrypt + `"}`
			},
		},
		{"another receiver", 403, func(url.Values, string) (url.Values, string) {
			return sealed(other, push.JSON, message)
		}},
		{"old", 403, func(q url.Values, body string) (url.Values, string) {
			return old(q, body, time.Now().Add(-11*time.Minute))
		}},
		{"early", 403, func(q url.Values, body string) (url.Values, string) {
			return old(q, body, time.Now().Add(11*time.Minute))
		}},
		{"DOCTYPE", 400, func(q url.Values, body string) (url.Values, string) {
			e, _ := push.ReadEnvelope([]byte(body))
			e.Format = push.XML
			return q, "<!DOCTYPE xml>" + string(e.Body(false))
		}},
		{"2 MB", 400, func(q url.Values, body string) (url.Values, string) {
			return q, body[:len(body)-1] + `,"x":"` + strings.Repeat("x", 2<<20) + `"}`
		}},
		{"no base64", 403, func(url.Values, string) (url.Values, string) {
			return w.wechat.Sign("%%%", "1", time.Now()), `{"Encrypt":"%%%"}`
		}},
		{"Encrypt twice", 400, func(q url.Values, body string) (url.Values, string) {
			return q, body[:len(body)-1] + `,"Encrypt":"QQ=="}`
		}},
		{"no body", 400, func(q url.Values, _ string) (url.Values, string) { return q, "" }},
		{"message that is no object", 400, func(url.Values, string) (url.Values, string) {
			return sealed(w.wechat, push.JSON, "[]")
		}},
		{"message with a DOCTYPE", 400, func(url.Values, string) (url.Values, string) {
			return sealed(w.wechat, push.XML, `<!DOCTYPE xml><xml><Event>x</Event></xml>`)
		}},
	} {
		q, body := tt.change(sealed(w.wechat, push.JSON, message))
		w.Logs.TakeAll()
		rec := w.call("POST", caddytest.AppID, q, body)
		if rec.Code != tt.want || strings.Contains(rec.Body.String(), "success") {
			t.Errorf("%s: %d %s, want %d", tt.name, rec.Code, rec.Body, tt.want)
		}
		if s, record := w.valid(token, "ada"); !s || !record {
			t.Fatalf("%s: session %v, record %v", tt.name, s, record)
		}
		if lines := caddytest.Lines(w.Logs); strings.Count(lines, "push refused") > 1 ||
			strings.Contains(lines, caddytest.PushToken) {
			t.Errorf("%s: log %s", tt.name, lines)
		}
	}
	q, body := sealed(w.wechat, push.JSON, message)
	if rec := w.call("POST", caddytest.OtherAppID, q, body); rec.Code != 403 {
		t.Errorf("the path of another mini program: %d", rec.Code)
	}
	w.push(push.JSON, message) // and the genuine one
	if s, record := w.valid(token, "ada"); s || record {
		t.Errorf("genuine: session %v, record %v", s, record)
	}
}

func TestPush_PlainMode_SignatureOfTheQueryCounts(t *testing.T) {
	w := newPushWorld(t, `,"mode":"plain"`)
	token := w.login("ada")
	message := w.event(push.UserCancelled, "ada", "")
	q := w.wechat.Sign("", "1", time.Now())
	wrong := url.Values{"signature": {"0"}, "timestamp": q["timestamp"], "nonce": q["nonce"]}
	if rec := w.call("POST", caddytest.AppID, wrong, message); rec.Code != 403 {
		t.Errorf("forged: %d", rec.Code)
	}
	if s, record := w.valid(token, "ada"); !s || !record {
		t.Errorf("forged: session %v, record %v", s, record)
	}
	if rec := w.call("POST", caddytest.AppID, q, message); rec.Code != 200 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if s, record := w.valid(token, "ada"); s || record {
		t.Errorf("session %v, record %v", s, record)
	}
}

// What the gate could not do it does not acknowledge, and WeChat's retry does it.
func TestPush_StoreDown_IsRepeated(t *testing.T) {
	w := newPushWorld(t, "")
	token := w.login("ada")
	message := w.event(push.UserCancelled, "ada", "")
	caddytest.Down.Store(true)
	defer caddytest.Down.Store(false)
	q, body := sealed(w.wechat, push.JSON, message)
	if rec := w.call("POST", caddytest.AppID, q, body); rec.Code != 503 ||
		strings.Contains(rec.Body.String(), "success") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	caddytest.Down.Store(false)
	w.push(push.JSON, message)
	if s, record := w.valid(token, "ada"); s || record {
		t.Errorf("session %v, record %v", s, record)
	}
}

// slowApp is an app behind the gate that answers when it is let.
type slowApp struct {
	status int
	body   string
	let    chan struct{} // nil: at once

	calls chan *http.Request
}

func (a *slowApp) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	a.calls <- r
	if a.let != nil {
		<-a.let
	}
	if a.status == 0 {
		return errors.New("no upstream")
	}
	w.WriteHeader(a.status)
	_, err := io.WriteString(w, a.body)
	return err
}

// waiting returns how many pushes wait for the app.
func (w *pushWorld) waiting() (n int) {
	w.T.Helper()
	for shard := range pushbox.Shards {
		v, err := w.Live().Core.Fact(w.T.Context(), fmt.Sprintf("pushes due %02x", shard))
		if err != nil {
			w.T.Fatal(err)
		}
		if len(v) > 0 {
			n++
		}
	}
	return n
}

func TestPush_Deliver_PromptAnswerGoesToWeChat(t *testing.T) {
	const message = `{"MsgType":"text","Content":"hi"}`
	for _, tt := range []struct {
		name    string
		app     slowApp
		answer  string
		waiting int
	}{
		{"answer", slowApp{status: 200, body: ` {"a":1} `}, `{"a":1}`, 0},
		{"success", slowApp{status: 200, body: "success\n"}, "", 0},
		{"empty", slowApp{status: 204}, "", 0},
		{"too long", slowApp{status: 200, body: strings.Repeat("x", 65<<10)}, "", 0},
		{"refused", slowApp{status: 500, body: "no"}, "", 1},
		{"away", slowApp{}, "", 1},
	} {
		w := newPushWorld(t, `,"deliver":"/push"`)
		tt.app.calls = make(chan *http.Request, 1)
		q, body := sealed(w.wechat, push.JSON, message)
		r, rec := caddytest.Request("POST", "/wx/push/"+caddytest.AppID+"?"+q.Encode(), "secret")
		r.Header.Set("Cookie", "x=secret")
		r.Body = caddytest.Body(body)
		if err := w.gate.ServeHTTP(rec, r, &tt.app); err != nil {
			t.Fatal(err)
		}
		got := rec.Body.String()
		if tt.answer == "" && got != "success" || tt.answer != "" && w.opened(got) != tt.answer {
			t.Errorf("%s: %d %s", tt.name, rec.Code, got)
		}
		req := <-tt.app.calls
		said, _ := io.ReadAll(req.Body)
		if req.URL.Path != "/push" || string(said) != message || len(req.Header) != 3 ||
			req.Header.Get("X-WX-SOURCE") != "wx_push" ||
			req.Header.Get("X-WX-APPID") != caddytest.AppID {
			t.Errorf("%s: the app got %s %v %s", tt.name, req.URL, req.Header, said)
		}
		for deadline := time.Now().Add(20 * time.Second); w.waiting() != tt.waiting; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d wait, want %d", tt.name, w.waiting(), tt.waiting)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// opened decrypts a reply as WeChat does.
func (w *pushWorld) opened(body string) string {
	w.T.Helper()
	var reply struct {
		Encrypt, MsgSignature, Nonce string
		TimeStamp                    json.Number
	}
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		w.T.Fatalf("%s: %v", body, err)
	}
	text, _, err := w.wechat.Open(push.Query{
		MsgSignature: reply.MsgSignature, Timestamp: reply.TimeStamp.String(), Nonce: reply.Nonce,
	}, reply.Encrypt)
	if err != nil {
		w.T.Fatal(err)
	}
	return string(text)
}

// WeChat does not wait for a slow app, which gets the push once all the same.
func TestPush_Deliver_SlowApp_GetsItOnce(t *testing.T) {
	w := newPushWorld(t, `,"deliver":"/push"`)
	app := &slowApp{status: 200, let: make(chan struct{}), calls: make(chan *http.Request, 9)}
	for range 2 { // and WeChat repeats it
		q, body := sealed(w.wechat, push.JSON, `{"MsgType":"text","FromUserName":"o1"}`)
		r, rec := caddytest.Request("POST", "/wx/push/"+caddytest.AppID+"?"+q.Encode(), "")
		r.Body = caddytest.Body(body)
		if err := w.gate.ServeHTTP(rec, r, app); err != nil || rec.Body.String() != "success" {
			t.Fatalf("%s, %v", rec.Body, err)
		}
	}
	if w.waiting() != 1 {
		t.Error("the push is not kept")
	}
	close(app.let)
	for deadline := time.Now().Add(20 * time.Second); w.waiting() != 0; {
		if time.Now().After(deadline) {
			t.Fatal("the push waits on")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if len(app.calls) != 1 {
		t.Errorf("the app was called %d times", len(app.calls))
	}
}
