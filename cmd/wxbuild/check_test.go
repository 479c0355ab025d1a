package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sample returns a manifest and a module that agree; a test breaks one of them.
func sample(t *testing.T) (*manifest, *module) {
	t.Helper()
	root := t.TempDir()
	m, err := decodeManifest(filepath.Join(root, "x.json"), []byte(goodManifest))
	if err != nil {
		t.Fatal(err)
	}
	m.Plugins = append(m.Plugins, plugin{Path: "example.com/foreign/plugin", Version: "v1.2.3"})
	mod := &module{
		Path:     "example.org/gate",
		Root:     root,
		Requires: map[string]string{caddyPath: "v2.11.9", "example.com/foreign": "v1.2.3"},
		Packages: map[string]pkgState{},
	}
	mod.add("example.org/gate/caddymodule", "caddymodule", "example.org/gate", "")
	mod.add("example.org/gate/other", "other", "example.org/gate", "")
	mod.add("example.org/gate/cmd/wxgate", "main", "example.org/gate", "")
	mod.add("example.com/foreign/plugin", "plugin", "example.com/foreign", "v1.2.3")
	mod.Packages["fmt"] = pkgState{ImportPath: "fmt", Name: "fmt"}
	mod.Packages["example.org/none"] = pkgState{Error: &struct{ Err string }{"no required module provides it"}}
	return m, mod
}

func (mod *module) add(path, name, from, version string) {
	p := pkgState{ImportPath: path, Name: name}
	p.Module = &struct {
		Path    string
		Version string
		Main    bool
	}{from, version, version == ""}
	mod.Packages[path] = p
}

func TestCheckAccepts(t *testing.T) {
	m, mod := sample(t)
	if err := check(m, mod); err != nil {
		t.Error(err)
	}
	m.Replacements[0].New = mod.Root
	if err := check(m, mod); err != nil {
		t.Errorf("absolute replacement: %v", err)
	}
}

func TestCheckRefuses(t *testing.T) {
	tests := []struct {
		name string
		harm func(m *manifest, mod *module)
		want string // begins with the key
	}{
		{"another Caddy", func(m *manifest, _ *module) { m.CaddyVersion = "v2.11.8" }, "caddy_version: is v2.11.8 but go.mod requires v2.11.9"},
		{"no Caddy version", func(m *manifest, _ *module) { m.CaddyVersion = "" }, `caddy_version: is missing; write "v2.11.9"`},
		{"go.mod without Caddy", func(_ *manifest, mod *module) { delete(mod.Requires, caddyPath) }, "caddy_version: go.mod does not require"},
		{"no flags", func(m *manifest, _ *module) { m.BuildFlags = " " }, "build_flags: is missing; spell xcaddy's defaults out: -ldflags '-w -s' -trimpath"},
		{"broken flags", func(m *manifest, _ *module) { m.BuildFlags = "-ldflags '-w" }, "build_flags: has an unclosed quote"},
		{"no replacement", func(m *manifest, _ *module) { m.Replacements = nil }, "replacements: must hold exactly one"},
		{"replacement of another module", func(m *manifest, _ *module) { m.Replacements[0].Old = caddyPath }, "replacements: must hold exactly one"},
		{"second replacement", func(m *manifest, _ *module) {
			m.Replacements = append(m.Replacements, replacement{Old: caddyPath, New: "."})
		}, "replacements: must hold exactly one"},
		{"replacement by a missing directory", func(m *manifest, _ *module) { m.Replacements[0].New = "nowhere" }, "replacements: new: stat "},
		{"replacement by another directory", func(m *manifest, _ *module) { m.Replacements[0].New = ".." }, `replacements: new ".." is not the directory of go.mod`},
		{"replacement in go.mod", func(_ *manifest, mod *module) { mod.Replaces = []string{caddyPath} }, "replacements: go.mod replaces " + caddyPath},
		{"no plugins", func(m *manifest, _ *module) { m.Plugins = nil }, "plugins: is empty"},
		{"plugin without a path", func(m *manifest, _ *module) { m.Plugins[0].Path = "" }, "plugins[0].module_path: is missing"},
		{"plugin twice", func(m *manifest, _ *module) { m.Plugins[1] = m.Plugins[0] }, "plugins[1]: example.org/gate/caddymodule is listed twice"},
		{"pattern as a plugin", func(m *manifest, _ *module) { m.Plugins[0].Path = "./..." }, `plugins[0].module_path: "./..." is not an import path`},
		{"missing package", func(m *manifest, _ *module) { m.Plugins[1].Path = "example.org/none" }, "plugins[1].module_path: example.org/none: no required module"},
		{"standard library", func(m *manifest, _ *module) { m.Plugins[1].Path = "fmt" }, "plugins[1].module_path: fmt belongs to the standard library"},
		{"program as a plugin", func(m *manifest, _ *module) { m.Plugins[0].Path = "example.org/gate/cmd/wxgate" }, "plugins[0].module_path: example.org/gate/cmd/wxgate is a program"},
		{"version of this checkout", func(m *manifest, _ *module) { m.Plugins[0].Version = "v1.0.0" }, "plugins[0].version: remove it"},
		{"own package without promises", func(m *manifest, _ *module) { m.Plugins[0].Path = "example.org/gate/other" }, "plugins[0].module_path: wxbuild does not know which Caddy modules"},
		{"foreign plugin without a version", func(m *manifest, _ *module) { m.Plugins[1].Version = "" }, `plugins[1].version: is "" but go.mod selects v1.2.3`},
		{"foreign plugin of another version", func(m *manifest, _ *module) { m.Plugins[1].Version = "v1.3.0" }, `plugins[1].version: is "v1.3.0" but go.mod selects v1.2.3`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, mod := sample(t)
			tt.harm(m, mod)
			err := check(m, mod)
			if err == nil || !strings.HasPrefix(err.Error(), m.file+": "+tt.want) {
				t.Errorf("got error %v, want %s: %s…", err, m.file, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("one mistake gives several errors:\n%v", err)
			}
		})
	}
}

func TestCheckReportsEverything(t *testing.T) {
	m, mod := sample(t)
	m.CaddyVersion, m.BuildFlags, m.Plugins[1].Version = "v2.0.0", "", ""
	if got := strings.Count(check(m, mod).Error(), "\n") + 1; got != 3 {
		t.Errorf("got %d errors, want 3:\n%v", got, check(m, mod))
	}
}

func TestSplitFlags(t *testing.T) {
	tests := []struct {
		text string
		want []string
	}{
		{"", nil},
		{"  -a\t-b\n-c ", []string{"-a", "-b", "-c"}},
		{"-ldflags '-w -s' -trimpath", []string{"-ldflags", "-w -s", "-trimpath"}},
		{`-ldflags="-X 'a.b=c d'"`, []string{"-ldflags=-X 'a.b=c d'"}},
		{"-tags ''", []string{"-tags", ""}},
	}
	for _, tt := range tests {
		got, err := splitFlags(tt.text)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
	for _, bad := range []string{`-a \ b`, "-a # b", `-a "b`, "-a 'b"} {
		if got, err := splitFlags(bad); err == nil {
			t.Errorf("%q: got %q, want an error", bad, got)
		}
	}
}

func TestJudgeModules(t *testing.T) {
	var own []listedModule
	for _, name := range promises["caddymodule"] {
		own = append(own, listedModule{Name: name})
	}
	lost := own[2].Name
	without := append(slices.Clone(own[:2]), own[3:]...)
	foreign := listedModule{Name: "foreign", Source: "example.com/foreign"}
	tests := []struct {
		name   string
		listed []listedModule
		want   string
	}{
		{"all there", append(own, foreign), ""},
		{"a promised module missing", append(slices.Clone(without), foreign), "plugins[0]: the program lacks " + lost},
		{"a promised module from elsewhere", append(slices.Clone(without), foreign, listedModule{Name: lost, Source: "example.com/foreign"}), "plugins[0]: the program lacks " + lost},
		{"nothing from a foreign plugin", own, "plugins[1]: example.com/foreign/plugin registers no Caddy module"},
		{"nothing at all", nil, "plugins[0]: the program lacks " + own[0].Name},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, mod := sample(t)
			names, err := judgeModules(m, mod, tt.listed)
			if tt.want == "" {
				if want := slices.Sorted(slices.Values(append([]string{"foreign"}, promises["caddymodule"]...))); err != nil || !slices.Equal(names, want) {
					t.Errorf("got %q, %v, want %q", names, err, want)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), m.file+": "+tt.want) {
				t.Errorf("got error %v, want %s: %s…", err, m.file, tt.want)
			}
		})
	}
}

// TestLoadModule asks the real go command about a module that needs no download.
func TestLoadModule(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.org/gate\n\ngo 1.26.0\n\nreplace example.com/x => ./x\n")
	write("plug/plug.go", "package plug\n")
	write("cmd/x.json", "{}")
	m := &manifest{file: filepath.Join(root, "cmd", "x.json")}
	for _, path := range []string{"example.org/gate/plug", "example.org/gate/none", "fmt", "./...", "/etc", "a@v1", "-x", "..."} {
		m.Plugins = append(m.Plugins, plugin{Path: path})
	}
	mod, err := loadModule(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if mod.Path != "example.org/gate" || !slices.Equal(mod.Replaces, []string{"example.com/x"}) {
		t.Errorf("got module %q replacing %q", mod.Path, mod.Replaces)
	}
	if p := mod.Packages["example.org/gate/plug"]; p.Error != nil || p.Name != "plug" || !p.Module.Main {
		t.Errorf("own package: got %+v", p)
	}
	if p := mod.Packages["example.org/gate/none"]; p.Error == nil {
		t.Errorf("missing package: got %+v, want an error", p)
	}
	if p, ok := mod.Packages["fmt"]; !ok || p.Module != nil {
		t.Errorf("standard library: got %+v", p)
	}
	for _, path := range []string{"./...", "/etc", "a@v1", "..."} {
		if p, ok := mod.Packages[path]; ok {
			t.Errorf("%s: got %+v, want nothing", path, p)
		}
	}
}

func TestLoadModuleOutsideAModule(t *testing.T) {
	m := &manifest{file: filepath.Join(t.TempDir(), "x.json")}
	if _, err := loadModule(t.Context(), m); err == nil || !strings.Contains(err.Error(), "lies in no Go module") {
		t.Errorf("got error %v", err)
	}
}
