package main

import (
	"bytes"
	"debug/buildinfo"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

const ownManifest = "../../xcaddy.json"

// runs executes a command line and fails the test on another exit status.
func runs(t *testing.T, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(t.Context(), args, &out, &errs); got != status {
		t.Fatalf("%q: exit status %d, want %d; %s", args, got, status, &errs)
	}
	return out.String(), errs.String()
}

func TestRun_CommandLine_ExitStatus(t *testing.T) {
	runs(t, 0, "-h")
	runs(t, 0, "-check", "-manifest", ownManifest)
	for _, args := range [][]string{{"-x"}, {"surplus"}, {"-check", "-print"}} {
		if _, stderr := runs(t, 2, args...); stderr == "" {
			t.Errorf("%q: no reason", args)
		}
	}
}

func TestCheck_WrongManifest_NamesMember(t *testing.T) {
	text, err := os.ReadFile(ownManifest)
	if err != nil {
		t.Fatal(err)
	}
	const plugin = `github.com/wxgate/wxgate/caddymodule"`
	for name, tt := range map[string]struct{ old, new, want string }{
		"syntax":            {"{", "[", "decoding JSON"},
		"unknown member":    {`"plugins"`, `"plug"`, `unknown field "plug"`},
		"Caddy version":     {`"v2.11.9"`, `"v2.11.8"`, "caddy_version"},
		"build flags":       {`"build_flags"`, `"mod_flags"`, "want build_flags"},
		"plugin missing":    {plugin, `github.com/wxgate/wxgate/none"`, "plugins"},
		"plugin pattern":    {plugin, `github.com/wxgate/wxgate/..."`, "plugins"},
		"plugin version":    {plugin, plugin + `, "version": "v1.0.0"`, "plugins"},
		"other replacement": {`"github.com/wxgate/wxgate"`, `"example.org/x"`, "replacements"},
		"other directory":   {`"new": "."`, `"new": "cmd"`, "replacements"},
	} {
		t.Run(name, func(t *testing.T) {
			root, err := filepath.Abs("../..")
			if err != nil {
				t.Fatal(err)
			}
			if testing.Short() && strings.HasPrefix(name, "plugin") {
				t.Skip("the go command takes long; the check is that of the Caddy version")
			}
			changed := strings.Replace(string(text), tt.old, tt.new, 1)
			changed = strings.Replace(changed, `"new": "`, `"new": "`+root+"/", 1)
			file := filepath.Join(t.TempDir(), "x.json")
			if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			_, stderr := runs(t, 1, "-check", "-manifest", file)
			if !strings.Contains(stderr, file) || !strings.Contains(stderr, tt.want) {
				t.Errorf("got %q, want the file's name and %q", stderr, tt.want)
			}
		})
	}
	runs(t, 1, "-check", "-manifest", "none.json")
}

// TestManifest_Plugins_AreTheProduct: a custom build and cmd/wxgate are the same program.
func TestManifest_Plugins_AreTheProduct(t *testing.T) {
	b, err := read(ownManifest)
	if err != nil {
		t.Fatal(err)
	}
	var listed, imported []string
	for _, p := range b.Plugins {
		listed = append(listed, p.PackagePath)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../wxgate/main.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range file.Imports {
		path := strings.Trim(spec.Path.Value, `"`)
		if spec.Name != nil && spec.Name.Name == "_" && !strings.Contains(path, "caddyserver") {
			imported = append(imported, path)
		}
	}
	if !slices.Equal(listed, imported) {
		t.Errorf("xcaddy.json lists %q, cmd/wxgate imports %q", listed, imported)
	}
}

// TestPrint_InShell_RunsXcaddy runs the printed line with a stand-in for xcaddy.
func TestPrint_InShell_RunsXcaddy(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\nprintf '%s|' \"$CGO_ENABLED\" \"$XCADDY_GO_BUILD_FLAGS\" \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "xcaddy"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	line, _ := runs(t, 0, "-print", "-manifest", ownManifest, "-o", "it's caddy")
	cmd := exec.Command("sh", "-c", line)
	cmd.Env = []string{"PATH=" + dir + string(os.PathListSeparator) + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	want := "0|-ldflags '-w -s' -trimpath -tags nobadger,nomysql,nopgx " +
		"-pgo='" + root + "/cmd/wxbuild/release.pgo'|build|v2.11.9|" +
		"--with|github.com/wxgate/wxgate/caddymodule|" +
		"--with|github.com/wxgate/wxgate/caddymodule/redisstore|" +
		"--replace|github.com/wxgate/wxgate=" + root + "|--output|it's caddy|"
	if string(out) != want {
		t.Errorf("got  %s\nwant %s", out, want)
	}
}

// TestBuild_OwnManifest_HasModules builds the manifest and runs the result. The
// versions of its modules are those of go.mod, and the profile was used.
func TestBuild_OwnManifest_HasModules(t *testing.T) {
	if os.Getenv("WXGATE_REQUIRE_ALL") == "" {
		t.Skip("downloads the test dependencies of Caddy; set WXGATE_REQUIRE_ALL=1")
	}
	t.Setenv("GOPROXY", os.Getenv("GOPROXY")) // build changes both
	t.Setenv("GOWORK", "off")
	program := filepath.Join(t.TempDir(), "caddy")
	_, stderr := runs(t, 0, "-manifest", ownManifest, "-o", program)
	modules, err := exec.Command(program, "list-modules", "--skip-standard").Output()
	if err != nil {
		t.Fatalf("%v; %s", err, stderr)
	}
	for _, want := range []string{"http.handlers.wechat_auth\n", "wechat.stores.redis\n"} {
		if !strings.Contains(string(modules), want) {
			t.Errorf("%q is missing in %s", want, modules)
		}
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(info.Settings, debug.BuildSetting{Key: "-pgo", Value: "release.pgo"}) {
		t.Errorf("built without the profile: %v", info.Settings)
	}
	all, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}}", "all").Output()
	if err != nil {
		t.Fatal(err)
	}
	pinned := strings.Split(string(all), "\n")
	for _, dep := range info.Deps {
		if dep.Replace == nil && !slices.Contains(pinned, dep.Path+" "+dep.Version) {
			t.Errorf("%s %s is not the version of go.mod", dep.Path, dep.Version)
		}
	}
}
