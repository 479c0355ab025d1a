package wechatauth

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/wechatapp"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// newCloudrun provisions a gate that stands behind WeChat Cloud Hosting,
// without the app wechat.
func newCloudrun(t testing.TB, g *Handler) (*Handler, *observer.ObservedLogs) {
	t.Helper()
	ctx, err := caddy.ProvisionContext(&caddy.Config{Logging: caddytest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	g.log, g.refusals = zap.New(core), wechatapp.NewRefusalLog(zap.New(core))
	return g, logs
}

func platformRequest() map[string]string {
	return map[string]string{
		"X-Wx-Source":  "wx_client",
		"X-Wx-Openid":  "o1",
		"X-Wx-Appid":   caddytest.AppID,
		"X-Wx-Unionid": "u1",
	}
}

// TestCloudrun_Decisions: what is counted, logged, answered and told to the
// rest of the configuration.
func TestCloudrun_Decisions(t *testing.T) {
	g, logs := newCloudrun(
		t,
		&Handler{
			Cloudrun: true,
			Public:   []string{"/healthz"},
			Optional: []string{"/feed/*"},
			Apps:     []string{caddytest.AppID},
		},
	)
	for _, tt := range []struct {
		result Result
		target string
		edit   func(map[string]string)
		code   string // "": the app answers
		id     string
	}{
		{Accepted, "/", nil, "", "o1"},
		{Accepted, "/feed/x", nil, "", "o1"},
		{Public, "/healthz", nil, "", ""},
		{Guest, "/feed/x", func(h map[string]string) { clear(h) }, "", ""},
		{Missing, "/", func(h map[string]string) { clear(h) }, "identity_missing", ""},
		{
			Missing, "/", func(h map[string]string) { delete(h, "X-Wx-Openid") },
			"identity_missing", "",
		},
		{
			Missing, "/", func(h map[string]string) { delete(h, "X-Wx-Appid") }, "identity_missing",
			"",
		},
		{
			NotPlatform, "/", func(h map[string]string) { delete(h, "X-Wx-Source") },
			"identity_refused", "",
		},
		{
			NotPlatform, "/feed/x", func(h map[string]string) { delete(h, "X-Wx-Source") },
			"identity_refused", "",
		},
		{
			LocalDebug, "/", func(h map[string]string) { h["X-Wx-Local-Debug"] = "1" },
			"identity_refused", "",
		},
		{
			Ambiguous, "/", func(h map[string]string) { h["X-Wx-Openid"] = "o1,o2" },
			"identity_refused", "",
		},
		{
			OtherApp, "/", func(h map[string]string) { h["X-Wx-Appid"] = caddytest.OtherAppID },
			"app_not_allowed", "",
		},
		{NotFound, "/wx/login", nil, "not_found", ""},
		{
			BadTrailer, "/", func(h map[string]string) { h["Trailer"] = "X-Wx-Openid" },
			"invalid_request", "",
		},
	} {
		name := fmt.Sprintf("%s %s", tt.result, tt.target)
		logs.TakeAll()
		before := decisions()
		r, rec := caddytest.Request("GET", tt.target, "")
		header := platformRequest()
		if tt.edit != nil {
			tt.edit(header)
		}
		for n, v := range header {
			r.Header[n] = []string{v}
		}
		var n caddytest.Next
		if err := g.ServeHTTP(rec, r, &n); err != nil {
			t.Fatal(err)
		}
		before[tt.result]++
		if after := decisions(); !maps.Equal(before, after) {
			t.Errorf("%s: counted %v", name, after)
		}
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		if id, set := repl.GetString("http.auth.user.id"); id != tt.id || set != (tt.code == "") {
			t.Errorf("%s: placeholder %q (set: %t)", name, id, set)
		}
		unionID, _ := repl.GetString("http.auth.user.unionid")
		if (unionID == "u1") != (tt.id != "") {
			t.Errorf("%s: placeholder %q", name, unionID)
		}
		if n.Called != (tt.code == "") {
			t.Errorf("%s: the app was called: %t", name, n.Called)
		}
		if got := r.Header.Get("X-WX-OPENID"); got != tt.id {
			t.Errorf("%s: the rest of the configuration sees openid %q", name, got)
		}
		if tt.code == "" {
			continue
		}
		if got := caddytest.Code(t, rec); got != tt.code || rec.Code == http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, rec.Code, got)
		}
		if refused := logs.FilterMessage("refused").All(); len(refused) != 1 ||
			refused[0].ContextMap()["reason"] != string(tt.result) {
			t.Errorf("%s: logged %s", name, caddytest.Lines(logs))
		}
	}
}

// TestCloudrun_Apps: which mini programs count without a list.
func TestCloudrun_Apps(t *testing.T) {
	any, _ := newCloudrun(t, &Handler{Cloudrun: true})
	known := newWorld(t, &Handler{Cloudrun: true}).gate
	for _, tt := range []struct {
		gate  *Handler
		appID string
		want  bool
	}{
		{any, "wxffffffffffffffff", true},
		{known, caddytest.AppID, true},
		{known, caddytest.OtherAppID, true},
		{known, "wxffffffffffffffff", false},
	} {
		r, rec := caddytest.Request("GET", "/", "")
		for n, v := range platformRequest() {
			r.Header[n] = []string{v}
		}
		r.Header["X-Wx-Appid"] = []string{tt.appID}
		var n caddytest.Next
		if err := tt.gate.ServeHTTP(rec, r, &n); err != nil || n.Called != tt.want {
			t.Errorf("%s: called %t, %v", tt.appID, n.Called, err)
		}
	}
}

// TestCloudrun_Config: one site has one way of telling who calls.
func TestCloudrun_Config(t *testing.T) {
	ctx, err := caddy.ProvisionContext(&caddy.Config{Logging: caddytest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Handler{
		{Cloudrun: true, TokenHeader: "X-T"},
		{Cloudrun: true, Headers: map[string]string{"openid": "X-O"}},
		{Cloudrun: true, Apps: []string{"not an appid"}},
		{Cloudrun: true, Apps: []string{"{env.NOT_SET_ANYWHERE}"}},
	} {
		if err := g.Provision(ctx); err == nil {
			t.Errorf("%+v is accepted", g)
		}
	}
	if _, _, err := caddytest.Adapt(":80 {\n\twechat_auth {\n\t\tcloudrun\n\t}\n}\n"); err != nil {
		t.Errorf("without the app wechat: %v", err)
	}
	_, _, err = caddytest.Adapt(":80 {\n\n\twechat_auth {\n\t\tpublic /x\n\t}\n}\n")
	if err == nil ||
		!strings.Contains(err.Error(), "Caddyfile:3") {
		t.Errorf("a session gate without the app wechat: %v", err)
	}
}
