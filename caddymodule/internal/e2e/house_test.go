package e2e_test

import (
	"fmt"
	"go/build"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
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
	"cmd/internal/webtest":    {},
	"cmd/wxsim":               {ours: []string{"cmd/internal/wxsim"}},
	"cmd/internal/wxsim":      {ours: []string{"caddymodule/weixintest"}},
	"cmd/wxbuild":             {foreign: []string{"github.com/caddyserver/xcaddy"}},

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

// goPackage is a package of this module, test files apart.
type goPackage struct {
	Name    string
	GoFiles []string
	Docs    []string // its package comments
	Imports []string
}

// modulePath begins the import path of every package of this module.
const modulePath = "github.com/wxgate/wxgate/"

// packages reads the module's packages, by place: the directory seen from the
// module's root, which is the key of the table.
var packages = sync.OnceValues(func() (map[string]*goPackage, error) {
	found := make(map[string]*goPackage)
	for name, text := range repository() {
		dir, file := path.Split(name)
		ours, err := build.Default.MatchFile(filepath.Join(moduleRoot, dir), file)
		if err != nil {
			return nil, err
		}
		if !ours || strings.HasSuffix(file, "_test.go") || strings.Contains(name, "testdata/") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, text,
			parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return nil, err
		}
		place := strings.TrimSuffix(dir, "/")
		if found[place] == nil {
			found[place] = &goPackage{Name: parsed.Name.Name}
		}
		p := found[place]
		p.GoFiles = append(p.GoFiles, file)
		if parsed.Doc != nil {
			p.Docs = append(p.Docs, parsed.Doc.Text())
		}
		for _, spec := range parsed.Imports {
			if name, _ := strconv.Unquote(spec.Path.Value); !slices.Contains(p.Imports, name) {
				p.Imports = append(p.Imports, name)
			}
		}
	}
	return found, nil
})

// listedPackages returns the packages.
func listedPackages(t *testing.T) map[string]*goPackage {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestArrowsPointDown(t *testing.T) {
	for _, complaint := range complaints(listedPackages(t)) {
		t.Error(complaint)
	}
}

// complaints holds every package of the module against its row.
func complaints(all map[string]*goPackage) (found []string) {
	complain := func(format string, args ...any) {
		found = append(found, fmt.Sprintf(format, args...))
	}
	for place, p := range all {
		r, placed := house[place]
		if !placed {
			complain("%s is not in the table: say there what it may import, and in "+
				"caddymodule/README.md what it owns", place)
			continue
		}
		code := func(name string) bool { return name != "doc.go" }
		if r.tests && slices.ContainsFunc(p.GoFiles, code) {
			complain("%s holds tests only, but has %q", place, p.GoFiles)
		}
		if strings.HasPrefix(place, internalRoot+"/") && !r.caddy {
			if through := wayToCaddy(all, place); through != "" {
				complain("%s depends on %s, and nothing in there may know of Caddy", place, through)
			}
		}
		for _, name := range p.Imports {
			dep, own := strings.CutPrefix(name, modulePath)
			first, _, _ := strings.Cut(name, "/")
			within := func(module string) bool {
				return name == module || strings.HasPrefix(name, module+"/")
			}
			switch {
			case own:
				if !slices.Contains(r.ours, strings.TrimPrefix(dep, internalRoot+"/")) {
					complain("%s imports %s, which is not below it", place, dep)
				}
			case !strings.Contains(first, "."): // the standard library
			case !slices.Contains(r.foreign, anyModule) && !slices.ContainsFunc(r.foreign, within):
				complain("%s imports %s: its row allows the standard library and %q", place, name,
					r.foreign)
			}
		}
	}
	slices.Sort(found)
	return found
}

// wayToCaddy returns a package of Caddy that one of ours imports, itself or by others
// of ours.
func wayToCaddy(all map[string]*goPackage, place string) string {
	if all[place] == nil {
		return ""
	}
	for _, name := range all[place].Imports {
		if isCaddy(name) {
			return name
		}
		if dep, own := strings.CutPrefix(name, modulePath); own {
			if through := wayToCaddy(all, dep); through != "" {
				return through
			}
		}
	}
	return ""
}

func isCaddy(importPath string) bool {
	return importPath == caddyModule || strings.HasPrefix(importPath, caddyModule+"/")
}

// TestArrowsAreJudged shows that the judge of TestArrowsPointDown is not blind.
func TestArrowsAreJudged(t *testing.T) {
	ours := strings.TrimSuffix(modulePath, "/")
	tests := []struct {
		place   string
		files   []string
		imports []string
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
			place: internalRoot + "/store/bolt", imports: []string{"example.org/x"},
			want: "its row allows the standard library",
		},
		{place: internalRoot + "/limit", imports: []string{"golang.org/x/time/rate"}},
		{
			place: internalRoot + "/limit", imports: []string{ours + "/" + internalRoot + "/block"},
			want: "limit depends on " + caddyModule + ", and nothing in there may know of Caddy",
		},
		{
			place:   "caddymodule/wechatapp",
			imports: []string{caddyModule, ours + "/" + internalRoot + "/session"},
		},
		{
			place: "caddymodule/wechatapp", imports: []string{ours + "/caddymodule/wechatauth"},
			want: "which is not below it",
		},
		{place: internalRoot + "/block", imports: []string{caddyModule}},
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
	for _, tt := range tests {
		all := make(map[string]*goPackage)
		for place := range house {
			all[place] = &goPackage{}
		}
		all[internalRoot+"/block"].Imports = []string{caddyModule}
		all[tt.place] = &goPackage{GoFiles: tt.files, Imports: tt.imports}
		got := strings.Join(complaints(all), "\n")
		if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s importing %q: got %q, want %q", tt.place, tt.imports, got, tt.want)
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	for place, p := range listedPackages(t) {
		want := []string{"Package " + p.Name + " "}
		if p.Name == "main" {
			name := path.Base(place)
			want = []string{"Command " + name + " ", strings.ToUpper(name[:1]) + name[1:] + " "}
		}
		begins := func(prefix string) bool { return strings.HasPrefix(p.Docs[0], prefix) }
		if len(p.Docs) != 1 || !slices.ContainsFunc(want, begins) {
			t.Errorf("%s: want exactly one package comment, beginning with one of %q; got %q",
				place, want, p.Docs)
		}
	}
}

// TestHouse_ManyFiles_HaveAReason holds that a package is small, or says why not.
func TestHouse_ManyFiles_HaveAReason(t *testing.T) {
	for place, p := range listedPackages(t) {
		if len(p.GoFiles) > maxFiles && !strings.Contains(strings.Join(p.Docs, ""), "files") {
			t.Errorf("%s has %d files, and its comment does not say why", place, len(p.GoFiles))
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
	entries, err := os.ReadDir(moduleRoot)
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := os.ReadFile(filepath.Join(moduleRoot, ".gitignore"))
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
