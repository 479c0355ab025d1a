package wechatapi

import (
	"net/http"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// TestComponent_FromAppID: the call carries the token of the merchant that it names.
func TestComponent_FromAppID_ChoosesTheMerchant(t *testing.T) {
	const merchant, stranger = "wx00000000000000aa", "wx00000000000000bb"
	sim := weixintest.NewServer(weixintest.Config{
		Apps: map[string]string{merchant: "", stranger: "", caddytest.AppID: caddytest.Canary},
		Components: []weixintest.Component{
			{AppID: apptest.PlatformID, Secret: caddytest.Canary},
		},
	})
	t.Cleanup(sim.Close)
	w := &world{apptest.Started(t, apptest.WithWeChat(sim.URL), apptest.WithPlatform(""))}
	a := w.newAPI(&Handler{})
	ticket, err := sim.Ticket(apptest.PlatformID)
	if err != nil {
		t.Fatal(err)
	}
	p := w.Live().Platform(apptest.PlatformID)
	for _, m := range []push.Message{
		{InfoType: push.VerifyTicket, ComponentVerifyTicket: ticket},
		{
			InfoType: push.Authorized, AuthorizerAppID: merchant,
			AuthorizationCode: authorise(t, sim, merchant),
		},
	} {
		m.AppID, m.CreateTime = apptest.PlatformID, time.Now()
		if err := p.Take(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		from string
		want int
	}{
		{merchant, 200}, {caddytest.AppID, 200}, {stranger, 403}, {"", 400},
	} {
		rec := a.call(t, "POST", "/wxa/msg_sec_check",
			`{"content":"x","version":2,"scene":1,"openid":"o"}`,
			func(r *http.Request) { r.URL.RawQuery = "from_appid=" + c.from })
		if rec.Code != c.want {
			t.Errorf("%q: %d %s", c.from, rec.Code, rec.Body)
		}
	}
	for _, c := range sim.Calls() {
		if c.Path == "/wxa/msg_sec_check" && c.AppID != merchant && c.AppID != caddytest.AppID {
			t.Errorf("a call with the token of %q", c.AppID)
		}
	}
}

// authorise makes a mini program authorise the platform, and returns its code.
func authorise(t *testing.T, sim *weixintest.Server, appID string) string {
	t.Helper()
	code, err := sim.AuthorizationCode(apptest.PlatformID, appID)
	if err != nil {
		t.Fatal(err)
	}
	return code
}
