package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestExample_Client_Package: the client is at most 6 KB minified, and its types hold.
func TestExample_Client_Package(t *testing.T) {
	t.Parallel()
	example := filepath.Join(moduleRoot, "examples/client")
	minified, err := npm(t, "esbuild", "--minify", filepath.Join(example, "wxgate.mjs"))
	if err != nil || len(minified) == 0 || len(minified) > 6<<10 {
		t.Errorf("%d bytes minified, %v", len(minified), err)
	}
	said, err := npm(t, "tsc", "--noEmit", "--strict", "--target", "es2022", "--module", "esnext",
		"--moduleResolution", "bundler", filepath.Join(example, "test/usage.ts"))
	if err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// npm runs a program of the packages under WXGATE_NPM, where .ci/run installs them.
func npm(tb testing.TB, program string, args ...string) ([]byte, error) {
	tb.Helper()
	path := filepath.Join(os.Getenv("WXGATE_NPM"), "node_modules/.bin", program)
	if _, err := os.Stat(path); os.Getenv("WXGATE_NPM") == "" || err != nil {
		lacks(tb, "WXGATE_NPM names no folder with "+program)
	}
	return exec.Command(path, args...).CombinedOutput()
}
