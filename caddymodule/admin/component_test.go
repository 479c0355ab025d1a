package admin

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const merchantID = "wx00000000000000aa"

// newPlatform starts a gate with a third-party platform.
func newPlatform(t *testing.T) (*apptest.World, *weixintest.Server) {
	t.Helper()
	sim := weixintest.NewServer(weixintest.Config{
		Apps: map[string]string{merchantID: "", caddytest.AppID: ""},
		Components: []weixintest.Component{
			{AppID: apptest.PlatformID, Secret: caddytest.Canary},
		},
	})
	t.Cleanup(sim.Close)
	return apptest.Started(t, apptest.WithWeChat(sim.URL), apptest.WithPlatform("")), sim
}

// ticketed brings a ticket, which the simulator makes of a push that goes nowhere.
func ticketed(t *testing.T, w *apptest.World, sim *weixintest.Server) {
	t.Helper()
	ticket, err := sim.Ticket(apptest.PlatformID)
	if err != nil {
		t.Fatal(err)
	}
	err = w.Live().Platform(apptest.PlatformID).Take(t.Context(), push.Message{
		AppID: apptest.PlatformID, InfoType: push.VerifyTicket, CreateTime: time.Now(),
		ComponentVerifyTicket: ticket,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAdminComponent_ListLinkRepair(t *testing.T) {
	w, sim := newPlatform(t)
	s := adminServer(t)
	run := func(want string, status int, args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		cmd := &cobra.Command{Use: "wechat", SilenceErrors: true}
		cmd.AddCommand(componentCommand())
		cmd.SetOut(&out)
		cmd.SetErr(&errs)
		cmd.SetArgs(append(append([]string{"component"}, args...), "--address", address(s)))
		err := cmd.Execute()
		said := out.String()
		if err != nil {
			said += err.Error()
		}
		if !strings.Contains(said, want) || (err != nil) != (status != 0) {
			t.Errorf("component %q: %s", args, said)
		}
		if strings.Contains(said, caddytest.Canary) {
			t.Error("a secret is shown")
		}
	}
	run("waits for its ticket", 0)
	run("component_verify_ticket", 1, "link", "--redirect-uri", "https://saas.example.com/done")
	ticketed(t, w, sim)
	if _, err := sim.Authorize(t.Context(), apptest.PlatformID, merchantID); err != nil {
		t.Fatal(err)
	}
	run(merchantID, 0, "repair")
	run("no_refresh_token", 0, "list")
	run("ready", 0)
	run("https://mp.weixin.qq.com/cgi-bin/componentloginpage?auth_type=2&component_appid="+
		apptest.PlatformID+"&pre_auth_code=preauthcode", 0,
		"link", "--redirect-uri", "https://saas.example.com/done")
	run("redirect_uri is no web address", 1, "link")
	run("no such component is configured", 1, "repair", "--component", "wxffffffffffffffff")
}

func TestAdminComponent_NoPlatform_SaysSo(t *testing.T) {
	apptest.Started(t)
	s := adminServer(t)
	if status, body := adminDo(t, s, "GET", "/wechat/component", "", nil); status != 200 ||
		body != "[]\n" {
		t.Errorf("%d %s", status, body)
	}
	status, body := adminDo(t, s, "POST", "/wechat/component/repair", "{}", jsonHeader())
	if status != http.StatusNotFound {
		t.Errorf("%d %s", status, body)
	}
}
