package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// buildPackage is where the compiler believes the generated program to lie. A fixed place keeps the result independent
// of the temporary directory's name; the leading dot keeps ./... from ever seeing it.
const buildPackage = ".wxbuild"

// build compiles the manifest's Caddy, verifies it and moves it to output. Whatever happens, it leaves nothing else.
func build(ctx context.Context, m *manifest, mod *module, output string, stdout, stderr io.Writer) error {
	output, err := filepath.Abs(output)
	if err != nil {
		return fmt.Errorf("finding the output: %w", err)
	}
	if info, err := os.Stat(output); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory; name a file with -o", output)
	}
	temp, err := os.MkdirTemp("", "wxbuild-")
	if err != nil {
		return fmt.Errorf("making a temporary directory: %w", err)
	}
	defer os.RemoveAll(temp)
	overlay, err := writeOverlay(temp, m, mod)
	if err != nil {
		return fmt.Errorf("generating the program: %w", err)
	}
	// Next to the output, so that the rename cannot cross file systems.
	unverified := filepath.Join(filepath.Dir(output), ".unverified-"+filepath.Base(output))
	defer os.Remove(unverified)
	if err := compile(ctx, m, mod, overlay, unverified, stderr); err != nil {
		return err
	}
	modules := "not verified: built for another platform"
	if m.runsHere() {
		names, err := verify(ctx, m, mod, unverified)
		if err != nil {
			return err
		}
		modules = "has " + strings.Join(names, ", ")
	}
	if err := os.Rename(unverified, output); err != nil {
		return fmt.Errorf("placing the program: %w", err)
	}
	fmt.Fprintf(stdout, "%s: Caddy %s, %s\n", output, m.CaddyVersion, modules)
	return nil
}

// writeOverlay writes the program's source into temp, with the file that lays it over the module for the compiler, and
// returns the latter's name.
func writeOverlay(temp string, m *manifest, mod *module) (string, error) {
	source := filepath.Join(temp, "main.go")
	if err := os.WriteFile(source, mainSource(m), 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(mod.Root, buildPackage, "main.go"): source},
	})
	if err != nil {
		return "", err
	}
	name := filepath.Join(temp, "overlay.json")
	return name, os.WriteFile(name, overlay, 0o600)
}

// mainSource is the program that xcaddy would generate.
func mainSource(m *manifest) []byte {
	var b bytes.Buffer
	b.WriteString("package main\n\nimport (\n")
	fmt.Fprintf(&b, "\tcaddycmd %q\n\n", caddyPath+"/cmd")
	fmt.Fprintf(&b, "\t_ %q\n", caddyPath+"/modules/standard")
	for _, p := range m.Plugins {
		fmt.Fprintf(&b, "\t_ %q\n", p.Path)
	}
	b.WriteString(")\n\nfunc main() { caddycmd.Main() }\n")
	return b.Bytes()
}

func compile(ctx context.Context, m *manifest, mod *module, overlay, output string, stderr io.Writer) error {
	flags, err := splitFlags(m.BuildFlags)
	if err != nil {
		return err
	}
	args := append([]string{"build"}, flags...)
	args = append(args, "-mod=readonly", "-overlay", overlay, "-o", output, "./"+buildPackage)
	cmd := goCommand(ctx, mod.Root, args...)
	// The go command's own temporary files go with ours, since it leaves them when it is interrupted.
	cmd.Env = append(cmd.Env, "CGO_ENABLED="+m.cgoEnabled(), "GOTMPDIR="+filepath.Dir(overlay))
	for name, value := range map[string]string{"GOOS": m.OS, "GOARCH": m.Arch, "GOARM": m.ARM} {
		if value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Stdout, cmd.Stderr = stderr, stderr
	interruptible(cmd)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("building: %w", context.Cause(ctx))
		}
		return fmt.Errorf("building: %w (the go command's words are above)", err)
	}
	return nil
}

// interruptible ends the command the way Ctrl-C does when the context ends, so that it can end its own children.
func interruptible(cmd *exec.Cmd) {
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
}

// cgoEnabled is the value of CGO_ENABLED; like xcaddy, a manifest that is silent means no cgo.
func (m *manifest) cgoEnabled() string {
	if m.Cgo {
		return "1"
	}
	return "0"
}

// runsHere says whether the result is for this machine's platform.
func (m *manifest) runsHere() bool {
	system, arch := m.OS, m.Arch
	if system == "" {
		system = os.Getenv("GOOS")
	}
	if arch == "" {
		arch = os.Getenv("GOARCH")
	}
	return (system == "" || system == runtime.GOOS) && (arch == "" || arch == runtime.GOARCH)
}
