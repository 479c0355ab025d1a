package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// newCloudrun provisions a gate that stands behind WeChat Cloud Hosting, without the app wechat.
func newCloudrun(t testing.TB, g *Gate) (*Gate, *observer.ObservedLogs) {
	t.Helper()
	ctx, err := caddy.ProvisionContext(&caddy.Config{Logging: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	g.log = zap.New(core)
	return g, logs
}

func platformRequest() map[string]string {
	return map[string]string{"X-Wx-Source": "wx_client", "X-Wx-Openid": "o1", "X-Wx-Appid": appID, "X-Wx-Unionid": "u1"}
}

// TestCloudrun_Decisions: what is counted, logged, answered and told to the rest of the configuration.
func TestCloudrun_Decisions(t *testing.T) {
	g, logs := newCloudrun(t, &Gate{Cloudrun: true, Public: []string{"/healthz"}, Optional: []string{"/feed/*"}, Apps: []string{appID}})
	for _, tt := range []struct {
		result result
		target string
		edit   func(map[string]string)
		code   string // "": the app answers
		id     string
	}{
		{resultAccepted, "/", nil, "", "o1"},
		{resultAccepted, "/feed/x", nil, "", "o1"},
		{resultPublic, "/healthz", nil, "", ""},
		{resultGuest, "/feed/x", func(h map[string]string) { clear(h) }, "", ""},
		{resultMissing, "/", func(h map[string]string) { clear(h) }, "identity_missing", ""},
		{resultMissing, "/", func(h map[string]string) { delete(h, "X-Wx-Openid") }, "identity_missing", ""},
		{resultMissing, "/", func(h map[string]string) { delete(h, "X-Wx-Appid") }, "identity_missing", ""},
		{resultNotCloud, "/", func(h map[string]string) { delete(h, "X-Wx-Source") }, "identity_refused", ""},
		{resultNotCloud, "/feed/x", func(h map[string]string) { delete(h, "X-Wx-Source") }, "identity_refused", ""},
		{resultLocalDebug, "/", func(h map[string]string) { h["X-Wx-Local-Debug"] = "1" }, "identity_refused", ""},
		{resultAmbiguous, "/", func(h map[string]string) { h["X-Wx-Openid"] = "o1,o2" }, "identity_refused", ""},
		{resultOtherApp, "/", func(h map[string]string) { h["X-Wx-Appid"] = otherAppID }, "app_not_allowed", ""},
		{resultNotFound, "/wx/login", nil, "not_found", ""},
		{resultBadTrailer, "/", func(h map[string]string) { h["Trailer"] = "X-Wx-Openid" }, "invalid_request", ""},
	} {
		name := fmt.Sprintf("%s %s", tt.result, tt.target)
		logs.TakeAll()
		before := decisions()
		r, rec := request("GET", tt.target, "")
		header := platformRequest()
		if tt.edit != nil {
			tt.edit(header)
		}
		for n, v := range header {
			r.Header[n] = []string{v}
		}
		var n next
		if err := g.ServeHTTP(rec, r, &n); err != nil {
			t.Fatal(err)
		}
		before[tt.result]++
		if after := decisions(); !maps.Equal(before, after) {
			t.Errorf("%s: counted %v", name, after)
		}
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		if id, set := repl.GetString("http.auth.user.id"); id != tt.id || set != (tt.id != "") {
			t.Errorf("%s: placeholder %q (set: %t)", name, id, set)
		}
		if unionID, _ := repl.GetString("http.auth.user.unionid"); (unionID == "u1") != (tt.id != "") {
			t.Errorf("%s: placeholder %q", name, unionID)
		}
		if n.called != (tt.code == "") {
			t.Errorf("%s: the app was called: %t", name, n.called)
		}
		if got := r.Header.Get("X-WX-OPENID"); got != tt.id {
			t.Errorf("%s: the rest of the configuration sees openid %q", name, got)
		}
		if tt.code == "" {
			continue
		}
		if got := code(t, rec); got != tt.code || rec.Code == http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, rec.Code, got)
		}
		if refused := logs.FilterMessage("refused").All(); len(refused) != 1 || refused[0].ContextMap()["reason"] != string(tt.result) {
			t.Errorf("%s: logged %s", name, linesOf(logs))
		}
	}
}

// TestCloudrun_Apps: which mini programs count without a list.
func TestCloudrun_Apps(t *testing.T) {
	any, _ := newCloudrun(t, &Gate{Cloudrun: true})
	known := newWorld(t, &Gate{Cloudrun: true}).gate
	for _, tt := range []struct {
		gate  *Gate
		appID string
		want  bool
	}{{any, "wxffffffffffffffff", true}, {known, appID, true}, {known, otherAppID, true}, {known, "wxffffffffffffffff", false}} {
		r, rec := request("GET", "/", "")
		for n, v := range platformRequest() {
			r.Header[n] = []string{v}
		}
		r.Header["X-Wx-Appid"] = []string{tt.appID}
		var n next
		if err := tt.gate.ServeHTTP(rec, r, &n); err != nil || n.called != tt.want {
			t.Errorf("%s: called %t, %v", tt.appID, n.called, err)
		}
	}
}

// TestCloudrun_Config: one site has one way of telling who calls.
func TestCloudrun_Config(t *testing.T) {
	ctx, err := caddy.ProvisionContext(&caddy.Config{Logging: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gate{
		{Cloudrun: true, TokenHeader: "X-T"},
		{Cloudrun: true, Headers: map[string]string{"openid": "X-O"}},
		{Cloudrun: true, Apps: []string{"not an appid"}},
		{Cloudrun: true, Apps: []string{"{env.NOT_SET_ANYWHERE}"}},
	} {
		if err := g.Provision(ctx); err == nil {
			t.Errorf("%+v is accepted", g)
		}
	}
	if _, _, err := adapt(":80 {\n\twechat_auth {\n\t\tcloudrun\n\t}\n}\n"); err != nil {
		t.Errorf("without the app wechat: %v", err)
	}
	if _, _, err := adapt(":80 {\n\n\twechat_auth {\n\t\tpublic /x\n\t}\n}\n"); err == nil || !strings.Contains(err.Error(), "Caddyfile:3") {
		t.Errorf("a session gate without the app wechat: %v", err)
	}
}
