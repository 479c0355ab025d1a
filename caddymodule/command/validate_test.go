package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
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
			args := []string{"--config", config, "--adapter", "caddyfile"}
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
