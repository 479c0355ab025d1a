package caddymodule

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain keeps Caddy's data directory out of the user's home and holds that the tests leave no goroutine behind.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wxgate-test-")
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}
