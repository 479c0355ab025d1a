package wechatauth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// told is what an app got from the gate.
type told struct {
	path   string
	header http.Header
	body   string
}

// eventServer serves a site with a mini program and a third-party platform. Its app
// answers 503 to the first call.
func eventServer(t *testing.T, site string) (s *server, app chan told) {
	t.Helper()
	app = make(chan told, 32)
	broken := make(chan struct{}, 1)
	broken <- struct{}{}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		select {
		case <-broken:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			app <- told{r.URL.Path, r.Header, string(body)}
		}
	}))
	t.Cleanup(upstream.Close)
	const keys = "token {env.WX_PUSH_TOKEN}\naes_key {env.WX_PUSH_KEY}\n"
	out, _, err := caddytest.Adapt(fmt.Sprintf(
		"{\nwechat {\napp %s {env.WX_SECRET} {\npush {\n"+keys+"events_to /events\n}\n}\n"+
			"component %s {env.WX_SECRET} {\n"+keys+
			"forget no\ndeliver /merchants/push\nevents_to /merchants/events\n}\n"+
			"api {\nbase_url http://127.0.0.1:1\n}\nstore bolt %s {\nnew\n}\n}\n}\n"+
			"http://api.example.com, http://127.0.0.1 {\nwechat_auth {\n%s\n}\nreverse_proxy %s\n}\n",
		caddytest.AppID, apptest.PlatformID, filepath.Join(t.TempDir(), "s.db"), site,
		strings.TrimPrefix(upstream.URL, "http://")))
	if err != nil {
		t.Fatal(err)
	}
	return startServer(t, string(out)), app
}

// wechat sends a request for the site and wants a status.
func (s *server) wechat(path string, q url.Values, body string, want int) {
	s.T.Helper()
	r, err := http.NewRequest("POST", "http://"+s.addr+path+"?"+q.Encode(), strings.NewReader(body))
	if err != nil {
		s.T.Fatal(err)
	}
	r.Host = "api.example.com"
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.T.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != want {
		s.T.Fatalf("%s: %d, want %d", path, resp.StatusCode, want)
	}
}

func cancelled(openID string) string {
	return fmt.Sprintf(`{"MsgType":"event","Event":%q,"OpenID":%q,"FromUserName":"o1"}`,
		push.UserCancelled, openID)
}

// next returns what the app gets next on a path; on another one it gets what it likes.
func next(t *testing.T, app chan told, path string) told {
	t.Helper()
	for {
		select {
		case got := <-app:
			if got.path == path {
				return got
			}
		case <-time.After(time.Minute):
			t.Fatalf("the app got nothing on %s", path)
		}
	}
}

const eventSite = "assertion {\naudience orders\n}"

// TestP12_Events_AppIsTold runs both at once, since they wait for retries most of the
// time. Caddy provisions proxies only one after the other.
func TestP12_Events_AppIsTold(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for retries; run without -short")
	}
	t.Setenv("WX_SECRET", caddytest.Canary)
	t.Setenv("WX_PUSH_TOKEN", caddytest.PushToken)
	t.Setenv("WX_PUSH_KEY", caddytest.PushKey)
	for name, told := range map[string]func(*testing.T, *server, chan told){
		"mini program": toldOfUsers, "third-party platform": toldOfMerchants,
	} {
		s, app := eventServer(t, eventSite)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.T = t
			told(t, s, app)
		})
	}
}

// toldOfUsers: in order for a user, each at least once, and provably by the gate,
// whatever made it happen.
func toldOfUsers(t *testing.T, s *server, app chan told) {
	s.wechat("/events", nil, `{}`, 404)
	s.wechat("/merchants/events", nil, `{}`, 404)
	wechat := pushReceiver(t, caddytest.AppID)
	q, body := sealed(wechat, push.JSON, cancelled("ada"))
	for range 2 { // WeChat repeats it
		s.wechat("/wx/push/"+caddytest.AppID, q, body, 200)
	}
	err := s.Live().Tell(t.Context(), "later", nil, wechatapp.Event{ // as the admin API does
		Event: wechatapp.EventBlocked, AppID: caddytest.AppID, OpenID: "ada", UnionID: "u-ada",
		Reason: wechatapp.ReasonOperator, Until: time.Unix(2e9, 0).UTC(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ event, unionID, more string }{
		{"forgotten", "", `,"reason":"user_cancelled"}`},
		{
			"blocked", "u-ada",
			`,"reason":"operator","until":"2033-05-18T03:33:20Z"}`,
		},
	} {
		got := next(t, app, "/events")
		sum := sha256.Sum256([]byte(got.body))
		claims := s.claimsOf(got.header.Get("X-Wx-Assertion"))
		if claims["event"] != want.event || claims["sub"] != "ada" || claims["aud"] != "orders" ||
			claims["iss"] != "https://api.example.com" || claims["appid"] != caddytest.AppID ||
			claims["jti"] == "" || claims["exp"] == nil ||
			claims["body_sha256"] != base64.RawURLEncoding.EncodeToString(sum[:]) {
			t.Errorf("%s: claims %v", want.event, claims)
		}
		begins := `{"event":"` + want.event + `","appid":"` + caddytest.AppID + `","openid":"ada",`
		if want.unionID != "" {
			begins += `"unionid":"` + want.unionID + `",`
		}
		if !strings.HasPrefix(got.body, begins+`"at":"`) ||
			!strings.HasSuffix(got.body, want.more) ||
			got.header.Get("Content-Type") != "application/json" ||
			got.header.Get("X-Wx-Source") != "wx_event" || got.header.Get("X-Wx-Openid") != "ada" ||
			got.header.Get("X-Wx-Unionid") != want.unionID {
			t.Errorf("%s: %v %s", want.event, got.header, got.body)
		}
	}
}

// toldOfMerchants: the app gets the pushes of merchants, under their AppID, and
// what befell their users; the tickets of the platform it never gets.
func toldOfMerchants(t *testing.T, s *server, app chan told) {
	w := &platformWorld{wechat: pushReceiver(t, apptest.PlatformID)}
	const path = "/wx/component/" + apptest.PlatformID
	q, body := w.notice(push.Authorized, "<AuthorizerAppid>"+merchant+
		"</AuthorizerAppid><AuthorizationCode>code</AuthorizationCode>")
	s.wechat(path+"/events", q, body, 200)
	q, body = w.sealed(`{"FromUserName":"o0"}`)
	s.wechat(path+"/callback/"+otherMerchant, q, body, 403)
	for _, openID := range []string{"ada", "bob"} { // the app is away at first
		q, body = w.sealed(cancelled(openID))
		s.wechat(path+"/callback/"+merchant, q, body, 200)
	}
	err := s.Live().Tell(t.Context(), "later", nil, wechatapp.Event{
		Event: wechatapp.EventBlocked, AppID: merchant, OpenID: "ada",
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for len(seen) < 5 {
		var got told
		select {
		case got = <-app:
		case <-time.After(time.Minute):
			t.Fatalf("the app got only %v", seen)
		}
		if got.header.Get("X-Wx-Appid") != merchant || strings.Contains(got.body, "code") {
			t.Errorf("%+v", got)
		}
		what := got.path + " " + got.header.Get("X-Wx-Openid")
		if got.path == "/merchants/events" {
			var e wechatapp.Event
			if err := json.Unmarshal([]byte(got.body), &e); err != nil {
				t.Fatal(err)
			}
			what += " " + e.Event
			s.claimsOf(got.header.Get("X-Wx-Assertion"))
		}
		seen[what] = true
	}
	for _, want := range []string{
		"/merchants/push ada", "/merchants/push bob", "/merchants/events ada cancelled",
		"/merchants/events bob cancelled", "/merchants/events ada blocked",
	} {
		if !seen[want] {
			t.Errorf("not %s: %v", want, seen)
		}
	}
}

// An app without proof could not tell an event from a client's.
func TestEvents_NoAssertion_Refused(t *testing.T) {
	for name, option := range map[string]apptest.Option{
		"mini program": apptest.WithPush(`,"events_to":"/events"`),
		"component":    apptest.WithPlatform(`,"events_to":"/events"`),
	} {
		w := &world{World: apptest.New(t, option)}
		if err := new(Handler).Provision(w.Ctx); err == nil ||
			!strings.Contains(err.Error(), "events_to needs assertion") {
			t.Errorf("%s: %v", name, err)
		}
		cloudrun := &Handler{Cloudrun: true} // takes no pushes
		if err := cloudrun.Provision(w.Ctx); err != nil {
			t.Errorf("%s: cloudrun: %v", name, err)
		}
	}
}

// What is not kept for the app is not told to WeChat as done, and the user's record stays
// for the retry.
func TestEvents_StoreDown_PushIsRepeated(t *testing.T) {
	wx := pushReceiver(t, caddytest.AppID)
	h := &Handler{Assertion: &Assertion{"orders", "https://a.example.com"}}
	w := &pushWorld{
		&dataWorld{newWorld(t, h, apptest.WithPush(`,"events_to":"/events"`)).start(), nil}, wx,
	}
	q, body := sealed(wx, push.JSON, cancelled("ada"))
	caddytest.Down.Store(true)
	defer caddytest.Down.Store(false)
	if rec := w.call("POST", caddytest.AppID, q, body); rec.Code != 503 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	caddytest.Down.Store(false)
	if rec := w.call("POST", caddytest.AppID, q, body); rec.Code != 200 || w.waiting() != 1 {
		t.Errorf("%d %s, %d wait", rec.Code, rec.Body, w.waiting())
	}
}
