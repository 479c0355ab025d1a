package e2e_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
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

// logLinesOf returns the lines of the log that the reference explains.
func logLinesOf(reference string) (lines []string) {
	_, rest, _ := strings.Cut(reference, `<a id="log-lines"></a>`)
	table, _, _ := strings.Cut(rest, "<a id=")
	for row := range strings.Lines(table) {
		if !strings.HasPrefix(row, "| `") {
			continue
		}
		cell, _, _ := strings.Cut(row[2:], " |")
		for i, part := range strings.Split(cell, "`") {
			if i%2 == 1 {
				lines = append(lines, part)
			}
		}
	}
	return slices.DeleteFunc(lines, func(s string) bool { return !strings.Contains(s, " ") })
}

// writes reports whether the code writes a line that begins so. Outages make theirs of a subject
// and one of two endings.
func writes(code, line string) bool {
	for _, ending := range []string{" is unavailable", " is back"} {
		subject, ok := strings.CutSuffix(line, ending)
		if ok && strings.Contains(code, `"`+subject+`"`) {
			return true
		}
	}
	return strings.Contains(code, `"`+line)
}

// TestReference_LogLines_AreWritten: an operator searches the reference for the line in the log.
func TestReference_LogLines_AreWritten(t *testing.T) {
	var code strings.Builder
	for name, text := range sources(t, ".go") {
		if !strings.HasSuffix(name, "_test.go") {
			code.WriteString(text)
		}
	}
	lines := logLinesOf(manual(t, "caddymodule/docs/reference.md"))
	if len(lines) < 10 {
		t.Errorf("found %q only", lines)
	}
	for _, line := range lines {
		if !writes(code.String(), line) {
			t.Errorf("no log line begins with %q", line)
		}
	}
	if writes(code.String(), "no such line") {
		t.Error("any line passes")
	}
}
