package e2e_test

import (
	"strings"
	"testing"
)

// TestStart_EmptySecret validates a Caddyfile without its secrets, and refuses
// to start it.
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
			status, printed := command("validate", "--adapter", "caddyfile", "--config", file)
			if status != 0 || !strings.Contains(printed, tt.want) ||
				!strings.Contains(printed, `"level":"warn"`) ||
				!strings.Contains(printed, "Valid configuration") {
				t.Errorf("validate ends with %d and prints:\n%s", status, printed)
			}
			status, printed = command("run", "--adapter", "caddyfile", "--config", file)
			last := printed[strings.LastIndexByte(strings.TrimSpace(printed), '\n')+1:]
			if status == 0 || !strings.Contains(last, tt.want) || !strings.Contains(last, "empty") {
				t.Errorf("run ends with %d and says at last:\n%s", status, last)
			}
		})
	}
}

// TestStart_WrongLines refuses wrong lines with file, line and cure.
func TestStart_WrongLines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		s    setup
		want []string
	}{
		{
			"literal secret",
			setup{wechat: "\t\tapp " + appB + " 0123456789abcdef0123456789abcdef"},
			[]string{"{env."},
		},
		{
			"matcher",
			setup{sites: "http://x.example {\n\twechat_auth /api/*\n}"},
			[]string{"takes no matcher"},
		},
		{"unknown site app", setup{auth: "\t\tapps " + appB}, []string{appB}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := prepareWorld(t, tt.s)
			status, printed := w.command(t, "validate", "--adapter", "caddyfile", "--config",
				w.write(t, "Caddyfile", w.caddyfile(w.setup)))
			if status == 0 {
				t.Fatalf("it passes:\n%s", printed)
			}
			for _, want := range tt.want {
				if !strings.Contains(printed, want) {
					t.Errorf("want %q in:\n%s", want, printed)
				}
			}
			if tt.name != "unknown site app" && !strings.Contains(printed, "Caddyfile:") {
				t.Errorf("no file and line in:\n%s", printed)
			}
			if strings.Contains(printed, "0123456789abcdef0123456789abcdef") ||
				strings.Contains(printed, secretOf(appA)) {
				t.Errorf("the secret is repeated:\n%s", printed)
			}
		})
	}
}

// TestStart_NoGlobalOption says what is missing when the directive stands
// alone.
func TestStart_NoGlobalOption(t *testing.T) {
	t.Parallel()
	w := prepareWorld(t, setup{})
	status, printed := w.command(t, "validate", "--adapter", "caddyfile", "--config",
		w.write(t, "Caddyfile", "http://x.example {\n\twechat_auth\n\trespond ok\n}\n"))
	if status == 0 || !strings.Contains(printed, "wechat { app <appid>") {
		t.Errorf("validate ends with %d and prints:\n%s", status, printed)
	}
}
