package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// internalRoot is the directory of the packages that know nothing of Caddy,
// seen from the module's root.
const internalRoot = "caddymodule/internal"

const caddyModule = "github.com/caddyserver/caddy/v2"

// maxFiles is the largest number of files a package may have without a reason in
// its package comment, tests apart.
const maxFiles = 14

// row says what a package may import, test files apart.
type row struct {
	ours    []string // packages of this module, by place; names without a slash are in internalRoot
	foreign []string // modules, or {anyModule}
	caddy   bool     // a package in internalRoot may know Caddy
	tests   bool     // holds tests only, and a doc.go
}

// anyModule in a row's foreign modules leaves the choice to go.mod.
const anyModule = "*"

// house is the table of rooms (caddymodule/README.md): arrows point down only.
var house = map[string]row{
	"cmd/wxgate": {
		ours: []string{
			"cmd/internal/playground", "cmd/internal/wxsim",
			"caddymodule", "caddymodule/command", "caddymodule/logformat",
			"caddymodule/redisstore", "caddymodule/weixintest",
		},
		foreign: []string{anyModule},
	},
	"cmd/internal/playground": {ours: []string{"caddymodule/weixintest"}},
	"cmd/wxsim":          {ours: []string{"cmd/internal/wxsim"}},
	"cmd/internal/wxsim": {ours: []string{"caddymodule/weixintest"}},
	"cmd/wxbuild":        {foreign: []string{"github.com/caddyserver/xcaddy"}},

	"caddymodule": {ours: []string{
		"caddymodule/admin", "caddymodule/command", "caddymodule/logformat",
		"caddymodule/wechatapi", "caddymodule/wechatapp", "caddymodule/wechatauth",
	}},
	"caddymodule/admin": {
		ours: []string{
			"caddymodule/wechatapp", "assertion", "component",
			"cli", "keyring", "reply", "session", "store", "store/bolt", "weixin",
		},
		foreign: []string{anyModule},
	},
	"caddymodule/command": {
		ours: []string{
			"caddymodule/admin", "caddymodule/wechatapp", "caddymodule/wechatauth",
			"assertion", "cli", "component", "judge", "keyring", "probe", "session", "store",
			"store/bolt", "weixin",
		},
		foreign: []string{anyModule},
	},
	"caddymodule/wechatauth": {
		ours: []string{
			"caddymodule/wechatapp", "assertion", "block", "component", "gate", "judge", "keyring",
			"limit", "pushbox", "reply", "session", "store", "weixin/push",
		},
		foreign: []string{anyModule},
	},
	"caddymodule/wechatapi": {
		ours: []string{
			"caddymodule/wechatapp", "block", "gate", "reply", "session", "store", "weixin",
		},
		foreign: []string{anyModule},
	},
	"caddymodule/wechatapp": {
		ours: []string{
			"caddymodule/logformat",
			"assertion", "block", "component", "judge", "keyring", "limit", "pushbox", "session",
			"store", "store/bolt", "weixin", "weixin/push",
		},
		foreign: []string{anyModule},
	},
	"caddymodule/logformat": {ours: []string{"block", "keyring"}, foreign: []string{anyModule}},
	"caddymodule/redisstore": {
		ours: []string{"block", "store", "store/redis"}, foreign: []string{anyModule},
	},
	"caddymodule/weixintest": {},

	internalRoot + "/reply": {
		ours: []string{"session", "weixin"}, foreign: []string{"go.uber.org/zap"},
	},
	internalRoot + "/judge": {foreign: []string{caddyModule}, caddy: true},
	internalRoot + "/block": {foreign: []string{caddyModule}, caddy: true},
	internalRoot + "/cli": {
		foreign: []string{"github.com/spf13/cobra", "golang.org/x/term"},
	},
	internalRoot + "/caddytest": {
		ours: []string{"keyring", "store", "store/bolt", "weixin"}, foreign: []string{anyModule},
		caddy: true,
	},
	internalRoot + "/apptest": {
		ours: []string{
			"caddymodule/wechatapp", "caddytest", "keyring", "session", "store", "store/bolt",
		},
		foreign: []string{anyModule}, caddy: true,
	},
	internalRoot + "/session": {
		ours: []string{
			"keyring", "span", "store",
			"weixin", "weixin/opendata",
		},
		foreign: []string{
			"github.com/dgraph-io/ristretto/v2", "go.uber.org/zap", "golang.org/x/sync",
			"golang.org/x/time",
		},
	},
	internalRoot + "/assertion": {
		ours:    []string{"keyring", "store"},
		foreign: []string{"github.com/go-jose/go-jose/v4"},
	},
	internalRoot + "/component": {
		ours:    []string{"keyring", "store", "weixin", "weixin/push"},
		foreign: []string{"go.uber.org/zap", "golang.org/x/sync"},
	},
	internalRoot + "/keyring": {},
	internalRoot + "/pushbox": {ours: []string{"keyring", "store"}},
	internalRoot + "/span": {
		foreign: []string{"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/trace"},
	},
	internalRoot + "/store": {foreign: []string{"go.uber.org/zap"}},
	internalRoot + "/store/bolt": {
		ours:    []string{"store"},
		foreign: []string{"go.etcd.io/bbolt", "go.uber.org/zap", "golang.org/x/time"},
	},
	internalRoot + "/store/redis": {
		ours:    []string{"store"},
		foreign: []string{"github.com/redis/rueidis", "go.uber.org/zap", "golang.org/x/time"},
	},
	internalRoot + "/store/memstore":  {ours: []string{"store"}},
	internalRoot + "/store/redistest": {foreign: []string{"github.com/redis/rueidis"}},
	internalRoot + "/store/storetest": {
		ours:    []string{"store"},
		foreign: []string{"pgregory.net/rapid"},
	},
	internalRoot + "/gate":  {},
	internalRoot + "/limit": {foreign: []string{"golang.org/x/time"}},
	internalRoot + "/probe": {foreign: []string{"golang.org/x/net"}},
	internalRoot + "/weixin": {
		ours:    []string{"span", "weixin/opendata"},
		foreign: []string{"github.com/sony/gobreaker/v2", "golang.org/x/sync", "golang.org/x/time"},
	},
	internalRoot + "/weixin/opendata": {},
	internalRoot + "/weixin/push":     {},

	internalRoot + "/e2e": {tests: true},
	"examples":            {tests: true},
	"examples/apps/go":    {foreign: []string{"go.etcd.io/bbolt"}},
}

// goPackage is what go list says of a package.
type goPackage struct {
	Dir, ImportPath, Name string
	GoFiles               []string
	Imports, Deps         []string
	Standard              bool
	Module                *goModule
}

type goModule struct {
	Path, Dir string
	Main      bool
}

// packages lists the module's packages and all that they depend on, by import
// path. Every test here needs the list and it takes seconds.
var packages = sync.OnceValues(func() (map[string]*goPackage, error) {
	cmd := exec.Command(
		"go", "list", "-deps", "-json=Dir,ImportPath,Name,GoFiles,Imports,Deps,Standard,Module",
		"./...",
	)
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("finding the module: %w", err)
	}
	cmd.Dir = strings.TrimSpace(string(root))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w\n%s", err, &stderr)
	}
	listed := make(map[string]*goPackage)
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		p := new(goPackage)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return listed, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading go list's answer: %w", err)
		}
		listed[p.ImportPath] = p
	}
})

// listedPackages returns the packages and the module's root.
func listedPackages(t *testing.T) (all map[string]*goPackage, root string) {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.own() {
			return all, p.Module.Dir
		}
	}
	t.Fatal("go list names no package of this module")
	return nil, ""
}

func (p *goPackage) own() bool { return p.Module != nil && p.Module.Main }

// place is the package's directory seen from the module's root, the key of the table.
func (p *goPackage) place() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/")
}

func TestArrowsPointDown(t *testing.T) {
	all, _ := listedPackages(t)
	for _, complaint := range complaints(all) {
		t.Error(complaint)
	}
}

// complaints holds every package of the module against its row.
func complaints(all map[string]*goPackage) []string {
	var found []string
	for _, p := range all {
		if !p.own() {
			continue
		}
		r, placed := house[p.place()]
		if !placed {
			found = append(
				found,
				fmt.Sprintf(
					"%s is not in the table: say there what it may import, "+
						"and in caddymodule/README.md what it owns",
					p.place(),
				),
			)
			continue
		}
		code := func(name string) bool { return name != "doc.go" }
		if r.tests && slices.ContainsFunc(p.GoFiles, code) {
			found = append(
				found, fmt.Sprintf("%s holds tests only, but has %q", p.place(), p.GoFiles),
			)
		}
		if strings.HasPrefix(p.place(), internalRoot+"/") && !r.caddy {
			if i := slices.IndexFunc(p.Deps, isCaddy); i >= 0 {
				found = append(
					found,
					fmt.Sprintf(
						"%s depends on %s, and nothing in there may know of Caddy", p.place(),
						p.Deps[i],
					),
				)
			}
		}
		found = append(found, badImports(all, p, r)...)
	}
	slices.Sort(found)
	return found
}

func badImports(all map[string]*goPackage, p *goPackage, r row) []string {
	var found []string
	for _, name := range p.Imports {
		dep := all[name]
		switch {
		case dep == nil || dep.Standard: // "C" and "unsafe" are not listed
		case dep.own():
			if !slices.Contains(r.ours, strings.TrimPrefix(dep.place(), internalRoot+"/")) {
				found = append(
					found,
					fmt.Sprintf("%s imports %s, which is not below it", p.place(), dep.place()),
				)
			}
		case !slices.Contains(r.foreign, anyModule) && !slices.Contains(r.foreign, dep.Module.Path):
			found = append(
				found,
				fmt.Sprintf(
					"%s imports %s: its row allows the standard library and %q", p.place(), name,
					r.foreign,
				),
			)
		}
	}
	return found
}

func isCaddy(importPath string) bool {
	return importPath == caddyModule || strings.HasPrefix(importPath, caddyModule+"/")
}

// TestArrowsAreJudged shows that the judge of TestArrowsPointDown is not blind.
func TestArrowsAreJudged(t *testing.T) {
	const ours = "example.org/x"
	tests := []struct {
		place   string
		files   []string
		imports []string
		deps    []string
		want    string
	}{
		{place: internalRoot + "/gate", imports: []string{"net/http"}},
		{
			place: internalRoot + "/gate", imports: []string{ours + "/" + internalRoot + "/store"},
			want: "gate imports " + internalRoot + "/store, which is not below it",
		},
		{place: internalRoot + "/session", imports: []string{ours + "/" + internalRoot + "/store"}},
		{
			place:   internalRoot + "/session",
			imports: []string{ours + "/" + internalRoot + "/gate"}, want: "which is not below it",
		},
		{
			place: internalRoot + "/store", imports: []string{ours + "/caddymodule"},
			want: "which is not below it",
		},
		{
			place: internalRoot + "/store/bolt", imports: []string{caddyModule},
			want: "its row allows the standard library",
		},
		{
			place: internalRoot + "/limit", deps: []string{caddyModule + "/modules/caddyhttp"},
			want: "may know of Caddy",
		},
		{
			place:   "caddymodule/wechatapp",
			imports: []string{caddyModule, ours + "/" + internalRoot + "/session"},
		},
		{
			place: "caddymodule/wechatapp", imports: []string{ours + "/caddymodule/wechatauth"},
			want: "which is not below it",
		},
		{
			place: internalRoot + "/block", imports: []string{caddyModule},
			deps: []string{caddyModule},
		},
		{
			place: "caddymodule", imports: []string{ours + "/caddymodule/weixintest"},
			want: "which is not below it",
		},
		{
			place: "cmd/wxgate", imports: []string{ours + "/" + internalRoot + "/session"},
			want: "which is not below it",
		},
		{
			place: "cmd/wxbuild", imports: []string{caddyModule},
			want: "its row allows the standard library",
		},
		{place: internalRoot + "/e2e", files: []string{"doc.go"}},
		{
			place: internalRoot + "/e2e", files: []string{"doc.go", "help.go"},
			want: "holds tests only",
		},
		{place: internalRoot + "/newcomer", want: "is not in the table"},
	}
	module := &goModule{Path: ours, Main: true}
	for _, tt := range tests {
		all := map[string]*goPackage{
			"net/http":  {ImportPath: "net/http", Standard: true},
			caddyModule: {ImportPath: caddyModule, Module: &goModule{Path: caddyModule}},
		}
		for place := range house {
			all[ours+"/"+place] = &goPackage{ImportPath: ours + "/" + place, Module: module}
		}
		all[ours+"/"+tt.place] = &goPackage{
			ImportPath: ours + "/" + tt.place, Module: module,
			GoFiles: tt.files, Imports: tt.imports, Deps: tt.deps,
		}
		got := complaints(all)
		switch {
		case tt.want == "" && len(got) > 0:
			t.Errorf("%s importing %q: got %q, want no complaint", tt.place, tt.imports, got)
		case tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)):
			t.Errorf("%s importing %q: got %q, want %q", tt.place, tt.imports, got, tt.want)
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	all, _ := listedPackages(t)
	for _, p := range all {
		if !p.own() || len(p.GoFiles) == 0 {
			continue
		}
		want := []string{"Package " + p.Name + " "}
		if p.Name == "main" {
			name := path.Base(p.ImportPath)
			want = []string{"Command " + name + " ", strings.ToUpper(name[:1]) + name[1:] + " "}
		}
		var comments []string
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(
				token.NewFileSet(), filepath.Join(p.Dir, name), nil,
				parser.PackageClauseOnly|parser.ParseComments,
			)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil {
				firstLine, _, _ := strings.Cut(file.Doc.Text(), "\n")
				comments = append(comments, firstLine)
			}
		}
		begins := func(prefix string) bool { return strings.HasPrefix(comments[0], prefix) }
		if len(comments) != 1 || !slices.ContainsFunc(want, begins) {
			t.Errorf(
				"%s: want exactly one package comment, beginning with one of %q; got %q", p.place(),
				want, comments,
			)
		}
	}
}

// TestHouse_ManyFiles_HaveAReason holds that a package is small, or says why not.
func TestHouse_ManyFiles_HaveAReason(t *testing.T) {
	all, _ := listedPackages(t)
	for _, p := range all {
		if !p.own() || len(p.GoFiles) <= maxFiles {
			continue
		}
		doc := ""
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(
				token.NewFileSet(), filepath.Join(p.Dir, name), nil,
				parser.PackageClauseOnly|parser.ParseComments,
			)
			if err != nil {
				t.Fatal(err)
			}
			doc += file.Doc.Text()
		}
		if !strings.Contains(doc, "files") {
			t.Errorf("%s has %d files, and its comment does not say why", p.place(), len(p.GoFiles))
		}
	}
}

// topLevel is what docs/design.md#packages puts at the top.
var topLevel = []string{
	strings.Split(internalRoot, "/")[0], "caddymodule", "cmd", "examples", "Caddyfile", "go.mod",
	"go.sum", "README.md", "README.zh-CN.md", "xcaddy.json", "LICENSE",
}

// TestTopLevelIsTidy looks past names beginning with a dot and past what
// .gitignore lists, such as a program just built.
func TestTopLevelIsTidy(t *testing.T) {
	_, root := listedPackages(t)
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, ".") && !slices.Contains(topLevel, name) &&
			!matchesAny(t, string(ignored), name) {
			t.Errorf("%s is at the top, where docs/design.md#packages has only %q", name, topLevel)
		}
	}
}

// matchesAny understands the plain patterns that this repository's .gitignore keeps to.
func matchesAny(t *testing.T, gitignore, name string) bool {
	t.Helper()
	for line := range strings.Lines(gitignore) {
		pattern := strings.Trim(strings.TrimSpace(line), "/")
		if pattern == "" || strings.HasPrefix(pattern, "#") {
			continue
		}
		ok, err := path.Match(pattern, name)
		if err != nil {
			t.Fatalf(".gitignore: %q: %v", pattern, err)
		}
		if ok {
			return true
		}
	}
	return false
}
