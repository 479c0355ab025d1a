// Command wxbuild builds a custom Caddy from xcaddy.json, with the xcaddy library.
//
//	go run ./cmd/wxbuild [-manifest xcaddy.json] [-o caddy]    check and build
//	go run ./cmd/wxbuild -check                                check only
//	go run ./cmd/wxbuild -print                                print the xcaddy command line
//
// The manifest is the JSON form of xcaddy's Builder. It replaces this module by
// the checkout it lies in, so that go.mod pins the versions of the build. The
// compiler optimises for the profile release.pgo, of a gate under load, which this
// records anew:
//
//	bash examples/operate/bench/run --record
//
// It has another name than default.pgo, so that go run and go test do without it:
// they would compile everything twice.
//
// The exit status is 0 on success, 1 when a step fails, 2 for a wrong command line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/caddyserver/xcaddy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run executes a command line and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("wxbuild", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("manifest", "xcaddy.json", "read the build from this `file`")
	output := flags.String("o", "caddy", "write the program to this `file`")
	checkOnly := flags.Bool("check", false, "check the manifest and build nothing")
	printOnly := flags.Bool("print", false, "print the xcaddy command line and build nothing")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 || *checkOnly && *printOnly {
		fmt.Fprintln(stderr, "wxbuild takes flags only, and not both -check and -print")
		return 2
	}
	b, err := read(*file)
	if err == nil {
		err = check(ctx, &b, filepath.Dir(*file))
	}
	switch {
	case err != nil:
		err = fmt.Errorf("checking %s: %w", *file, err)
	case *checkOnly:
		fmt.Fprintf(stdout, "%s: ok: Caddy %s, %d plugins\n", *file, b.CaddyVersion, len(b.Plugins))
	case *printOnly:
		fmt.Fprintln(stdout, commandLine(b, *output))
	default:
		err = build(ctx, b, *output)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// read decodes a manifest. It refuses unknown members, which xcaddy ignores.
func read(file string) (b xcaddy.Builder, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return b, fmt.Errorf("%w; name the manifest with -manifest", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return b, fmt.Errorf("decoding JSON: %w", err)
	}
	// xcaddy drops all its default flags when the command line has one.
	if b.BuildFlags == "" || len(b.Plugins) == 0 || len(b.Replacements) != 1 {
		return b, errors.New("want build_flags, plugins and one of replacements")
	}
	return b, nil
}

// profile is where the profile lies in the checkout.
const profile = "cmd/wxbuild/release.pgo"

// check compares the manifest with go.mod and makes its replacement absolute, as
// xcaddy needs it. Other versions or another replacement would build other code.
// It adds the profile of the checkout to the build.
func check(ctx context.Context, b *xcaddy.Builder, dir string) error {
	replaced := &b.Replacements[0]
	root := replaced.New.String()
	if !filepath.IsAbs(root) {
		root = filepath.Join(dir, root)
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	replaced.New = xcaddy.ReplacementPath(root)
	err = goList(ctx, root, "replacements", []string{replaced.Old.String() + "=" + root},
		"-m", "-f", "{{.Path}}={{.Dir}}")
	if err != nil {
		return err
	}
	file := filepath.Join(root, filepath.FromSlash(profile))
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("finding the profile of the build: %w", err)
	}
	b.BuildFlags += " -pgo=" + quote(file)
	packages := []string{"github.com/caddyserver/caddy/v2"}
	versions := []string{packages[0] + "@" + b.CaddyVersion}
	for _, p := range b.Plugins {
		packages = append(packages, p.PackagePath)
		versions = append(versions, p.PackagePath+"@"+p.Version)
	}
	return goList(ctx, root, "caddy_version and plugins", versions,
		append([]string{"-f", "{{.ImportPath}}@{{.Module.Version}}", "--"}, packages...)...)
}

// goList runs go list in the checkout and compares its lines with those wanted.
func goList(ctx context.Context, root, members string, want []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list"}, args...)...)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	cmd.Env = append(cmd.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: running go list: %w", members, err)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s: %q, but the checkout has %q; make them equal", members, want, got)
	}
	return nil
}

// build runs xcaddy with the module cache as the first module proxy. There the go
// command resolves this module to its replacement, without asking a server for it.
func build(ctx context.Context, b xcaddy.Builder, output string) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMODCACHE", "GOPROXY").Output()
	if err != nil {
		return fmt.Errorf("running go env: %w", err)
	}
	cache, proxies, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	cache = "file://" + filepath.ToSlash(filepath.Join(cache, "cache", "download"))
	err = errors.Join(os.Setenv("GOPROXY", cache+","+proxies), os.Setenv("GOWORK", "off"))
	if err != nil {
		return err
	}
	if err := b.Build(ctx, output); err != nil {
		return fmt.Errorf("building: %w; the go command's messages are above", err)
	}
	return nil
}

// commandLine returns the xcaddy command line, for a POSIX shell, of the same build.
func commandLine(b xcaddy.Builder, output string) string {
	words := []string{"CGO_ENABLED=" + b.CgoEnabled()}
	add := func(prefix, value string) {
		if value != "" {
			words = append(words, prefix+quote(value))
		}
	}
	add("GOOS=", b.OS)
	add("GOARCH=", b.Arch)
	add("GOARM=", b.ARM)
	add("XCADDY_GO_BUILD_FLAGS=", b.BuildFlags)
	add("xcaddy build ", b.CaddyVersion)
	for _, p := range b.Plugins {
		add("--with ", p.String())
	}
	add("--replace ", b.Replacements[0].Old.String()+"="+b.Replacements[0].New.String())
	add("--output ", output)
	return strings.Join(words, " \\\n\t")
}

// quote writes a word for a POSIX shell; xcaddy splits its flags likewise.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
