package e2e_test

import (
	"strings"
	"testing"
)

// TestStart_EmptySecret validates a Caddyfile without its secrets if that is known, and
// refuses to start it.
func TestStart_EmptySecret(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, env, wechat, want string
	}{
		{name: "unset", env: "OTHER=1", want: "WX_SECRET_0"},
		{
			name: "missing file", env: "WX_SECRET_0=x",
			wechat: "\t\tseal_key {file./nowhere/wx-seal}", want: "/nowhere/wx-seal",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := prepareWorld(t, setup{wechat: tt.wechat})
			file := w.write(t, "Caddyfile", w.caddyfile(w.setup))
			command := func(args ...string) (int, string) {
				out := new(output)
				return launch(t, out, w.home, []string{tt.env}, args...).wait(t), out.String()
			}
			status, printed := command("run", "--adapter", "caddyfile", "--config", file)
			last := printed[strings.LastIndexByte(strings.TrimSpace(printed), '\n')+1:]
			if status == 0 || !strings.Contains(last, tt.want) || !strings.Contains(last, "empty") {
				t.Errorf("run ends with %d and says at last:\n%s", status, last)
			}
			if testing.Short() {
				return // TestValidate_SecretMissing_IsFault has the rest
			}
			validate := []string{
				"wechat", "validate", "--adapter", "caddyfile", "--config", file,
			}
			status, printed = command(validate...)
			if status != 1 || !strings.Contains(printed, "error: ") ||
				!strings.Contains(printed, tt.want) {
				t.Errorf("validate ends with %d and prints:\n%s", status, printed)
			}
			status, printed = command(append(validate, "--no-secrets")...)
			if status != 0 || !strings.Contains(printed, tt.want) ||
				!strings.Contains(printed, `"level":"warn"`) ||
				!strings.Contains(printed, "Valid configuration") {
				t.Errorf("validate --no-secrets ends with %d and prints:\n%s", status, printed)
			}
		})
	}
}
