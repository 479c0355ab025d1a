package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestWafer_Packages_RunUnchanged: the npm packages of both Wafers log in, call the app,
// and log in again when their session has ended.
func TestWafer_Packages_RunUnchanged(t *testing.T) {
	t.Parallel()
	need(t, "node")
	script, err := filepath.Abs("testdata/wafer.js")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, setup{auth: "dialect wafer"})
	for _, name := range []string{"wafer-client-sdk", "wafer2-client-sdk"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(os.Getenv("WXGATE_NPM"), "node_modules", name)
			if _, err := os.Stat(path); os.Getenv("WXGATE_NPM") == "" || err != nil {
				lacks(t, "WXGATE_NPM names no folder with "+name)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			out, err := exec.CommandContext(ctx, "node", script, path,
				"http://"+w.addr, w.wechat.URL, appA).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var got struct {
				User          string
				Out           int
				Again         bool
				First, Second received
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if got.User != "Ada" || got.Out != 204 || !got.Again {
				t.Errorf("%s", out)
			}
			for _, r := range []received{got.First, got.Second} {
				r.check(t, w.who(appA, "ada"))
			}
		})
	}
}
