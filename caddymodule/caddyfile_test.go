package caddymodule

import (
	"bytes"
	"encoding/json"
	goflag "flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

var update = goflag.Bool("update", false, "write the adapted JSON into testdata/*.caddyfiletest")

const tenDashes = "\n----------\n"

// TestAdaptGolden holds what each Caddyfile becomes, that it is formatted, and that what it becomes is a configuration that Caddy takes.
func TestAdaptGolden(t *testing.T) {
	setSecrets(t)
	names, err := filepath.Glob("testdata/*.caddyfiletest")
	if err != nil || len(names) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".caddyfiletest"), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			text, want, ok := strings.Cut(string(b), tenDashes)
			if !ok {
				t.Fatal("no line of ten dashes")
			}
			text += "\n"
			out, warnings, err := adapt(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				t.Error(w)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, out, "", "\t"); err != nil {
				t.Fatal(err)
			}
			pretty.WriteByte('\n')
			if *update {
				if err := os.WriteFile(name, []byte(text[:len(text)-1]+tenDashes+pretty.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := pretty.String(); got != want {
				t.Errorf("adapted to\n%s\nwant\n%s", got, want)
			}
			for _, secret := range []string{canary, sealKey} {
				if strings.Contains(pretty.String(), secret) {
					t.Error("a secret is written out")
				}
			}
			cfg := load(t, pretty.String())
			cfg.Logging = quiet()
			if err := caddy.Validate(cfg); err != nil {
				t.Errorf("refused by Validate: %v", err)
			}
		})
	}
}

// TestEveryFieldReachable holds that the Caddyfile can set every field of the modules: all_options does, but for cloudrun, which excludes some of them and has a file of its own.
func TestEveryFieldReachable(t *testing.T) {
	b, err := os.ReadFile("testdata/all_options.caddyfiletest")
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(b), tenDashes)
	out, _, err := adapt(text + "\n")
	if err != nil {
		t.Fatal(err)
	}
	var cfg struct {
		Apps struct {
			WeChat map[string]any
			HTTP   struct {
				Servers map[string]struct {
					Routes []any
				}
			}
		}
	}
	if err := json.Unmarshal(out, &cfg); err != nil {
		t.Fatal(err)
	}
	gate := findHandler(cfg.Apps.HTTP.Servers["srv0"].Routes, "wechat_auth")
	gate["cloudrun"] = true
	api := findHandler(cfg.Apps.HTTP.Servers["srv1"].Routes, "wechat_api")
	for _, c := range []struct {
		name string
		got  map[string]any
		typ  any
	}{
		{"App", cfg.Apps.WeChat, App{}},
		{"Gate", gate, Gate{}},
		{"WeChatAPI", api, WeChatAPI{}},
	} {
		missing(t, c.name, c.got, jsonFields(c.typ))
	}
}
