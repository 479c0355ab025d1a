//go:build unix

package e2e_test

import (
	"encoding/json"
	"testing"
)

// cloudHosted runs an app that was written for WeChat Cloud Hosting, where the
// site's app would be. Its one setting is where WeChat's API is.
func (w *world) cloudHosted(tb testing.TB, api string) {
	tb.Helper()
	need(tb, "node")
	addr := freeAddr(tb)
	spawn(tb, tb.TempDir(), []string{"PORT=" + portOf(addr), "WX_API=http://" + api}, addr, "node",
		script(tb, "cloudhosted.js"))
	w.app.addr = addr
}

// said reads the app's answer.
func (r reply) said(tb testing.TB) map[string]any {
	tb.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.status != 200 ||
		r.header.Get("X-App") != "cloud" {
		tb.Fatalf("not the app's answer: %s", r)
	}
	return got
}

// checkCloudHosted has the app do all that it does, in the name of a user;
// headers are what a client sends.
func (w *world) checkCloudHosted(tb testing.TB, user string, headers ...string) {
	tb.Helper()
	want := w.who(appA, user)
	if got := w.call(tb, "GET", "/me", "", headers...).said(tb); got["openid"] != want.openid ||
		got["appid"] != appA || got["unionid"] != want.unionid {
		tb.Errorf("the app takes the caller for %v", got)
	}
	comment := w.call(tb, "POST", "/comment", `{"text":"a risky one"}`, headers...).said(tb)
	if result, _ := comment["result"].(map[string]any); result["suggest"] != "risky" ||
		comment["seqid"] == nil {
		tb.Errorf("a comment is judged %v", comment)
	}
	if got := w.call(tb, "POST", "/notify", "", headers...).said(tb); got["errcode"] != 0.0 ||
		got["seqid"] == nil {
		tb.Errorf("a message is sent with %v", got)
	}
	if got := w.call(tb, "POST", "/poster", "", headers...).said(tb); got["bytes"] == nil ||
		got["bytes"].(float64) < 5000 {
		tb.Errorf("the poster is %v", got)
	}
}

// TestPlatform_AppRunsUnchanged runs an app written for WeChat Cloud Hosting
// behind the gate, with another base URL.
func TestPlatform_AppRunsUnchanged(t *testing.T) {
	t.Parallel()
	api := freeAddr(t)
	w := prepareWorld(t, setup{sites: apiSite(api, "")})
	w.cloudHosted(t, api)
	w.start(t)
	token := w.login(t, "ada")
	w.checkCloudHosted(t, "ada", bearer(token))
	w.call(t, "GET", "/me", "", "X-WX-SOURCE: wx_client",
		"X-WX-OPENID: "+w.wechat.OpenID(appA, "ada")).problem(t, 401, "session_missing")
}

// TestPlatform_OneAppInBothWorlds runs the same app behind a gate that stands
// behind the platform.
func TestPlatform_OneAppInBothWorlds(t *testing.T) {
	t.Parallel()
	service := freeAddr(t) // stands for the platform's open-API service, which adds tokens, too
	w := prepareWorld(t, setup{auth: "\t\tcloudrun", sites: apiSite(service, "")})
	w.cloudHosted(t, service)
	w.start(t)
	who := w.who(appA, "ada")
	w.wechat.Code(appA, "ada")
	w.checkCloudHosted(t, "ada", "x-wx-source: wx_client", "x-wx-openid: "+who.openid,
		"x-wx-appid: "+appA, "x-wx-unionid: "+who.unionid, "x-wx-env: prod-1",
		"x-original-forwarded-for: 192.0.2.1")
	w.call(t, "GET", "/me", "").problem(t, 403, "identity_missing")
}
