package caddymodule

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// FuzzCaddyfile feeds lines to both blocks through Caddy's own adapter: it never panics, and what it accepts holds no secret and can be judged.
func FuzzCaddyfile(f *testing.F) {
	for _, c := range wrongOptions {
		f.Add(strings.TrimSuffix(strings.TrimPrefix(c.text, "{\n\twechat {\n"), "\n:80 {\n\twechat_auth\n\treverse_proxy 127.0.0.1:8080\n}\n"), "")
	}
	for _, c := range wrongSites {
		if _, lines, ok := strings.Cut(c.text, "wechat_auth {\n"); ok {
			f.Add("app "+appID+" {env.A}", lines)
		}
	}
	f.Add("app "+appID+" {env.A}\nsession {\nttl 1d\nreplay 0s\n}\nlogin_rate off", "public /a /b/*\ntoken header X-T\nheaders {\nopenid X-O\n}")
	f.Add("app {env.A} {file.b}\nstore bolt /x", "apps {env.A}\noptional /*")
	f.Fuzz(func(t *testing.T, option, site string) {
		if strings.Contains(option+site, "import") || strings.Contains(option+site, "{$") {
			return // reads files and the environment
		}
		out, _, err := adapt("{\nwechat {\n" + option + "\n}\n}\n:80 {\nwechat_auth {\n" + site + "\n}\n}\n")
		if err != nil {
			return
		}
		var cfg struct {
			Apps struct {
				WeChat *App `json:"wechat"`
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
			if err := CheckSecret("secret", m.Secret); err != nil {
				t.Errorf("accepted %q: %v", m.Secret, err)
			}
		}
		if len(a.Apps) == 0 || a.SealKey != "" && CheckSecret("seal_key", a.SealKey) != nil {
			t.Errorf("accepted %s", out)
		}
		if _, err := a.LoginRate.config(); err != nil {
			t.Errorf("accepted by the parser, refused later: %v", err)
		}
		if a.API.Timeout < 0 || a.Session.TTL < 0 || a.Session.Idle < 0 || a.MaxStaleness < 0 || a.Cache.MaxSessions < 0 || a.Session.MaxPerUser < 0 {
			t.Errorf("a negative value in %s", out)
		}
		a.log = zap.NewNop()
		a.setDefaults()
		_ = a.Validate()
		if strings.Contains(string(out), `"handler":"wechat_auth"`) {
			var g Gate
			b, _ := json.Marshal(findHandler(decoded(t, out), "wechat_auth"))
			if err := json.Unmarshal(b, &g); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func decoded(t *testing.T, b []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzRate: what is accepted is a rate that says what the text says.
func FuzzRate(f *testing.F) {
	for _, s := range []string{"off", "30/m", "1/s", "1/h", "2147483647/s", "2147483648/s", "0/m", "-1/m", "30", "30/", "/m", "30/d", "30/m/m", " 30/m", "+30/m", "0x1e/m", "1e3/s", "3_0/m", "030/m", ""} {
		f.Add(s)
	}
	units := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRate(s)
		if err != nil {
			if !strings.Contains(err.Error(), cureRate) {
				t.Errorf("message %q", err)
			}
			return
		}
		if s == "off" {
			if r.Events != 0 || r.Per != 0 {
				t.Errorf("off is %v", r)
			}
			return
		}
		if r.Events < 1 || units[r.Per] == "" {
			t.Fatalf("%q is %v", s, r)
		}
		if want := fmt.Sprintf("%d/%s", r.Events, units[r.Per]); strings.TrimLeft(s, "+0") != want {
			t.Errorf("%q is %s", s, want)
		}
	})
}
