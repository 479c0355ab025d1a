//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// guides returns the folders below examples that have a README.
func guides(tb testing.TB) (found []string) {
	tb.Helper()
	top := filepath.Join(moduleRoot, "examples")
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if dir := filepath.Dir(path); filepath.Base(path) == "README.md" && dir != top {
			found = append(found, dir)
		}
		return err
	})
	if err != nil || len(found) < 5 {
		tb.Fatalf("%d guides, %v", len(found), err)
	}
	return found
}

var (
	shellBlock   = regexp.MustCompile("(?s)\n```sh\n(.*?)```\n")
	shellComment = regexp.MustCompile(`(?m)(^|\s+)# .*$`)
)

// TestGuide_Folder_IsComplete: each guide has a configuration and a README in two
// languages with the same commands, and the README of examples lists it.
func TestGuide_Folder_IsComplete(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	commands := func(text string) (blocks []string) {
		for _, block := range shellBlock.FindAllStringSubmatch(text, -1) {
			blocks = append(blocks, shellComment.ReplaceAllString(block[1], ""))
		}
		return blocks
	}
	top := filepath.Join(moduleRoot, "examples")
	for _, guide := range guides(t) {
		read(filepath.Join(guide, "Caddyfile"))
		english := read(filepath.Join(guide, "README.md"))
		chinese := read(filepath.Join(guide, "README.zh-CN.md"))
		a, b := commands(english), commands(chinese)
		if len(a) == 0 || !slices.Equal(a, b) {
			t.Errorf("%s: the commands are\n%q and\n%q", guide, a, b)
		}
		place, err := filepath.Rel(top, guide)
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range []string{"README.md", "README.zh-CN.md"} {
			if !strings.Contains(read(filepath.Join(top, list)), "["+place+"]("+place) {
				t.Errorf("examples/%s does not list %s", list, place)
			}
		}
	}
}

// TestGuide_Commands_Work runs "in a minute" of a README as it stands, on other
// ports. The other guides have tests of their own.
func TestGuide_Commands_Work(t *testing.T) {
	slow(t)
	t.Parallel()
	need(t, "bash")
	need(t, "curl")
	need(t, "node")
	wxsim := buildSim(t)
	for guide, want := range map[string][]string{
		"start/multi-app": {" of wx0123456789abcdef.", "app_not_allowed"},
		"client":          {"session_missing", "fail 0", "skipped 0"},
		"start/spa-and-api": {
			"Orders", "session_missing", "session_missing", " of wx0123456789abcdef.",
		},
		"start/websocket": {"101 Switching Protocols", "You are o", "session_missing"},
		"wechat/cloudrun": {
			"identity_missing", "You are o-alice of", "identity_refused", "You are o-alice of",
			"removed     X-Wx-Openid", "401 session_missing",
		},
		"wechat/push": {
			"You are o", "saved: 204", `"attempts":1,"status":200,"answer":"success"`,
			"session_invalid", "invalid_request",
		},
		"wechat/saas": {
			`{"status":"ok"}`, `"answer":"success"`, " of wx0123456789abcdef.", "13580006666",
			"app_not_allowed", `"answer":"success"`, "app_not_allowed",
		},
		"wechat/open-data": {
			`"step":4711`, `"13580006666"`, `"accepted":true`, `"accepted":false`,
		},
	} {
		t.Run(guide, func(t *testing.T) {
			out := runGuide(t, wxsim, guide)
			rest := out
			for _, w := range want {
				_, after, found := strings.Cut(rest, w)
				if !found {
					t.Fatalf("%q is not in\n%s", w, out)
				}
				rest = after
			}
		})
	}
}

// buildSim builds the simulator as a program.
func buildSim(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "wxsim")
	cmd := exec.Command("go", "build", "-o", program, "../../../cmd/wxsim")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// runGuide runs the first commands of a guide in a copy of examples.
func runGuide(t *testing.T, wxsim, guide string) string {
	t.Helper()
	dir := t.TempDir()
	var ports []string
	for _, fixed := range []string{"8088", "8080", "8081", "8750"} {
		_, port, _ := strings.Cut(freeAddr(t), ":")
		ports = append(ports, fixed, port, "localhost:"+fixed, "localhost:"+port)
	}
	move := strings.NewReplacer(ports...)
	from := os.DirFS(filepath.Join(moduleRoot, "examples"))
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		to := filepath.Join(dir, "examples", name)
		if err != nil || d.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		return os.WriteFile(to, []byte(move.Replace(string(text))), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	writeProduct(t, dir)
	writeScript(t, filepath.Join(dir, "wxsim"),
		fmt.Sprintf("exec %q -listen %s \"$@\"", wxsim, move.Replace("127.0.0.1:8750")))
	text, err := os.ReadFile(filepath.Join(dir, "examples", guide, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, build, found := strings.Cut(shellBlock.FindStringSubmatch(string(text))[1], "\n")
	if !found {
		t.Fatal("no commands")
	}
	return runShell(t, dir, []string{"CADDY_ADMIN=" + freeAddr(t)}, build)
}

// writeProduct writes a program wxgate. The test binary is the product as long as its
// standard input is open.
func writeProduct(t *testing.T, dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	writeScript(t, filepath.Join(dir, "wxgate"),
		fmt.Sprintf("exec env %s=1 %q \"$@\" < <(sleep 600 2>&-)", childEnv, self))
}

func writeScript(t *testing.T, path, script string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/usr/bin/env bash\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// runShell runs commands in a folder, ends what they leave in the background, and
// returns what all of it printed.
func runShell(t *testing.T, dir string, env []string, commands string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", commands)
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "no_proxy=*",
	}, env...)
	// A file, since a pipe would keep Wait until the last process in the
	// background ends.
	out, err := os.CreateTemp(dir, "printed")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	cmd.Cancel()
	text, readErr := os.ReadFile(out.Name())
	if err != nil || readErr != nil {
		t.Errorf("%v, %v\n%s", err, readErr, text)
	}
	return string(text)
}
