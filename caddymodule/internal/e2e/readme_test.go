package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// manuals are what users read, seen from the module's root.
var manuals = []string{"README.md", "README.zh-CN.md", "caddymodule/docs/reference.md"}

// readme returns all manuals as one text.
func readme(tb testing.TB) string {
	tb.Helper()
	var all strings.Builder
	for _, name := range manuals {
		all.WriteString(manual(tb, name))
	}
	return all.String()
}

func manual(tb testing.TB, name string) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(moduleRoot, name))
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

// TestReadme_Caddyfiles_Adapt covers every Caddyfile in a Markdown file.
func TestReadme_Caddyfiles_Adapt(t *testing.T) {
	for name, text := range sources(t, ".md") {
		if strings.HasPrefix(name, ".github/") {
			continue // forms to fill in
		}
		blocks := fenced(text, "caddyfile")
		if len(blocks) == 0 && slices.Contains(manuals, name) {
			t.Errorf("%s has no Caddyfile", name)
		}
		for _, block := range blocks {
			if _, err := adapt(block); err != nil {
				t.Errorf("%s: %v in\n%s", name, err, block)
			}
		}
	}
}

// commandLine finds a call of the product in a block of shell.
var commandLine = regexp.MustCompile(`(?m)^(?:\./)?wxgate ((?:wechat )?[a-z-]+)(.*)$`)

// commands returns the commands of the product by name.
func commands() map[string]*cobra.Command {
	all := make(map[string]*cobra.Command)
	for name, c := range caddycmd.Commands() {
		all[name] = &cobra.Command{Use: name}
		if c.CobraFunc != nil {
			c.CobraFunc(all[name])
		} else if c.Flags != nil {
			all[name].Flags().AddGoFlagSet(c.Flags)
		}
	}
	for _, c := range all["wechat"].Commands() {
		all["wechat "+c.Name()] = c
	}
	all["validate"] = all["wechat validate"] // as cmd/wxgate does
	return all
}

// TestReadme_Commands_Exist: the product knows each command in a Markdown file,
// with its options, and Markdown files show each of its commands.
func TestReadme_Commands_Exist(t *testing.T) {
	options := make(map[string][]string)
	for _, text := range sources(t, ".md") {
		for _, block := range fenced(text, "sh") {
			for _, m := range commandLine.FindAllStringSubmatch(block, -1) {
				line, _, _ := strings.Cut(m[2], " #")
				line, _, _ = strings.Cut(line, " | ") // to another program
				options[m[1]] = append(options[m[1]], optionsIn(line)...)
			}
		}
	}
	if len(options) < 10 {
		t.Errorf("found %q only", keys(options))
	}
	known := commands()
	for name := range known {
		own, ok := strings.CutPrefix(name, "wechat ")
		_, shown := options[name]
		if _, short := options[own]; ok && !shown && !short {
			t.Errorf("no document shows wxgate %s", name)
		}
	}
	for command, used := range options {
		if command == "dev" || command == "sim" {
			continue // cmd/wxgate alone has them, and a test of its flags
		}
		if known[command] == nil {
			t.Errorf("there is no wxgate %s", command)
			continue
		}
		for _, option := range used {
			flags := known[command].Flags()
			name := strings.TrimLeft(option, "-")
			if flags.Lookup(name) == nil && (len(name) > 1 || flags.ShorthandLookup(name) == nil) {
				t.Errorf("wxgate %s has no option %s", command, option)
			}
		}
	}
}

var optionPattern = regexp.MustCompile(` (--?[a-zA-Z][a-z-]*)`)

func optionsIn(line string) (options []string) {
	for _, m := range optionPattern.FindAllStringSubmatch(line, -1) {
		options = append(options, m[1])
	}
	return options
}

// TestReadme_Languages_SayTheSame compares what both READMEs show and what they
// link to. They stay short.
func TestReadme_Languages_SayTheSame(t *testing.T) {
	english, chinese := manual(t, "README.md"), manual(t, "README.zh-CN.md")
	for _, text := range []string{english, chinese} {
		if n := strings.Count(text, "\n"); n > 200 {
			t.Errorf("a README has %d lines, more than anyone reads at once: 200", n)
		}
	}
	for what, of := range map[string]func(string) []string{
		"Caddyfiles": func(text string) []string { return fenced(text, "caddyfile") },
		"tests":      func(text string) []string { return testName.FindAllString(text, -1) },
		"anchors":    func(text string) []string { return anchorPattern.FindAllString(text, -1) },
		"links": func(text string) []string {
			text = strings.NewReplacer("/README.zh-CN.md", "", "/README.md", "",
				".zh-CN.md", ".md").Replace(text)
			return slices.Sorted(slices.Values(linkPattern.FindAllString(text, -1)))
		},
	} {
		if en, zh := of(english), of(chinese); !slices.Equal(en, zh) {
			t.Errorf("%s differ:\n%q\n%q", what, en, zh)
		}
	}
}

// standsHere reads the words that a block knows from the error about one that
// it does not know.
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
		// a Caddyfile with lines in the block that the table is about
		around func(lines string) string
		open   map[string]string // how a line begins that has a block of its own
	}{
		{
			"Global, in the block `wechat`:",
			func(lines string) string { return "{\nwechat {\n" + app + lines + "\n}\n}\n" },
			map[string]string{
				"login_rate": "login_rate 30/m", "store": "store bolt",
				"component": "component wx9876543210fedcba {env.X}",
			},
		},
		{
			"In the block `wechat_api`:",
			func(lines string) string {
				return anywhere + "x.example {\nwechat_api {\n" + lines + "\n}\n}\n"
			},
			nil,
		},
		{
			"Per site, in the block `wechat_auth`:",
			func(lines string) string {
				return anywhere + "x.example {\nwechat_auth {\n" + lines + "\n}\n}\n"
			},
			nil,
		},
	} {
		t.Run(tt.heading, func(t *testing.T) {
			table := optionTable(t, readme(t), tt.heading)
			got, want := keys(table), standsHere(t, tt.around(unknown))
			if !slices.Equal(got, want) {
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
					t.Errorf(
						"the table gives %s the words %q, the parser knows %q", word, inner, want,
					)
				}
			}
		})
	}
}

var (
	cellPattern = regexp.MustCompile("^\\| `((?:[^`])+)` \\|")
	wordPattern = regexp.MustCompile(`^[a-z][a-z_]*$`)
)

// optionTable reads the first column of the table below a heading: words of lines, and
// of each the words of its block.
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
		words := slices.DeleteFunc(strings.Fields(inner), func(w string) bool {
			return !wordPattern.MatchString(w)
		})
		table[word] = append(table[word], words...)
	}
	return table
}
