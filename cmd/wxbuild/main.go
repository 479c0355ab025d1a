// Command wxbuild builds a custom Caddy from a manifest that xcaddy understands.
//
// The manifest, xcaddy.json, is the JSON form of xcaddy's Builder and holds nothing of our own, so whoever prefers
// xcaddy can use it unchanged. Unlike xcaddy, wxbuild resolves no version: it builds inside this module, where go.mod
// and go.sum decide, so the same commit gives the same binary and a filled module cache is enough to work offline.
//
// # Usage
//
//	go run ./cmd/wxbuild [-manifest xcaddy.json] [-o caddy]    check, build, verify
//	go run ./cmd/wxbuild -check                                 check only
//	go run ./cmd/wxbuild -print                                 print the equivalent xcaddy command line
//
// # Manifest
//
//	caddy_version   required; must be the version that go.mod requires
//	plugins         required; module_path is a package to import. A package of this module has no version (this checkout
//	                is built); any other has the version that go.mod selects
//	replacements    exactly one: old is this module, new the directory of its go.mod, relative to the manifest. Without
//	                it xcaddy would build a published wxgate instead of this checkout
//	build_flags     required; xcaddy drops all its defaults as soon as one flag is given, so they are spelt out
//	os, arch, arm   target platform, when it is not this machine's
//	cgo             true to build with cgo
//
// Every other key is refused, also those of xcaddy that wxbuild would not honour.
//
// # What it does
//
// It checks the manifest against go.mod and the packages it names, builds a main program that imports Caddy, its
// standard modules and the plugins, and asks the result for its modules: the ones that the plugins promise must be
// there. Only then does the output file appear. The main program exists in a temporary directory outside the checkout
// and is laid over it for the compiler, so that nothing in the working tree changes, however the build ends.
//
// A program for another platform cannot be asked and is left unverified, with a notice.
//
// The exit status is 0 on success, 1 when something is wrong, 2 for a wrong command line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// options are the command line's choices.
type options struct {
	manifest string
	output   string
	check    bool
	print    bool
}

// run is the whole program and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	if err := opts.execute(ctx, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var opts options
	fs := flag.NewFlagSet("wxbuild", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&opts.manifest, "manifest", "xcaddy.json", "read the build from this `file`")
	fs.StringVar(&opts.output, "o", "caddy", "write the program to this `file`")
	fs.BoolVar(&opts.check, "check", false, "check the manifest and build nothing")
	fs.BoolVar(&opts.print, "print", false, "print the equivalent xcaddy command line and build nothing")
	if err := fs.Parse(args); err != nil {
		return opts, err
	}
	var err error
	switch {
	case fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: wxbuild takes flags only", fs.Arg(0))
	case opts.check && opts.print:
		err = errors.New("-check and -print exclude each other")
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		fs.Usage()
	}
	return opts, err
}

func (o options) execute(ctx context.Context, stdout, stderr io.Writer) error {
	m, err := readManifest(o.manifest)
	if err != nil {
		return err
	}
	mod, err := loadModule(ctx, m)
	if err != nil {
		return err
	}
	if err := check(m, mod); err != nil {
		return err
	}
	switch {
	case o.check:
		fmt.Fprintf(stdout, "%s: ok: Caddy %s, %d plugin(s), agrees with %s\n", o.manifest, m.CaddyVersion, len(m.Plugins), mod.Path)
		return nil
	case o.print:
		fmt.Fprintln(stdout, xcaddyCommand(m, o.output))
		return nil
	default:
		return build(ctx, m, mod, o.output, stdout, stderr)
	}
}
