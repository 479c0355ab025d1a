package cli

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestUniform_Errors_HaveOneShape: one line that begins with the command, whoever finds
// the error, never the usage, and one exit status.
func TestUniform_Errors_HaveOneShape(t *testing.T) {
	var carried []int
	carry := func(status int, err error) error {
		carried = append(carried, status)
		return err
	}
	tree := func() *cobra.Command {
		root := &cobra.Command{Use: "wxgate"}
		parent := &cobra.Command{
			Use: "wechat", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return nil },
		}
		verb := &cobra.Command{
			Use: "verb FILE", Args: cobra.ExactArgs(1),
			RunE: Run(func(_ *cobra.Command, args []string) (int, error) {
				return Unreachable, errors.New("reaching " + args[0] + ": refused")
			}),
		}
		verb.Flags().String("to", "", "")
		_ = verb.MarkFlagRequired("to")
		plain := &cobra.Command{
			Use: "plain", RunE: func(*cobra.Command, []string) error { return io.EOF },
		}
		verb.AddCommand(plain)
		parent.AddCommand(verb)
		root.AddCommand(parent)
		Uniform(parent, carry)
		return root
	}
	for args, want := range map[string]string{
		"wechat":                  "",
		"wechat nonsense":         "wxgate wechat: unknown command",
		"wechat verb --odd":       "wxgate wechat verb: unknown flag: --odd; see `wxgate wechat ",
		"wechat verb":             "wxgate wechat verb: accepts 1 arg(s), received 0; see ",
		"wechat verb x":           "wxgate wechat verb: required flag(s) \"to\" not set; see ",
		"wechat verb x --to y":    "wxgate wechat verb: reaching x: refused\n",
		"wechat verb plain":       "wxgate wechat verb plain: EOF\n",
		"wechat verb plain --odd": "wxgate wechat verb plain: unknown flag: --odd; see ",
	} {
		cmd := tree()
		carried = nil
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(strings.Fields(args))
		err := cmd.Execute()
		lines := strings.Count(out.String(), "\n")
		if (err != nil) != (want != "") || lines != min(len(want), 1) ||
			!strings.HasPrefix(out.String(), want) {
			t.Errorf("%q: %v, %q, want %q", args, err, &out, want)
		}
		var statuses []int
		if want != "" {
			statuses = []int{Failed}
		}
		if strings.HasSuffix(want, "refused\n") {
			statuses = []int{Unreachable}
		}
		if !slices.Equal(carried, statuses) {
			t.Errorf("%q: exit statuses %v, want %v", args, carried, statuses)
		}
	}
}

// TestConsent_Ask_TakesYesOnly: from a person at a terminal, or as a flag.
func TestConsent_Ask_TakesYesOnly(t *testing.T) {
	defer func(f func(io.Reader) bool) { isTerminal = f }(isTerminal)
	for _, tt := range []struct {
		name, typed    string
		terminal, flag bool
		err            string // empty: consent
	}{
		{"flag", "", false, true, ""},
		{"script", "y\n", false, false, "there is no terminal to ask at; say --yes"},
		{"yes", " Yes \n", true, false, ""},
		{"y", "y\n", true, false, ""},
		{"enter", "\n", true, false, "the answer was not yes"},
		{"no", "no\n", true, false, "the answer was not yes"},
		{"end of input", "", true, false, "the answer was not yes"},
	} {
		isTerminal = func(io.Reader) bool { return tt.terminal }
		var cmd cobra.Command
		var said bytes.Buffer
		cmd.SetIn(strings.NewReader(tt.typed))
		cmd.SetErr(&said)
		c := Consent{yes: tt.flag}
		asked := 0
		err := c.Ask(&cmd, func() string { asked++; return "This ends all." })
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
		question := ""
		if tt.terminal {
			question = "This ends all. Go on? [y/N] "
		}
		if said.String() != question || asked != min(len(question), 1) {
			t.Errorf("%s: said %q", tt.name, &said)
		}
	}
}
