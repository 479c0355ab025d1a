package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	_ "github.com/wxgate/wxgate/caddymodule/redisstore"
	_ "github.com/wxgate/wxgate/caddymodule/wechatapi"
)

// TestValidate_Findings_ExitStatus holds P9 for the command: a fault ends it, a
// warning does so with --strict only.
func TestValidate_Findings_ExitStatus(t *testing.T) {
	const head = "{\n\tadmin off\n\tgrace_period 10s\n\tlog {\n\t\tformat wechat\n\t}\n" +
		"\twechat {\n\t\tapp " +
		caddytest.AppID + " {env.WXGATE_TEST_NOT_SET}\n\t}\n}\n\n"
	for _, c := range []struct {
		name, sites    string
		status, strict int
		said           string
	}{
		{"sane", ":80 {\n\twechat_auth\n\treverse_proxy 127.0.0.1:1\n}\n", 0, 0, ""},
		{
			"warning",
			":80 {\n\twechat_auth {\n\t\tpublic /*\n\t}\n\treverse_proxy 127.0.0.1:1\n}\n",
			0, 1, "public /* opens the whole site; list the public paths",
		},
		{
			"fault", ":80 {\n\troute {\n\t\treverse_proxy 127.0.0.1:1\n\t\twechat_auth\n\t}\n}\n",
			1, 1, "error: on :80: wechat_auth stands behind reverse_proxy",
		},
		{"not Caddy's", ":80 {\n\twechat_auht\n}\n", 1, 1, "wechat_auht"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "Caddyfile")
			if err := os.WriteFile(config, []byte(head+c.sites), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"--no-secrets", "--config", config, "--adapter", "caddyfile"}
			status, _, said := caddytest.RunCommand(t, validateCommand(), args...)
			if status != c.status || !strings.Contains(said, c.said) {
				t.Errorf("%d %s, want %d %q", status, said, c.status, c.said)
			}
			args = append(args, "--strict")
			status, _, said = caddytest.RunCommand(t, validateCommand(), args...)
			if status != c.strict {
				t.Errorf("--strict: %d %s, want %d", status, said, c.strict)
			}
		})
	}
}

// TestThreat36_Validate_EachWarning holds that each way around a gate, and each setting
// that lays secrets open, is one warning with its cure, and a fault with --strict.
func TestThreat36_Validate_EachWarning(t *testing.T) {
	t.Setenv("WXGATE_TEST_SEAL", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")
	const app = "\treverse_proxy 127.0.0.1:1\n"
	global := func(lines, store string) string {
		return "{\n\tgrace_period 10s\n" + lines + "\twechat {\n\t\tapp " +
			caddytest.AppID + " {env.WXGATE_TEST_NOT_SET}\n" + store + "\t}\n}\n\n"
	}
	quiet := "\tadmin off\n\tlog {\n\t\tformat wechat\n\t}\n"
	site := func(lines string) string {
		return global(quiet, "") + ":80 {\n" + lines + app + "}\n"
	}
	gate := ":80 {\n\twechat_auth\n" + app + "}\n"
	for _, c := range []struct{ name, config, said, cure string }{
		{
			"admin", global(strings.Replace(quiet, "off", "localhost:2999", 1), "") + gate,
			"each program on this machine", "admin unix//",
		},
		{"log", global("\tadmin off\n", "") + gate, "default log shows tokens", "format wechat"},
		{
			"redis", global(quiet, "\t\tstore redis 10.0.0.5:6379\n"+
				"\t\tseal_key {env.WXGATE_TEST_SEAL}\n") + gate,
			"without TLS the network", "write tls",
		},
		{
			"grace period",
			strings.Replace(site("\twechat_auth\n"), "\tgrace_period 10s\n", "", 1),
			"a stop waits", "grace_period 10s",
		},
		{"no gate", site(""), "no site has a gate", "write wechat_auth"},
		{
			"another site", site("\twechat_auth\n") + ":81 {\n" + app + "}\n",
			"reach 127.0.0.1:1 without wechat_auth", "guard the whole site with required",
		},
		{
			"no login", global(quiet, "") + ":80 {\n\thandle /api/* {\n\twechat_auth\n" + app +
				"\t}\n}\n", "/wx/login does not reach", "outside of handle",
		},
		{
			"public", site("\twechat_auth {\n\t\tpublic /*\n\t}\n"),
			"opens the whole site", "list the public paths",
		},
		{
			"header", site("\theader X-U {http.auth.user.id}\n\twechat_auth\n"),
			"header uses {http.auth.user.*}", "header_up",
		},
		{
			"templates", site("\twechat_auth\n\ttemplates\n"),
			"templates runs over", "take templates out",
		},
	} {
		config := filepath.Join(t.TempDir(), "Caddyfile")
		if err := os.WriteFile(config, []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"--no-secrets", "--config", config, "--adapter", "caddyfile"}
		status, _, said := caddytest.RunCommand(t, validateCommand(), args...)
		found := 0
		for line := range strings.Lines(strings.TrimPrefix(said, "<nil>")) {
			if strings.HasPrefix(line, "warning: ") {
				found++
				if !strings.Contains(line, c.said) || !strings.Contains(line, c.cure) {
					t.Errorf("%s: %s, want %q and %q", c.name, line, c.said, c.cure)
				}
			}
		}
		if status != 0 || found != 1 {
			t.Errorf("%s: %d, %d warnings: %s", c.name, status, found, said)
		}
		status, _, said = caddytest.RunCommand(t, validateCommand(), append(args, "--strict")...)
		if status != 1 || !strings.Contains(said, "error: ") {
			t.Errorf("%s --strict: %d %s", c.name, status, said)
		}
	}
}

// TestValidate_SecretMissing_IsFault: each place that takes a secret is asked.
func TestValidate_SecretMissing_IsFault(t *testing.T) {
	t.Setenv("WXGATE_TEST_SET", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")
	const unset, set = "{env.WXGATE_TEST_NOT_SET}", "{env.WXGATE_TEST_SET}"
	text := func(app, redis, api string) string {
		return "{\n\tadmin off\n\tgrace_period 10s\n\tlog {\n\t\tformat wechat\n\t}\n" +
			"\twechat {\n\t\tapp " + caddytest.AppID + " " + app + "\n\t\tstore redis {\n" +
			"\t\t\taddress 127.0.0.1:1\n\t\t\tpassword " + redis + "\n\t\t}\n" +
			"\t\tseal_key " + set + "\n\t}\n}\n\n" +
			":80 {\n\twechat_auth\n\treverse_proxy 127.0.0.1:1\n}\n" +
			"http://127.0.0.1:81 {\n\twechat_api {\n\t\tsecret " + api + "\n\t}\n}\n"
	}
	for name, tt := range map[string]struct{ config, said string }{
		"all are set": {text(set, set, set), ""},
		"AppSecret":   {text(unset, set, set), "secret " + unset + " of mini program"},
		"Redis":       {text(set, unset, set), unset + " is empty: set"},
		"wechat_api":  {text(set, set, unset), "secret " + unset + " of wechat_api is empty"},
	} {
		config := filepath.Join(t.TempDir(), "Caddyfile")
		if err := os.WriteFile(config, []byte(tt.config), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"--config", config, "--adapter", "caddyfile"}
		status, _, said := caddytest.RunCommand(t, validateCommand(), args...)
		if status != min(len(tt.said), 1) || !strings.Contains(said, tt.said) {
			t.Errorf("%s: %d %s", name, status, said)
		}
		args = append(args, "--no-secrets")
		if status, _, said = caddytest.RunCommand(t, validateCommand(), args...); status != 0 {
			t.Errorf("%s --no-secrets: %d %s", name, status, said)
		}
	}
}
