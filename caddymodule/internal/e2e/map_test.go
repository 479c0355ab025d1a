package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// mapFunction finds a file of the map with a function in it, or a method of a type.
	mapFunction = regexp.MustCompile("`([\\w/]+\\.go)`: `(?:(\\w+)\\.)?(\\w+)`")

	// mapFolder finds the folder that a row of the map is about.
	mapFolder = regexp.MustCompile("(?m)^\\| `([\\w/]+)` \\|")
)

// badPlaces returns what a map names and the files of caddymodule do not have.
func badPlaces(text string, files map[string]string) (bad []string) {
	for _, m := range mapFunction.FindAllStringSubmatch(text, -1) {
		declaration := `(?m)^func ` + m[3] + `\b`
		if m[2] != "" {
			declaration = `(?m)^func \((?:\w+ )?\*?` + m[2] + `\) ` + m[3] + `\(`
		}
		switch code, ok := files["caddymodule/"+m[1]]; {
		case !ok:
			bad = append(bad, "no file "+m[1])
		case !regexp.MustCompile(declaration).MatchString(code):
			function := strings.TrimPrefix(m[2]+"."+m[3], ".")
			bad = append(bad, fmt.Sprintf("no %s in %s", function, m[1]))
		}
	}
	for _, m := range mapFolder.FindAllStringSubmatch(text, -1) {
		in := func(name string) bool { return strings.HasPrefix(name, "caddymodule/"+m[1]+"/") }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(files)), in) {
			bad = append(bad, "no folder "+m[1])
		}
	}
	return bad
}

// TestMap_Places_Exist: the map of the code names files, functions and folders that are there.
func TestMap_Places_Exist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(moduleRoot, "caddymodule/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	files := sources(t, ".go")
	for _, bad := range badPlaces(string(text), files) {
		t.Errorf("the map names %s", bad)
	}
	if n := len(mapFunction.FindAllString(string(text), -1)); n < 10 {
		t.Errorf("the map names %d functions only", n)
	}
}

func TestMap_BadPlaces_AreFound(t *testing.T) {
	files := map[string]string{
		"caddymodule/a/b.go": "package a\n\nfunc F() {}\n\nfunc (x *T) M(n int) {}\n",
	}
	for text, want := range map[string]string{
		"`a/b.go`: `F`":           "",
		"`a/b.go`: `T.M`":         "",
		"| `a` | the letter |":    "",
		"`a/c.go`: `F`":           "no file a/c.go",
		"`a/b.go`: `G`":           "no G in a/b.go",
		"`a/b.go`: `T.F`":         "no T.F in a/b.go",
		"`a/b.go`: `M`":           "no M in a/b.go",
		"| `c/d` | two letters |": "no folder c/d",
	} {
		if got := strings.Join(badPlaces(text, files), "; "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
