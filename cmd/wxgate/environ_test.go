package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// childEnv makes this test binary the product.
const childEnv = "WXGATE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestP6_RunEnviron_Process holds that the product prints no secret of its environment
// or of an environment file, and still runs.
func TestP6_RunEnviron_Process(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secrets.env")
	if err := os.WriteFile(file, []byte("WX_KEY=canary-of-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "run", "--environ", "--envfile", file,
		"--config", filepath.Join(dir, "missing"))
	cmd.Env = []string{
		childEnv + "=1", "HOME=" + dir, "WX_SECRET=canary", "REDIS=redis://:canary@10.0.0.5",
	}
	b, err := cmd.CombinedOutput()
	out := string(b)
	if _, exited := err.(*exec.ExitError); !exited || strings.Contains(out, "canary") ||
		!strings.Contains(out, "WX_SECRET=(hidden)\n") || !strings.Contains(out, "missing") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// TestP6_RunEnviron_HidesValues holds that no value of a name that Caddyfiles may use
// for a secret is printed, however the flag is written.
func TestP6_RunEnviron_HidesValues(t *testing.T) {
	for _, name := range []string{"WX_SECRET", "WX", "REDIS_URL", "K"} {
		t.Setenv(name, "canary\nsecond canary")
	}
	t.Setenv("EMPTY", "")
	t.Setenv("TZ", "Asia/Shanghai")
	for _, tt := range []struct {
		args []string // after wxgate run
		want []string // nil: unchanged, and nothing is printed
	}{
		{nil, nil},
		{[]string{"--config", "x"}, nil},
		{[]string{"--environ=false"}, nil},
		{[]string{"--environ", "--bogus"}, nil}, // Caddy refuses it
		{[]string{"--config", "--environ"}, nil},
		{[]string{"--environ"}, []string{"--environ", "--environ=false"}},
		{[]string{"-ec", "x"}, []string{"-ec", "x", "--environ=false"}},
		{
			[]string{"--environ", "--config", "--", "--", "y"},
			[]string{"--environ", "--config", "--", "--environ=false", "--", "y"},
		},
	} {
		var out bytes.Buffer
		args := append([]string{"wxgate", "run"}, tt.args...)
		got := printSafely(args, &out)
		if tt.want == nil {
			if !slices.Equal(got, args) || out.Len() > 0 {
				t.Errorf("%q: %q, printed %s", tt.args, got, &out)
			}
			continue
		}
		if !slices.Equal(got[2:], tt.want) {
			t.Errorf("%q: %q, want %q", tt.args, got[2:], tt.want)
		}
		lines := strings.Split(out.String(), "\n")
		for _, want := range []string{"WX=(hidden)", "K=(hidden)", "EMPTY=", "TZ=Asia/Shanghai"} {
			if !slices.Contains(lines, want) {
				t.Errorf("%q: no line %s in\n%s", tt.args, want, &out)
			}
		}
		if strings.Contains(out.String(), "canary") {
			t.Errorf("%q: prints\n%s", tt.args, &out)
		}
	}
}
