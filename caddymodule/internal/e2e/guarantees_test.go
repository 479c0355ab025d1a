package e2e_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

const guaranteesPage = "caddymodule/docs/guarantees.md"

var (
	// testName finds the names of tests that a document quotes.
	testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)`")

	promiseOrThreat = regexp.MustCompile(`^[pt]\d+$`)
)

// untested returns the anchors of promises and threats that no row of a page
// proves: a row links to them and names a test.
func untested(page string, anchors []string) (missing []string) {
	var rows []string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "|") && testName.MatchString(line) {
			rows = append(rows, line)
		}
	}
	for _, id := range anchors {
		links := func(row string) bool { return strings.Contains(row, "#"+id+")") }
		if promiseOrThreat.MatchString(id) && !slices.ContainsFunc(rows, links) {
			missing = append(missing, id)
		}
	}
	return missing
}

// TestReference_Guarantees_HaveTests: each promise of design.md and each attack of
// threats.md has its row in guarantees.md with a test, and each test named in a
// document exists.
func TestReference_Guarantees_HaveTests(t *testing.T) {
	pages := sources(t, ".md")
	anchors := anchorsIn(pages)
	known := slices.Concat(anchors[docsRoot+"/design.md"], anchors[docsRoot+"/threats.md"])
	if missing := untested(pages[guaranteesPage], known); len(missing) > 0 {
		t.Errorf("%s has no row with a test for %q", guaranteesPage, missing)
	}
	have := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	for _, text := range sources(t, "_test.go") {
		for _, m := range declared.FindAllStringSubmatch(text, -1) {
			have[m[1]] = true
		}
	}
	delete(pages, docsRoot+"/style.md") // has names that show how to name
	delete(pages, ".github/CONTRIBUTING.md")
	for name, text := range pages {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if !have[m[1]] {
				t.Errorf("%s names %s, which does not exist", name, m[1])
			}
		}
	}
}

func TestReference_MissingGuarantees_AreFound(t *testing.T) {
	const page = "| [1](threats.md#t1), [2](threats.md#t2) | holds | `TestX` |\n" +
		"| [3](threats.md#t3) | holds |\nsee [4](threats.md#t4) and `TestX`\n"
	got := strings.Join(untested(page, []string{"top", "t1", "t2", "t3", "t4", "p1"}), " ")
	if want := "t3 t4 p1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
