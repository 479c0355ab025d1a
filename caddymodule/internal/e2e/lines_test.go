package e2e_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// outsidePattern finds a document that is not in the repository.
var outsidePattern = regexp.MustCompile(
	`\b(?:DESIGN|THREATS|STORE|WECHAT|CADDY|HOUSE|FAMILY|VERIFY|CASES)\.md\b`)

// TestDocs_Citations_StayInside: a reader has nothing but the repository.
func TestDocs_Citations_StayInside(t *testing.T) {
	for name, text := range sources(t, ".go", ".md", ".sh", "Caddyfile", ".js", ".py") {
		for _, cited := range outsidePattern.FindAllString(text, -1) {
			t.Errorf("%s cites %s, which is not in the repository: use caddymodule/docs",
				name, cited)
		}
	}
}

func TestDocs_OutsideCitations_AreFound(t *testing.T) {
	const outside = "STORE" + ".md"
	for text, want := range map[string]string{
		"// (docs/stores.md#token).":     "",
		"// RESTORE" + ".md":             "",
		"// (" + outside + " 1.9).":      outside,
		"[x](../shared/" + outside + ")": outside,
	} {
		if got := outsidePattern.FindString(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

const (
	maxColumns = 100
	tabColumns = 4
)

// longLines returns the numbers of the lines that have too many columns. A URL and the
// tag of a field cannot be broken.
func longLines(text string) (numbers []int) {
	for i, line := range strings.Split(text, "\n") {
		columns := utf8.RuneCountInString(line) + (tabColumns-1)*strings.Count(line, "\t")
		tag := strings.HasSuffix(line, "\"`")
		if columns > maxColumns && !strings.Contains(line, "://") && !tag {
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}

// TestStyle_GoLines_FitIn100Columns holds docs/style.md#rules.
func TestStyle_GoLines_FitIn100Columns(t *testing.T) {
	for name, text := range sources(t, ".go") {
		for _, n := range longLines(text) {
			t.Errorf("%s:%d: more than %d columns", name, n, maxColumns)
		}
	}
}

func TestStyle_LongLines_AreFound(t *testing.T) {
	hundred := strings.Repeat("x", maxColumns)
	for _, tt := range []struct {
		name, text string
		want       []int
	}{
		{"fits", hundred, nil},
		{"fits with tabs", "\t\t" + hundred[:92], nil},
		{"characters, not bytes", strings.Repeat("…", maxColumns), nil},
		{"a URL", "// https://example.com/" + hundred, nil},
		{"one too many", hundred + "x", []int{1}},
		{"a tab counts four", "\t" + hundred[:97], []int{1}},
		{"each is found", "x\n" + hundred + "x\n\n" + hundred + "x", []int{2, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := longLines(tt.text); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
