package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// caddyPath is the module whose version the manifest and go.mod must agree on.
const caddyPath = "github.com/caddyserver/caddy/v2"

// defaultFlags are xcaddy's own build flags, which it applies only when the manifest has none.
const defaultFlags = "-ldflags '-w -s' -trimpath -tags nobadger,nomysql,nopgx"

// check holds the manifest against the module and reports everything that is wrong at once.
func check(m *manifest, mod *module) error {
	problems := []error{checkCaddyVersion(m, mod), checkFlags(m), checkReplacements(m, mod)}
	if len(m.Plugins) == 0 {
		problems = append(problems, m.wrong("plugins", "is empty; a Caddy without plugins needs no manifest"))
	}
	seen := make(map[string]bool, len(m.Plugins))
	for i, p := range m.Plugins {
		key := fmt.Sprintf("plugins[%d]", i)
		if seen[p.Path] {
			problems = append(problems, m.wrong(key, "%s is listed twice; keep one", p.Path))
			continue
		}
		seen[p.Path] = true
		problems = append(problems, checkPlugin(m, mod, key, p))
	}
	return errors.Join(problems...)
}

func checkCaddyVersion(m *manifest, mod *module) error {
	const key = "caddy_version"
	want, required := mod.Requires[caddyPath]
	switch {
	case !required:
		return m.wrong(key, "go.mod does not require %s; run go get %s@%s", caddyPath, caddyPath, m.CaddyVersion)
	case m.CaddyVersion == "":
		return m.wrong(key, "is missing; write %q, the version in go.mod", want)
	case m.CaddyVersion != want:
		return m.wrong(key, "is %s but go.mod requires %s; make them equal", m.CaddyVersion, want)
	}
	return nil
}

func checkFlags(m *manifest) error {
	const key = "build_flags"
	flags, err := splitFlags(m.BuildFlags)
	if err != nil {
		return m.wrong(key, "%v", err)
	}
	if len(flags) == 0 {
		return m.wrong(key, "is missing; spell xcaddy's defaults out: %s", defaultFlags)
	}
	return nil
}

// checkReplacements accepts the replacement of this module by its own directory and no other: a further one would make
// xcaddy build other code than go.sum pins, and one in go.mod would be unknown to xcaddy.
func checkReplacements(m *manifest, mod *module) error {
	const key = "replacements"
	if len(mod.Replaces) > 0 {
		return m.wrong(key, "go.mod replaces %s, which xcaddy would not see; remove it from go.mod", strings.Join(mod.Replaces, ", "))
	}
	if len(m.Replacements) != 1 || m.Replacements[0].Old != mod.Path {
		return m.wrong(key, "must hold exactly one, of this module by its own directory: old %q", mod.Path)
	}
	target := m.Replacements[0].New
	if !filepath.IsAbs(target) {
		target = filepath.Join(m.dir(), target)
	}
	have, err := os.Stat(target)
	if err != nil {
		return m.wrong(key, "new: %v", err)
	}
	root, err := os.Stat(mod.Root)
	if err != nil {
		return m.wrong(key, "new: %v", err)
	}
	if !os.SameFile(have, root) {
		return m.wrong(key, "new %q is not the directory of go.mod (relative to the manifest)", m.Replacements[0].New)
	}
	return nil
}

func checkPlugin(m *manifest, mod *module, key string, p plugin) error {
	if p.Path == "" {
		return m.wrong(key+".module_path", "is missing; name the package to import")
	}
	state, listed := mod.Packages[p.Path]
	switch {
	case !listed:
		return m.wrong(key+".module_path", "%q is not an import path", p.Path)
	case state.Error != nil:
		return m.wrong(key+".module_path", "%s: %s", p.Path, state.Error.Err)
	case state.Module == nil:
		return m.wrong(key+".module_path", "%s belongs to the standard library", p.Path)
	case state.Name == "main":
		return m.wrong(key+".module_path", "%s is a program; name the package that registers the modules", p.Path)
	case state.Module.Main:
		return checkOwnPlugin(m, mod, key, p)
	case p.Version != state.Module.Version:
		return m.wrong(key+".version", "is %q but go.mod selects %s for %s; write that version", p.Version, state.Module.Version, state.Module.Path)
	}
	return nil
}

func checkOwnPlugin(m *manifest, mod *module, key string, p plugin) error {
	if p.Version != "" {
		return m.wrong(key+".version", "remove it: %s is a package of this checkout", p.Path)
	}
	if _, known := promises[strings.TrimPrefix(p.Path, mod.Path+"/")]; !known {
		return m.wrong(key+".module_path", "wxbuild does not know which Caddy modules %s registers; add it to promises in cmd/wxbuild/verify.go", p.Path)
	}
	return nil
}
