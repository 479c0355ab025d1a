//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var shellBlock = regexp.MustCompile("(?s)\n```sh\n(.*?)```\n")

// TestDev_AppGuides_CommandsWork runs the first commands of the guides in examples/apps
// as they stand, on other ports, with more patience, and with this test program as wxgate.
func TestDev_AppGuides_CommandsWork(t *testing.T) {
	for app, program := range map[string]string{
		"php": "php", "python": "python3", "node": "node", "java": "javac", "go": "go",
	} {
		t.Run(app, func(t *testing.T) {
			if testing.Short() && app != "php" && app != "node" {
				t.Skip("compiles, or starts slowly")
			}
			t.Parallel()
			needShell(t, "bash", program)
			sqlite := exec.Command("php", "-r", "new PDO('sqlite::memory:');")
			if app == "php" && sqlite.Run() != nil {
				if os.Getenv("WXGATE_REQUIRE_ALL") != "" {
					t.Fatal("php has no SQLite")
				}
				t.Skip("php has no SQLite (php-sqlite3)")
			}
			said := runAppGuide(t, app)
			rest := said
			for _, want := range []string{
				"openid", `"Ada"`, "nickname is refused", "session_invalid",
			} {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("%q is not in\n%s", want, said)
				}
				rest = after
			}
		})
	}
}

// runAppGuide returns what the commands print.
func runAppGuide(t *testing.T, app string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	folder, dir := "examples/apps/"+app, t.TempDir()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var ports []string
	for _, fixed := range []string{":8080", ":8081", ":8700", ":8750"} {
		addr, err := freeAddress()
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, fixed, addr[strings.LastIndexByte(addr, ':'):])
	}
	move := strings.NewReplacer(ports...)
	caddyfile := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(caddyfile, []byte(move.Replace(read("Caddyfile"))), 0o600); err != nil {
		t.Fatal(err)
	}
	match := shellBlock.FindStringSubmatch(read("README.md"))
	if match == nil {
		t.Fatal("no commands")
	}
	commands, found := strings.CutPrefix(match[1], "go build -o . ./cmd/wxgate\n")
	if !found {
		t.Fatalf("the commands begin with %q", match[1])
	}
	commands = strings.NewReplacer(
		"./wxgate dev", childEnv+"=1 "+os.Args[0]+move.Replace(
			" dev --listen 127.0.0.1:8700 --sim-listen 127.0.0.1:8750"),
		folder+"/Caddyfile", caddyfile, "--retry 9", "--retry 90",
	).Replace(move.Replace(commands))

	cmd := exec.Command("bash", "-c", commands)
	cmd.Dir, cmd.SysProcAttr = root, &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "no_proxy=*",
		"PORT="+strings.TrimPrefix(ports[1], ":"), "WECHAT=http://127.0.0.1"+ports[3])
	// A file, since a pipe would keep Wait until the last process in the background ends.
	out, err := os.Create(filepath.Join(dir, "printed"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	defer end()
	defer time.AfterFunc(6*patience, end).Stop()
	err = cmd.Wait()
	text, readErr := os.ReadFile(out.Name())
	if err != nil || readErr != nil {
		t.Errorf("%v, %v\n%s", err, readErr, text)
	}
	return string(text)
}
