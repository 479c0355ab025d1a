//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// TestGuide_Bench_PrintsTable runs the measurement for a moment, on this test binary.
// No figure is judged, but each is there.
func TestGuide_Bench_PrintsTable(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, program := range []string{"bash", "curl", "wrk", "nginx"} {
		need(t, program)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	// This test binary is the product as long as its standard input is open.
	script := fmt.Sprintf("#!/bin/bash\nexec env %s=1 %q \"$@\" < <(sleep 600)\n", childEnv, self)
	if err := os.WriteFile(gate, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", filepath.Join(moduleRoot, "examples/operate/bench/run"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "ROUNDS=1", "SECONDS_EACH=1", "GATE="+gate, "STOCK="+gate,
		"SIM="+buildSim(t), "TMPDIR="+dir)
	// A file, since a pipe would keep Wait until the last sleep ends.
	printed, err := os.Create(filepath.Join(dir, "printed"))
	if err != nil {
		t.Fatal(err)
	}
	defer printed.Close()
	cmd.Stdout, cmd.Stderr = printed, printed
	err = cmd.Run()
	cmd.Cancel()
	out, readErr := os.ReadFile(printed.Name())
	if err != nil || readErr != nil {
		t.Fatalf("%v, %v\n%s", err, readErr, out)
	}
	var names []string
	line := regexp.MustCompile(`(?m)^(\S.*?) +(\d+) +(\d+\.\d\d) +(\d+\.\d) +(\d+\.\d\d)  \S`)
	for _, m := range line.FindAllStringSubmatch(string(out), -1) {
		names = append(names, m[1])
		if n, err := strconv.Atoi(m[2]); err != nil || n == 0 {
			t.Errorf("no requests: %s", m[0])
		}
	}
	want := []string{
		"reverse_proxy", "wechat_auth + reverse_proxy", "forward_auth + reverse_proxy",
		"respond 200", "/wx/verify", "nginx + /wx/verify",
	}
	if !slices.Equal(names, want) {
		t.Errorf("it measures %q, want %q:\n%s", names, want, out)
	}
}

// TestGuide_Bench_FilesAdapt checks the file without a gate, which is in no other test.
func TestGuide_Bench_FilesAdapt(t *testing.T) {
	name := filepath.Join(moduleRoot, "examples/operate/bench/stock.caddyfile")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := adapt(string(text)); err != nil {
		t.Error(err)
	}
}
