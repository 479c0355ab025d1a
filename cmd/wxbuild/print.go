package main

import (
	"path/filepath"
	"regexp"
	"strings"
)

// xcaddyCommand returns the shell command line with which xcaddy, started in the present directory, makes the same build
// from the newest dependencies that it finds. Flags without an option of their own go through xcaddy's environment.
func xcaddyCommand(m *manifest, output string) string {
	var env, args []string
	set := func(name, value string) {
		if value != "" {
			env = append(env, name+"="+quote(value))
		}
	}
	set("GOOS", m.OS)
	set("GOARCH", m.Arch)
	set("GOARM", m.ARM)
	set("CGO_ENABLED", m.cgoEnabled())
	set("XCADDY_GO_BUILD_FLAGS", m.BuildFlags)
	for _, p := range m.Plugins {
		with := p.Path
		if p.Version != "" {
			with += "@" + p.Version
		}
		args = append(args, "--with "+quote(with))
	}
	for _, r := range m.Replacements {
		args = append(args, "--replace "+quote(r.Old+"="+fromHere(m.dir(), r.New)))
	}
	args = append(args, "--output "+quote(output))
	first := strings.Join(append(env, "xcaddy build "+quote(m.CaddyVersion)), " ")
	return strings.Join(append([]string{first}, args...), " \\\n\t")
}

// fromHere rewrites a path that is relative to dir into one relative to the present directory. xcaddy takes a
// replacement for a local one only when it begins with a dot or a slash.
func fromHere(dir, path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if filepath.IsAbs(path) || strings.HasPrefix(path, ".") {
		return path
	}
	return "." + string(filepath.Separator) + path
}

// plainWord matches what a POSIX shell takes literally without quotes.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quote makes one POSIX shell word of s.
func quote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
