// Package command owns the commands that need no running gate: explain, check,
// probe, migrate and restore. It registers `wxgate wechat` with these and those of package
// admin.
//
// It must not know the live app.
package command

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/admin"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "wechat",
		Usage: "<command>",
		Short: "Inspects and operates WeChat gates",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Args = cobra.NoArgs // an argument is an unknown command
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			cmd.AddCommand(admin.Commands()...)
			cmd.AddCommand(explainCommand(), validateCommand(), checkCommand(),
				probeCommand(), migrateCommand(), restoreCommand())
		},
	})
}
