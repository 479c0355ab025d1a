package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// notOurs are commands of Caddy that fetch or change a binary of Caddy's own. In any
// other binary they panic (docs/caddy.md#top).
var notOurs = []string{"upgrade", "add-package", "remove-package"}

const howToBuild = `wxgate is built from its source; it does not download or change itself.

  a newer wxgate           git pull && go build -o wxgate ./cmd/wxgate
  wxgate and other plugins xcaddy build --with github.com/wxgate/wxgate/caddymodule \
                             --with github.com/wxgate/wxgate/caddymodule/redisstore \
                             --with <the plugin>

Sessions and configuration stay as they are: replace the binary and restart the service.
`

// demoCmd is the command demo of the latest root command. By it the command build,
// which comes later, finds the root, which Caddy does not hand out.
var demoCmd *cobra.Command

func init() {
	registerDemo()
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "build",
		Short: "Tells how to build a newer wxgate, or one with other plugins",
		Long:  howToBuild,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Args = cobra.NoArgs
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				_, err := io.WriteString(cmd.OutOrStdout(), howToBuild)
				return err
			}
			if root := demoCmd.Parent(); root != nil {
				makeOurs(root)
			}
		},
	})
}

// makeOurs replaces the commands of root that speak of Caddy's binary.
func makeOurs(root *cobra.Command) {
	root.Version = versionText()
	for _, c := range root.Commands() {
		switch name := c.Name(); {
		case slices.Contains(notOurs, name):
			root.RemoveCommand(c)
		case name == "version":
			c.Short = "Prints the versions of wxgate, Caddy and Go"
			c.Long = "\nPrints the versions of wxgate, with its commit, of Caddy and of Go.\n"
			c.RunE = func(cmd *cobra.Command, _ []string) error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), versionText())
				return err
			}
		}
	}
}

// versionText returns what this binary is made of, wxgate first.
func versionText() string {
	version, commit := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		set := make(map[string]string)
		for _, s := range info.Settings {
			set[s.Key] = s.Value
		}
		if revision := set["vcs.revision"]; revision != "" {
			commit = " commit " + revision[:min(12, len(revision))]
			if set["vcs.modified"] == "true" {
				commit += " with changes"
			}
			day, _, _ := strings.Cut(set["vcs.time"], "T")
			commit = strings.TrimRight(commit+" "+day, " ")
		}
	}
	_, ofCaddy := caddy.Version()
	return fmt.Sprintf("wxgate %s%s\nCaddy %s\n%s", version, commit, ofCaddy, runtime.Version())
}
