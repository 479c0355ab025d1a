package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is what the go command says of the module that the manifest lies in and of the packages that it names.
type module struct {
	Path     string
	Root     string
	Requires map[string]string   // module path to required version
	Replaces []string            // module paths that go.mod replaces
	Packages map[string]pkgState // by import path, for every plugin
}

// pkgState is a plugin package as go list sees it.
type pkgState struct {
	ImportPath string
	Name       string
	Module     *struct {
		Path    string
		Version string
		Main    bool
	}
	Error *struct{ Err string }
}

// loadModule asks the go command about the manifest's surroundings. It changes and downloads nothing but what the build
// itself needs.
func loadModule(ctx context.Context, m *manifest) (*module, error) {
	gomod, err := goOutput(ctx, m.dir(), "env", "GOMOD")
	if err != nil {
		return nil, err
	}
	file := strings.TrimSpace(string(gomod))
	if file == "" || file == os.DevNull {
		return nil, m.wrong("", "lies in no Go module; wxbuild builds the checkout that the manifest lies in")
	}
	mod := &module{Root: filepath.Dir(file)}
	if err := mod.readGoMod(ctx); err != nil {
		return nil, err
	}
	if err := mod.listPackages(ctx, m); err != nil {
		return nil, err
	}
	return mod, nil
}

func (mod *module) readGoMod(ctx context.Context) error {
	out, err := goOutput(ctx, mod.Root, "mod", "edit", "-json")
	if err != nil {
		return err
	}
	var gomod struct {
		Module  struct{ Path string }
		Require []struct{ Path, Version string }
		Replace []struct{ Old struct{ Path string } }
	}
	if err := json.Unmarshal(out, &gomod); err != nil {
		return fmt.Errorf("reading go.mod: %w", err)
	}
	mod.Path = gomod.Module.Path
	mod.Requires = make(map[string]string, len(gomod.Require))
	for _, r := range gomod.Require {
		mod.Requires[r.Path] = r.Version
	}
	for _, r := range gomod.Replace {
		mod.Replaces = append(mod.Replaces, r.Old.Path)
	}
	return nil
}

func (mod *module) listPackages(ctx context.Context, m *manifest) error {
	mod.Packages = make(map[string]pkgState, len(m.Plugins))
	var paths []string
	for _, p := range m.Plugins {
		if isImportPath(p.Path) {
			paths = append(paths, p.Path)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	args := []string{"list", "-e", "-mod=readonly", "-json=ImportPath,Name,Module,Error", "--"}
	out, err := goOutput(ctx, mod.Root, append(args, paths...)...)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkgState
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading go list's answer: %w", err)
		}
		mod.Packages[p.ImportPath] = p
	}
}

// isImportPath tells a package's path from the patterns, directories and queries that the go command takes as well: to
// those it would answer with something that the manifest does not say.
func isImportPath(path string) bool {
	return path != "" && !strings.HasPrefix(path, ".") && !strings.HasPrefix(path, "/") &&
		!strings.ContainsAny(path, "@\\ ") && !strings.Contains(path, "...")
}

// goCommand prepares a go command in dir. A workspace around the checkout must not lend it other versions.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	return cmd
}

func goOutput(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := goCommand(ctx, dir, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running go %s: %w\n%s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
