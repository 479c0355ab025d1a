package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const ownManifest = "../../xcaddy.json"

// TestManifestMatchesGoMod is wxbuild -check over this repository's own manifest.
func TestManifestMatchesGoMod(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-manifest", ownManifest, "-check"}, &stdout, &stderr); status != 0 {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
	m, err := readManifest(ownManifest)
	if err != nil {
		t.Fatal(err)
	}
	gomod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "\t" + caddyPath + " " + m.CaddyVersion + "\n"; !strings.Contains(string(gomod), want) {
		t.Errorf("go.mod has no line %q, yet -check said %q", want, &stdout)
	}
}

// TestManifestMatchesProduct holds the manifest's plugins against what cmd/wxgate imports, so that the product and a
// custom build are the same program.
func TestManifestMatchesProduct(t *testing.T) {
	m, err := readManifest(ownManifest)
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, p := range m.Plugins {
		listed[p.Path] = true
	}
	imported := make(map[string]bool)
	for _, file := range productFiles(t) {
		syntax, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range syntax.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			blank := spec.Name != nil && spec.Name.Name == "_"
			caddys := strings.HasPrefix(path, caddyPath+"/")
			standard := !strings.Contains(strings.Split(path, "/")[0], ".")
			if listed[path] || blank && !caddys && !standard {
				imported[path] = true
			}
		}
	}
	if !maps.Equal(listed, imported) {
		t.Errorf("xcaddy.json lists %q, cmd/wxgate imports %q; make them equal",
			slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(imported)))
	}
}

func productFiles(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("../wxgate/*.go")
	if err != nil || len(all) == 0 {
		t.Fatalf("finding the product's source: %v, %q", err, all)
	}
	return slices.DeleteFunc(all, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
}

func TestPrint(t *testing.T) {
	golden, err := filepath.Abs("testdata/print.golden")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(ownManifest))
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-print"}, &stdout, &stderr); status != 0 {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
	if *update {
		if err := os.WriteFile(golden, stdout.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if stdout.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", &stdout, want)
	}
}

// TestPrintedLineThroughAShell runs the printed line with a stand-in for xcaddy that tells what reached it.
func TestPrintedLineThroughAShell(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\nprintf '%s|' \"$GOOS\" \"$GOARM\" \"$CGO_ENABLED\" \"$XCADDY_GO_BUILD_FLAGS\" \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "xcaddy"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	m := &manifest{
		file: "some dir/x.json", OS: "linux", Arch: "arm", ARM: "7", Cgo: true, CaddyVersion: "v2.0.0",
		BuildFlags:   `-ldflags '-X "a.b=it''s $HOME"'`,
		Plugins:      []plugin{{Path: "example.org/a"}, {Path: "example.org/b", Version: "v1.0.0"}},
		Replacements: []replacement{{Old: "example.org", New: "."}},
	}
	cmd := exec.Command("sh", "-c", xcaddyCommand(m, "it's caddy"))
	cmd.Env = []string{"PATH=" + dir + string(os.PathListSeparator) + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := `linux|7|1|-ldflags '-X "a.b=it''s $HOME"'|build|v2.0.0|--with|example.org/a|--with|example.org/b@v1.0.0|` +
		`--replace|example.org=./some dir|--output|it's caddy|`
	if string(out) != want {
		t.Errorf("got  %s\nwant %s", out, want)
	}
}

func TestWrongCommandLine(t *testing.T) {
	for _, args := range [][]string{{"-x"}, {"surplus"}, {"-check", "-print"}} {
		var stderr bytes.Buffer
		if status := run(t.Context(), args, io.Discard, &stderr); status != 2 || stderr.Len() == 0 {
			t.Errorf("%q: got exit status %d, %q, want 2 with a reason", args, status, &stderr)
		}
	}
	if status := run(t.Context(), []string{"-h"}, io.Discard, io.Discard); status != 0 {
		t.Errorf("-h: got exit status %d", status)
	}
}

// TestBuild makes the real thing from the repository's manifest.
func TestBuild(t *testing.T) {
	if testing.Short() && os.Getenv("WXGATE_REQUIRE_ALL") == "" {
		t.Skip("links all of Caddy")
	}
	temp, out := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temp)
	program := filepath.Join(out, "caddy")
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-manifest", ownManifest, "-o", program}, &stdout, &stderr); status != 0 {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
	for _, name := range promises["caddymodule"] {
		if !strings.Contains(stdout.String(), name) {
			t.Errorf("%s is not reported in %q", name, &stdout)
		}
	}
	version, err := exec.Command(program, "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	m, err := readManifest(ownManifest)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(version), m.CaddyVersion) {
		t.Errorf("the program calls itself %q, want %s", version, m.CaddyVersion)
	}
	wantFiles(t, temp)
	wantFiles(t, out, "caddy")
	if _, err := os.Stat(filepath.Join("../..", buildPackage)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the build left %s in the checkout: %v", buildPackage, err)
	}
}

// TestBuildLeavesNothingBehind gives build a go command that fails, or that is interrupted while it works.
func TestBuildLeavesNothingBehind(t *testing.T) {
	tests := []struct {
		name, script string
		want         string
	}{
		{"failing compiler", `for a; do case $a in */.unverified-caddy) : >"$a";; esac; done; echo no >&2; exit 1`, "building: exit status 1"},
		{"interrupted", `: >"$GOTMPDIR/go-build"; echo working >&2; exec sleep 60`, "building: context canceled"},
		{"program that is no Caddy", `for a; do case $a in */.unverified-caddy) printf '#!/bin/sh\necho []\n' >"$a"; chmod +x "$a";; esac; done`, "x.json: plugins[0]: the program lacks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, mod := sample(t)
			bin, temp, out := t.TempDir(), t.TempDir(), t.TempDir()
			if err := os.WriteFile(filepath.Join(bin, "go"), []byte("#!/bin/sh\n"+tt.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			t.Setenv("TMPDIR", temp)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stderr := writerFunc(func(p []byte) (int, error) {
				if tt.name == "interrupted" {
					cancel()
				}
				return len(p), nil
			})
			err := build(ctx, m, mod, filepath.Join(out, "caddy"), io.Discard, stderr)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
			wantFiles(t, temp)
			wantFiles(t, out)
			wantFiles(t, mod.Root)
		})
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}
