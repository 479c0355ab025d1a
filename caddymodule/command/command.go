// Package command owns the commands that need no running gate: explain, check,
// probe, migrate and restore. It registers `wxgate wechat` with these and those of package
// admin.
//
// It must not know the live app.
package command

import (
	"errors"
	"slices"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/admin"
	"github.com/wxgate/wxgate/caddymodule/internal/cli"
)

// groups are the parts of the help, each with its commands.
var groups = []struct {
	title    string
	commands []string
}{
	{"Look", []string{
		"status", "sessions", "blocked", "component", "check", "validate", "explain", "probe",
	}},
	{"Act", []string{"revoke", "forget", "block", "unblock"}},
	{"Move", []string{"backup", "restore", "migrate"}},
	{"Keys", []string{"keys"}},
}

// groupOf returns the group of a command; empty for one that is new.
func groupOf(name string) string {
	for _, g := range groups {
		if slices.Contains(g.commands, name) {
			return g.title
		}
	}
	return ""
}

const examples = `  wxgate wechat status
  wxgate wechat sessions --appid wx0123456789abcdef --openid oUser1
  wxgate wechat revoke --appid wx0123456789abcdef --openid oUser1
  wxgate wechat backup sessions.db
  wxgate wechat check --config /etc/wxgate/Caddyfile`

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "wechat",
		Usage: "COMMAND",
		Short: "Inspects and operates WeChat gates",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Args = cobra.NoArgs // an argument is an unknown command
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			cmd.Example = examples
			cmd.AddCommand(admin.Commands()...)
			cmd.AddCommand(explainCommand(), validateCommand(), checkCommand(),
				probeCommand(), migrateCommand(), restoreCommand())
			for _, g := range groups {
				cmd.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
			}
			for _, c := range cmd.Commands() {
				c.GroupID = groupOf(c.Name())
			}
			cli.Uniform(cmd, exitOfCaddy)
		},
	})
}

// exitOfCaddy adds the exit status to an error in the type that Caddy's main looks for.
func exitOfCaddy(status int, err error) error {
	run := func(caddycmd.Flags) (int, error) { return status, nil }
	return errors.Join(err, caddycmd.WrapCommandFuncForCobra(run)(new(cobra.Command), nil))
}
