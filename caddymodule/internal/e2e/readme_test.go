package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func readme(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(moduleRoot, "README.md"))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// fenced finds the blocks of a language in Markdown.
func fenced(text, language string) (blocks []string) {
	for {
		_, rest, ok := strings.Cut(text, "```"+language+"\n")
		if !ok {
			return blocks
		}
		block, rest, ok := strings.Cut(rest, "```")
		if !ok {
			return blocks
		}
		blocks, text = append(blocks, block), rest
	}
}

func TestReadme_CaddyfilesAdapt(t *testing.T) {
	blocks := fenced(readme(t), "caddyfile")
	if len(blocks) == 0 {
		t.Error("there is none")
	}
	for _, block := range blocks {
		if _, err := adapt(block); err != nil {
			t.Errorf("%v in\n%s", err, block)
		}
	}
}

// standsHere reads the words that a block knows from the error about one that it does not know.
func standsHere(t *testing.T, text string) (words []string) {
	t.Helper()
	_, err := adapt(text)
	if err == nil {
		t.Fatalf("it adapts:\n%s", text)
	}
	_, list, ok := strings.Cut(err.Error(), "expected ")
	list, _, _ = strings.Cut(list, ", at ")
	if !ok {
		t.Fatalf("the error is another: %v", err)
	}
	for word := range strings.FieldsSeq(strings.ReplaceAll(list, ",", " ")) {
		if word != "or" {
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return words
}

// TestReadme_OptionTables: the tables name exactly the words that the parser knows.
func TestReadme_OptionTables(t *testing.T) {
	const (
		unknown  = "no_such_word"
		app      = "app " + appA + " {env.X}\n"
		anywhere = "{\nwechat {\n" + app + "}\n}\n"
	)
	for _, tt := range []struct {
		heading string
		around  func(lines string) string // a Caddyfile with lines in the block that the table is about
		open    map[string]string         // how a line begins that has a block of its own
	}{
		{"Global, in the block `wechat`:", func(lines string) string { return "{\nwechat {\n" + app + lines + "\n}\n}\n" }, map[string]string{"login_rate": "login_rate 30/m"}},
		{"In the block `wechat_api`:", func(lines string) string { return anywhere + "x.example {\nwechat_api {\n" + lines + "\n}\n}\n" }, nil},
		{"Per site, in the block `wechat_auth`:", func(lines string) string { return anywhere + "x.example {\nwechat_auth {\n" + lines + "\n}\n}\n" }, nil},
	} {
		t.Run(tt.heading, func(t *testing.T) {
			table := optionTable(t, readme(t), tt.heading)
			if got, want := keys(table), standsHere(t, tt.around(unknown)); !slices.Equal(got, want) {
				t.Errorf("the table names %q, the parser knows %q", got, want)
			}
			for word, inner := range table {
				begin := word
				if tt.open[word] != "" {
					begin = tt.open[word]
				}
				_, err := adapt(tt.around(begin + " {\n" + unknown + "\n}"))
				if hasBlock := err != nil && strings.Contains(err.Error(), "expected "); !hasBlock {
					if len(inner) > 0 {
						t.Errorf("the table gives %s the words %q, the parser none", word, inner)
					}
					continue
				}
				want := standsHere(t, tt.around(begin+" {\n"+unknown+"\n}"))
				if slices.Sort(inner); !slices.Equal(inner, want) {
					t.Errorf("the table gives %s the words %q, the parser knows %q", word, inner, want)
				}
			}
		})
	}
}

var (
	cellPattern = regexp.MustCompile("^\\| `((?:[^`])+)` \\|")
	wordPattern = regexp.MustCompile(`^[a-z][a-z_]*$`)
)

// optionTable reads the first column of the table below a heading: words of lines, and of each the words of its block.
func optionTable(t *testing.T, text, heading string) map[string][]string {
	t.Helper()
	_, rest, ok := strings.Cut(text, heading)
	if !ok {
		t.Fatalf("there is no %q", heading)
	}
	table := make(map[string][]string)
	for line := range strings.Lines(strings.TrimLeft(rest, "\n")) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cell := cellPattern.FindStringSubmatch(line)
		if cell == nil {
			continue // head and rule
		}
		outer, inner, _ := strings.Cut(cell[1], "{")
		word, _, _ := strings.Cut(outer, " ")
		table[word] = append(table[word], slices.DeleteFunc(strings.Fields(inner), func(w string) bool { return !wordPattern.MatchString(w) })...)
	}
	return table
}

// TestReadme_Endpoints: the tables of codes and endpoints name what the gate answers.
func TestReadme_Endpoints(t *testing.T) {
	text := readme(t)
	for _, code := range []string{
		"session_missing", "session_invalid", "code_invalid", "code_used", "wechat_unavailable", "store_unavailable", "rate_limited", "user_blocked", "app_not_allowed",
		"invalid_request", "ambiguous_credentials", "not_found", "misconfigured", "data_invalid",
		"call_not_allowed", "caller_not_allowed", "user_unknown", "session_key_stale", "data_invalid", "order_invalid", "identity_missing", "identity_refused",
	} {
		if !strings.Contains(text, "`"+code+"`") {
			t.Errorf("%s is not told", code)
		}
	}
	for _, file := range regexp.MustCompile(`\]\(([a-zA-Z./_-]+)\)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(moduleRoot, file[1])); err != nil {
			t.Errorf("a link leads nowhere: %v", err)
		}
	}
}
