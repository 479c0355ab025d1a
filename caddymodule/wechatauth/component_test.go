package wechatauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	merchant      = "wx00000000000000aa"
	otherMerchant = "wx00000000000000bb"
)

// platformWorld is a gate with a third-party platform, and WeChat's half, whose pushes
// reach the gate.
type platformWorld struct {
	*world
	sim    *weixintest.Server
	wechat *push.Receiver // seals and signs as WeChat does
	url    string
}

func newPlatformWorld(t testing.TB, fields string, options ...apptest.Option) *platformWorld {
	t.Helper()
	w := new(platformWorld)
	w.sim = weixintest.NewServer(weixintest.Config{
		Apps: map[string]string{
			caddytest.AppID: caddytest.Canary, merchant: "", otherMerchant: "",
		},
		Components: []weixintest.Component{{
			AppID: apptest.PlatformID, Secret: caddytest.Canary,
			Token: caddytest.PushToken, AESKey: caddytest.PushKey,
		}},
	})
	t.Cleanup(w.sim.Close)
	options = append(options, apptest.WithWeChat(w.sim.URL), apptest.WithPlatform(fields))
	w.world = newWorld(t, &Handler{}, options...).start()
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_ = w.gate.ServeHTTP(rw, caddytest.Prepare(r, rw), new(caddytest.Next))
	}))
	t.Cleanup(srv.Close)
	w.url = srv.URL + "/wx/component/" + apptest.PlatformID + "/events"
	if err := w.sim.SetEventsURL(apptest.PlatformID, w.url); err != nil {
		t.Fatal(err)
	}
	w.wechat = pushReceiver(t, apptest.PlatformID)
	return w
}

func (w *platformWorld) pushed(p weixintest.Pushed, err error) {
	w.T.Helper()
	if err != nil || p.Status != http.StatusOK || p.Answer != push.Success {
		w.T.Fatalf("push: %+v, %v", p, err)
	}
}

// authorised brings a ticket and a merchant.
func (w *platformWorld) authorised() *platformWorld {
	w.T.Helper()
	w.pushed(w.sim.PushTicket(w.T.Context(), apptest.PlatformID))
	w.pushed(w.sim.Authorize(w.T.Context(), apptest.PlatformID, merchant))
	return w
}

// serve sends a request and returns the answer, and what the app got of it.
func (w *platformWorld) serve(
	method, target, token, body string,
) (*httptest.ResponseRecorder, *caddytest.Next) {
	w.T.Helper()
	r, rec := caddytest.Request(method, target, token)
	r.Header.Set("Content-Type", "application/json")
	r.Body = caddytest.Body(body)
	next := new(caddytest.Next)
	if err := w.gate.ServeHTTP(rec, r, next); err != nil {
		w.T.Fatal(err)
	}
	return rec, next
}

// logIn logs alice in to a mini program.
func (w *platformWorld) logIn(appID string) *httptest.ResponseRecorder {
	w.T.Helper()
	rec, _ := w.serve("POST", "/wx/login", "",
		fmt.Sprintf(`{"code":%q,"appid":%q}`, w.sim.Code(appID, "alice"), appID))
	return rec
}

func (w *platformWorld) token(appID string) string {
	w.T.Helper()
	rec := w.logIn(appID)
	var out struct {
		Token string `json:"3rd_session"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil || out.Token == "" {
		w.T.Fatalf("login: %d %s", rec.Code, rec.Body)
	}
	return out.Token
}

func (w *platformWorld) eventually(what string, holds func() bool) {
	w.T.Helper()
	for began := time.Now(); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			w.T.Fatalf("still not: %s", what)
		}
	}
}

func TestComponent_Merchant_LogsInAndReachesTheApp(t *testing.T) {
	w := newPlatformWorld(t, "").authorised()
	token := w.token(merchant)
	if _, next := w.serve("GET", "/orders", token, ""); !next.Called ||
		next.R.Header.Get("X-Wx-Appid") != merchant ||
		next.R.Header.Get("X-Wx-Openid") != w.sim.OpenID(merchant, "alice") {
		t.Errorf("the app got %v", next.R.Header)
	}
	w.eventually("tokens of the merchant", func() bool {
		code := w.sim.PhoneCode(merchant, number)
		rec, _ := w.serve("POST", "/wx/phone", token, phoneBody(code))
		return strings.Contains(rec.Body.String(), number)
	})
	if rec := w.logIn(caddytest.AppID); rec.Code != 200 { // has a line of its own
		t.Errorf("the configured one: %d %s", rec.Code, rec.Body)
	}
	for _, id := range []string{otherMerchant, "wxffffffffffffffff", "nonsense"} {
		rec, _ := w.serve("POST", "/wx/login", "", fmt.Sprintf(`{"code":"c","appid":%q}`, id))
		if rec.Code != 403 ||
			caddytest.Code(t, rec) != "app_not_allowed" {
			t.Errorf("%s: %d %s", id, rec.Code, rec.Body)
		}
	}
}

func TestComponent_NoTicket_WaitsAndSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		options []apptest.Option
		status  int
		state   string
	}{
		"beside others": {nil, 200, "degraded"},
		"alone":         {[]apptest.Option{apptest.Alone}, 503, "starting"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newPlatformWorld(t, "", c.options...)
			if err := w.sim.SetEventsURL(apptest.PlatformID, ""); err != nil { // nothing comes
				t.Fatal(err)
			}
			rec, _ := w.serve("GET", "/wx/readyz", "", "")
			if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.state) ||
				!strings.Contains(rec.Body.String(), apptest.PlatformID) {
				t.Errorf("readyz: %d %s", rec.Code, rec.Body)
			}
			// A merchant of before, as after a restart that has lost the ticket.
			q, body := w.notice(push.Authorized, "<AuthorizerAppid>"+merchant+
				"</AuthorizerAppid><AuthorizationCode>code</AuthorizationCode>")
			if rec := w.call("/events", q, body); rec.Code != 200 {
				t.Fatalf("authorised: %d %s", rec.Code, rec.Body)
			}
			login := w.logIn(merchant)
			if login.Code != 503 || caddytest.Code(t, login) != "wechat_unavailable" ||
				login.Header().Get("Retry-After") == "" {
				t.Errorf("login: %d %v %s", login.Code, login.Header(), login.Body)
			}
			if err := w.sim.SetEventsURL(apptest.PlatformID, w.url); err != nil {
				t.Fatal(err)
			}
			w.pushed(w.sim.PushTicket(w.T.Context(), apptest.PlatformID))
			rec, _ = w.serve("GET", "/wx/readyz", "", "")
			if rec.Code != 200 || rec.Body.String() != `{"status":"ok"}` {
				t.Errorf("readyz: %d %s", rec.Code, rec.Body)
			}
		})
	}
}

func TestComponent_Unauthorised_ClosesTheLogin(t *testing.T) {
	for _, ends := range []bool{false, true} {
		fields := ""
		if ends {
			fields = `,"on_unauthorized":"end_sessions"`
		}
		w := newPlatformWorld(t, fields).authorised()
		token := w.token(merchant)
		w.pushed(w.sim.Unauthorize(w.T.Context(), apptest.PlatformID, merchant))
		if rec := w.logIn(merchant); rec.Code != 403 {
			t.Errorf("login: %d %s", rec.Code, rec.Body)
		}
		if !ends {
			if rec, _ := w.serve("GET", "/wx/session", token, ""); rec.Code != 200 {
				t.Errorf("session: %d %s", rec.Code, rec.Body)
			}
			continue
		}
		w.eventually("the end of the sessions", func() bool {
			rec, _ := w.serve("GET", "/wx/session", token, "")
			return rec.Code == 401
		})
	}
}

// notice returns the query and body of a push to the platform.
func (w *platformWorld) notice(infoType, more string) (url.Values, string) {
	return w.sealed(fmt.Sprintf("<xml><AppId>%s</AppId><CreateTime>%d</CreateTime>"+
		"<InfoType>%s</InfoType>%s</xml>", apptest.PlatformID, time.Now().Unix(), infoType, more))
}

func (w *platformWorld) sealed(message string) (url.Values, string) {
	encrypt := w.wechat.Seal([]byte(message), 0)
	return w.wechat.Sign(encrypt, "415670741", time.Now()),
		string(push.Envelope{Format: push.XML, Encrypt: encrypt, To: apptest.PlatformID}.Body(true))
}

// call sends a push to an address below that of the platform.
func (w *platformWorld) call(tail string, q url.Values, body string) *httptest.ResponseRecorder {
	w.T.Helper()
	target := "/wx/component/" + apptest.PlatformID + tail + "?" + q.Encode()
	rec, next := w.serve("POST", target, "", body)
	if next.Called {
		w.T.Fatalf("%s reached the app", tail)
	}
	return rec
}

func TestThreat53_Component_BadPush_ChangesNothing(t *testing.T) {
	const ticket = "<ComponentVerifyTicket>forged</ComponentVerifyTicket>"
	w := newPlatformWorld(t, "")
	if err := w.sim.SetEventsURL(apptest.PlatformID, ""); err != nil {
		t.Fatal(err)
	}
	forged, other := *w, *w
	var err error
	forged.wechat, err = push.New(apptest.PlatformID, "BBBBB", caddytest.PushKey)
	if err != nil {
		t.Fatal(err)
	}
	other.wechat = pushReceiver(t, merchant) // ends with another AppID
	message := func(w platformWorld, change func(url.Values), body string) (url.Values, string) {
		q, b := w.notice(push.VerifyTicket, body)
		change(q)
		return q, b
	}
	none := func(url.Values) {}
	for _, c := range []struct {
		name string
		w    platformWorld
		with func(url.Values)
		body string
		want int
	}{
		{"wrong token", forged, none, ticket, 403},
		{"wrong receiver", other, none, ticket, 403},
		{"no signature", *w, func(q url.Values) { q.Del("msg_signature") }, ticket, 403},
		{
			"encrypt_type left out", forged, func(q url.Values) { q.Del("encrypt_type") },
			ticket, 403,
		},
		{"empty ticket", *w, none, "", 400},
		{"doctype", *w, none, ticket + "<!DOCTYPE x>", 400},
	} {
		q, body := message(c.w, c.with, c.body)
		if rec := w.call("/events", q, body); rec.Code != c.want {
			t.Errorf("%s: %d %s", c.name, rec.Code, rec.Body)
		}
	}
	q, _ := w.notice(push.VerifyTicket, ticket)
	for name, body := range map[string]string{
		"no envelope":   ticket,
		"in clear":      "<xml><AppId>" + apptest.PlatformID + "</AppId>" + ticket + "</xml>",
		"two megabytes": "<xml><Encrypt>" + strings.Repeat("A", 2<<20) + "</Encrypt></xml>",
		"no base64":     "<xml><Encrypt>!</Encrypt></xml>",
	} {
		if rec := w.call("/events", q, body); rec.Code != 400 && rec.Code != 403 &&
			rec.Code != 413 {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
	// The message names another platform, though it ends with this one.
	q, body := w.sealed("<xml><AppId>wx134c8103faa5a59e</AppId><InfoType>component_verify_ticket" +
		"</InfoType>" + ticket + "</xml>")
	if rec := w.call("/events", q, body); rec.Code != 403 {
		t.Errorf("another platform's: %d %s", rec.Code, rec.Body)
	}
	if w.Live().Platform(apptest.PlatformID).Health().Ready {
		t.Error("a ticket was taken")
	}
	q, body = w.notice("notify_third_fasteregister", "")
	if rec := w.call("/events", q, body); rec.Code != 200 || rec.Body.String() != push.Success {
		t.Errorf("unknown kind: %d %s", rec.Code, rec.Body)
	}
	const elsewhere = "/wx/component/wx134c8103faa5a59e/events"
	if rec, _ := w.serve("POST", elsewhere, "", ""); rec.Code != 404 {
		t.Errorf("another platform's path: %d %s", rec.Code, rec.Body)
	}
}

// TestComponent_Callback: the path says whose push it is, and counts only for a merchant.
func TestComponent_Callback_ForgetsTheMerchantsUser(t *testing.T) {
	w := newPlatformWorld(t, "").authorised()
	token := w.token(merchant)
	user := session.User{AppID: merchant, OpenID: w.sim.OpenID(merchant, "alice")}
	cancelled := fmt.Sprintf("<xml><ToUserName>gh_1</ToUserName><FromUserName>o1</FromUserName>"+
		"<CreateTime>%d</CreateTime><MsgType>event</MsgType><Event>%s</Event>"+
		"<OpenID>%s</OpenID></xml>",
		time.Now().Unix(), push.UserCancelled, user.OpenID)
	q, body := w.sealed(cancelled)
	for _, id := range []string{otherMerchant, caddytest.AppID, "wxffffffffffffffff"} {
		if rec := w.call("/callback/"+id, q, body); rec.Code != 403 {
			t.Errorf("%s: %d %s", id, rec.Code, rec.Body)
		}
	}
	if rec, _ := w.serve("GET", "/wx/session", token, ""); rec.Code != 200 {
		t.Fatalf("session: %d %s", rec.Code, rec.Body)
	}
	for range 2 { // WeChat repeats it
		if rec := w.call("/callback/"+merchant, q, body); rec.Code != 200 {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	}
	if rec, _ := w.serve("GET", "/wx/session", token, ""); rec.Code != 401 {
		t.Errorf("session: %d %s", rec.Code, rec.Body)
	}
	if _, err := w.Live().Sessions.User(t.Context(), user); err == nil {
		t.Error("the user is not forgotten")
	}
}

func TestComponent_MerchantRate_BoundsOneMerchant(t *testing.T) {
	w := newPlatformWorld(t, `,"merchant_rate":"2/h"`).authorised()
	w.pushed(w.sim.Authorize(w.T.Context(), apptest.PlatformID, otherMerchant))
	var codes []int
	for range 3 {
		codes = append(codes, w.logIn(merchant).Code)
	}
	if fmt.Sprint(codes) != "[200 200 429]" {
		t.Errorf("one merchant: %v", codes)
	}
	if rec := w.logIn(otherMerchant); rec.Code != 200 {
		t.Errorf("another: %d %s", rec.Code, rec.Body)
	}
}
