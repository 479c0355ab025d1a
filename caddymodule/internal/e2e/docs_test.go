package e2e_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// docsRoot is where the project's documents are, seen from the module's root.
const docsRoot = "caddymodule/docs"

// repository returns the text of every file by its path from the module's root
// with slashes, where a test reads its kind. Folders that begin with a dot are
// skipped, .github excepted.
var repository = sync.OnceValue(func() map[string]string {
	found := make(map[string]string)
	readable := regexp.MustCompile(`\.(?:go|md|sh|js|py)$|Caddyfile$`)
	err := filepath.WalkDir(moduleRoot, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		from, err := filepath.Rel(moduleRoot, name)
		if err != nil {
			return err
		}
		from = filepath.ToSlash(from)
		if entry.IsDir() {
			if strings.HasPrefix(entry.Name(), ".") && from != "." && from != ".github" {
				return filepath.SkipDir
			}
			return nil
		}
		if readable.MatchString(from) {
			text, err := os.ReadFile(name)
			found[from] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
	return found
})

// sources returns the files of the repository with one of the suffixes.
func sources(tb testing.TB, suffixes ...string) map[string]string {
	tb.Helper()
	found := make(map[string]string)
	for name, text := range repository() {
		ends := func(suffix string) bool { return strings.HasSuffix(name, suffix) }
		if slices.ContainsFunc(suffixes, ends) {
			found[name] = text
		}
	}
	if len(found) == 0 {
		tb.Fatalf("no file ends in any of %q", suffixes)
	}
	return found
}

var (
	anchorPattern = regexp.MustCompile(`<a id="([^"]*)"></a>`)

	// citationPattern finds a document and what is cited of it:
	// docs/threats.md#t1, #t2 and #t6.
	citationPattern = regexp.MustCompile(`\bdocs/([a-z-]+)\.md((?:(?:, | and | to )?#[\w-]+)*)`)
	fragmentPattern = regexp.MustCompile(`#([\w-]+)`)

	linkPattern  = regexp.MustCompile(`\]\(([^()\s#]*)(?:#([^()\s]*))?\)`)
	fencePattern = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	brokenLine   = regexp.MustCompile(`\n[ \t]*(?://[ \t]*)?`)
)

// anchorsIn returns the anchors of every Markdown file, by path.
func anchorsIn(files map[string]string) map[string][]string {
	anchors := make(map[string][]string)
	for name, text := range files {
		anchors[name] = []string{}
		for _, m := range anchorPattern.FindAllStringSubmatch(text, -1) {
			anchors[name] = append(anchors[name], m[1])
		}
	}
	return anchors
}

// badCitations returns the citations in a text that lead to no document or no anchor.
func badCitations(text string, anchors map[string][]string) (bad []string) {
	text = brokenLine.ReplaceAllString(text, " ")
	for _, m := range citationPattern.FindAllStringSubmatch(text, -1) {
		ids, ok := anchors[docsRoot+"/"+m[1]+".md"]
		if !ok {
			bad = append(bad, fmt.Sprintf("docs/%s.md: no such document", m[1]))
			continue
		}
		for _, f := range fragmentPattern.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(ids, f[1]) {
				bad = append(bad, fmt.Sprintf("docs/%s.md#%s: no such anchor", m[1], f[1]))
			}
		}
	}
	return bad
}

// badLinks returns the relative links of a Markdown file that lead to no file
// or no anchor.
func badLinks(
	file, text string, anchors map[string][]string, exists func(string) bool,
) (bad []string) {
	text = fencePattern.ReplaceAllString(text, "")
	for _, m := range linkPattern.FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], ":") {
			continue // another place
		}
		target := file
		if m[1] != "" {
			target = path.Join(path.Dir(file), m[1])
		}
		switch ids, isText := anchors[target]; {
		case !exists(target):
			bad = append(bad, fmt.Sprintf("%s: no such file", m[1]))
		case m[2] != "" && (!isText || !slices.Contains(ids, m[2])):
			bad = append(bad, fmt.Sprintf("%s#%s: no such anchor", m[1], m[2]))
		}
	}
	return bad
}

// TestDocs_Citations_LeadToAnchors follows every citation in Go and Markdown
// files, and every relative link in Markdown files.
func TestDocs_Citations_LeadToAnchors(t *testing.T) {
	pages := sources(t, ".md")
	anchors := anchorsIn(pages)
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(moduleRoot, name))
		return err == nil
	}
	for name, text := range pages {
		for _, bad := range badLinks(name, text, anchors, exists) {
			t.Errorf("%s links to %s", name, bad)
		}
	}
	maps.Copy(pages, sources(t, ".go"))
	delete(pages, "caddymodule/internal/e2e/docs_test.go") // holds bad ones, for its tables
	for name, text := range pages {
		for _, bad := range badCitations(text, anchors) {
			t.Errorf("%s cites %s", name, bad)
		}
	}
}

// TestDocs_Anchors_AreUnique: a link leads to the first of two anchors with one name.
func TestDocs_Anchors_AreUnique(t *testing.T) {
	for name, ids := range anchorsIn(sources(t, ".md")) {
		slices.Sort(ids)
		for i := range ids[min(1, len(ids)):] {
			if ids[i] == ids[i+1] {
				t.Errorf("%s has two anchors %q", name, ids[i])
			}
		}
	}
}

func TestDocs_BadCitations_AreFound(t *testing.T) {
	anchors := anchorsIn(map[string]string{
		docsRoot + "/threats.md": `<a id="t1"></a> <a id="t26"></a>`,
	})
	for text, want := range map[string]string{
		"no citation at all":                  "",
		"// (docs/threats.md#t1).":            "",
		"// (docs/threats.md#t1, #t26).":      "",
		"// (docs/threats.md#t1,\n\t// #t26)": "",
		"// rows of docs/threats.md that":     "",
		"// (docs/threats.md#t2).":            "docs/threats.md#t2: no such anchor",
		"// docs/threats.md#t1 and #t27":      "docs/threats.md#t27: no such anchor",
		"// docs/threats.md#t1 to\n// #t5":    "docs/threats.md#t5: no such anchor",
		"// (docs/treats.md#t1).":             "docs/treats.md: no such document",
		"// see docs/treats.md":               "docs/treats.md: no such document",
	} {
		if got := strings.Join(badCitations(text, anchors), "; "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestDocs_BadLinks_AreFound(t *testing.T) {
	anchors := anchorsIn(map[string]string{
		"a/here.md": `<a id="top"></a>`, "b/there.md": `<a id="x"></a>`,
	})
	exists := func(name string) bool { _, ok := anchors[name]; return ok || name == "b" }
	for text, want := range map[string]string{
		"[x](#top)":                      "",
		"[x](../b/there.md#x)":           "",
		"[x](../b)":                      "",
		"[x](https://example.com/y#z)":   "",
		"```\n[x](nowhere.md)\n```\n":    "",
		"[x](#bottom)":                   "#bottom: no such anchor",
		"[x](../b/there.md#y)":           "../b/there.md#y: no such anchor",
		"[x](there.md)":                  "there.md: no such file",
		"[x](../b#x)":                    "../b#x: no such anchor",
		"```\nx\n```\n\n[x](nowhere.md)": "nowhere.md: no such file",
	} {
		if got := strings.Join(badLinks("a/here.md", text, anchors, exists), "; "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
