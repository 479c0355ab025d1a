package command_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/wxgate/wxgate/caddymodule"
	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/wechatapi"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
	"github.com/wxgate/wxgate/caddymodule/wechatauth"
)

// TestAdapt_Golden holds what each Caddyfile becomes.
func TestAdapt_Golden(t *testing.T) { caddytest.RunGolden(t) }

// TestCaddyfile_AllOptions_SetsEveryField holds that a Caddyfile can set each field
// of the modules. cloudrun has a golden file of its own: it excludes other fields.
func TestCaddyfile_AllOptions_SetsEveryField(t *testing.T) {
	caddytest.Reachable(t, "wechat", wechatapp.App{})
	caddytest.Reachable(t, "wechat_auth", wechatauth.Handler{}, "cloudrun", "required")
	caddytest.Reachable(t, "wechat_api", wechatapi.Handler{})
}

// FuzzCaddyfile feeds lines to both blocks through Caddy's own adapter. It never
// panics, and what it accepts holds no secret and no negative value.
func FuzzCaddyfile(f *testing.F) {
	names, err := filepath.Glob("testdata/*.caddyfiletest")
	if err != nil || len(names) == 0 {
		f.Fatal("no golden files", err)
	}
	for _, name := range names {
		text, _ := caddytest.ReadGolden(f, name)
		_, option, _ := strings.Cut(text, "wechat {\n")
		option, site, _ := strings.Cut(option, "wechat_auth {\n")
		f.Add(option, site)
	}
	const app = "app " + caddytest.AppID + " {env.A}\n"
	f.Add(app+"session {\nttl 1d\nreplay 0s\n}\nlogin_rate off",
		"public /a /b/*\ntoken header X-T\nheaders {\nopenid X-O\n}")
	f.Add("app {env.A} {file.b}\nstore bolt /x", "apps {env.A}\noptional /*")
	f.Add(app+"sesion {\n}", "publik /a")
	f.Add("app "+caddytest.AppID+" secret", "token X-T")
	f.Fuzz(func(t *testing.T, option, site string) {
		if strings.Contains(option+site, "import") || strings.Contains(option+site, "{$") {
			return // reads files and the environment
		}
		out, _, err := caddytest.Adapt(
			"{\nwechat {\n" + option + "\n}\n}\n:80 {\nwechat_auth {\n" + site + "\n}\n}\n")
		if err != nil {
			return
		}
		var cfg struct {
			Apps struct {
				WeChat *wechatapp.App `json:"wechat"`
			} `json:"apps"`
		}
		if err := json.Unmarshal(out, &cfg); err != nil {
			t.Fatalf("adapted to %s: %v", out, err)
		}
		a := cfg.Apps.WeChat
		if a == nil {
			return // the braces of the fuzzer closed the block early
		}
		for _, m := range a.Apps {
			if err := block.CheckSecret("secret", m.Secret); err != nil {
				t.Errorf("accepted %q: %v", m.Secret, err)
			}
		}
		if len(a.Apps)+len(a.Components) == 0 ||
			a.SealKey != "" && block.CheckSecret("seal_key", a.SealKey) != nil {
			t.Errorf("accepted %s", out)
		}
		if a.API.Timeout < 0 || a.Session.TTL < 0 || a.Session.Idle < 0 || a.MaxStaleness < 0 ||
			a.Cache.MaxSessions < 0 || a.Session.MaxPerUser < 0 {
			t.Errorf("a negative value in %s", out)
		}
	})
}
