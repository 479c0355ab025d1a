package command

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
)

// unnamed finds an option that takes "string" or another type of Go.
var unnamed = regexp.MustCompile(`(--[a-z-]+) [a-z]\w* {2}`)

// TestCommands_Help_IsGroupedAndSpellsPlaceholders: each command is in a group, and its
// placeholders are words in capitals, since a manual page drops what stands in <>.
func TestCommands_Help_IsGroupedAndSpellsPlaceholders(t *testing.T) {
	root := &cobra.Command{Use: "wechat"}
	caddycmd.Commands()["wechat"].CobraFunc(root)
	if root.Example == "" {
		t.Error("no examples")
	}
	for _, c := range root.Commands() {
		if c.GroupID == "" {
			t.Errorf("%s is in no group: add it to groups", c.Name())
		}
	}
	var judge func(*cobra.Command)
	judge = func(c *cobra.Command) {
		if strings.ContainsAny(c.Use+c.Short+c.Long, "<>") {
			t.Errorf("%s: a manual page drops what stands in <>", c.Name())
		}
		for _, m := range unnamed.FindAllStringSubmatch(c.Flags().FlagUsages(), -1) {
			t.Errorf("%s %s: name what it takes in capitals, in backquotes in its usage",
				c.Name(), m[1])
		}
		for _, sub := range c.Commands() {
			judge(sub)
		}
	}
	judge(root)
}

// TestCommands_ExitStatus_ReachesCaddy: Caddy's main looks for a type that it does not
// export, and a status of 1 needs none.
func TestCommands_ExitStatus_ReachesCaddy(t *testing.T) {
	for status, want := range map[int]bool{cli.Failed: false, cli.Unreachable: true} {
		err := exitOfCaddy(status, io.EOF)
		all := err.(interface{ Unwrap() []error }).Unwrap()
		got := slices.ContainsFunc(all, func(err error) bool {
			return fmt.Sprintf("%T", err) == "*caddycmd.exitError"
		})
		if got != want || !errors.Is(err, io.EOF) {
			t.Errorf("status %d: %q", status, all)
		}
	}
}
