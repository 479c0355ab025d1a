package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// TestP2_Component_KilledAfterEachPush: what the gate has acknowledged survives kill -9, at
// once after the push: the ticket, the authorisation, and the code that it has not yet
// exchanged, or has exchanged and not yet stored.
func TestP2_Component_KilledAfterEachPush_NoMerchantLost(t *testing.T) {
	t.Parallel()
	const platform, rounds = "wx9876543210fedcba", 4
	component := weixintest.Component{
		AppID: platform, Secret: secretOf(platform), Token: "demoToken",
		AESKey: "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
	}
	var merchants []string
	for i := range rounds {
		merchants = append(merchants, fmt.Sprintf("wx%016x", i))
	}
	w := newWorld(t, setup{
		components: []weixintest.Component{component}, merchants: merchants,
		wechat: "component " + platform + " {env.WX_COMPONENT} {\n" +
			"token {env.WX_TOKEN}\naes_key {env.WX_KEY}\n}",
		env: []string{
			"WX_COMPONENT=" + component.Secret, "WX_TOKEN=" + component.Token,
			"WX_KEY=" + component.AESKey,
		},
	})
	url := "http://" + w.addr + "/wx/component/" + platform + "/events"
	if err := w.wechat.SetEventsURL(platform, url); err != nil {
		t.Fatal(err)
	}
	taken := func(p weixintest.Pushed, err error) {
		t.Helper()
		if err != nil || p.Status != 200 || p.Answer != "success" {
			t.Fatalf("push: %+v, %v", p, err)
		}
	}
	for i, id := range merchants {
		if i == 0 {
			taken(w.wechat.PushTicket(t.Context(), platform))
			w.gate.kill()
			w.start(t)
		}
		taken(w.wechat.Authorize(t.Context(), platform, id))
		if i%2 == 1 { // while the code is on its way, or just back
			eventually(t, "the exchange has begun", func() bool {
				return w.wechat.Count("/cgi-bin/component/api_query_auth") > i/2
			})
		}
		w.gate.kill()
		w.start(t)
		body := appBody(w.wechat.Code(id, "ada"), id)
		if r := w.post(t, "/wx/login", body); r.status != 200 {
			t.Errorf("login to %s: %s", id, r)
		}
	}
	eventually(t, "each merchant has a refresh token", func() bool {
		list := w.adminGet(t, "/wechat/component")
		return strings.Count(list, `"state":"authorized"`) == rounds
	})
}
