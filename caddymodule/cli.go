package caddymodule

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "wechat",
		Usage: "<command>",
		Short: "Inspects and operates WeChat gates",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Args = cobra.NoArgs // anything left is a command that there is none of
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			for _, command := range []func() *cobra.Command{
				explainCommand,
				probeCommand,
				statusCommand,
				sessionsCommand,
				revokeCommand,
				forgetCommand,
				backupCommand,
				restoreCommand,
				keysCommand,
				migrateCommand,
			} {
				cmd.AddCommand(command())
			}
		},
	})
}

// exitWith ends a command with a status of the operating system, which Caddy's own error type carries.
func exitWith(cmd *cobra.Command, status int, err error) error {
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return status, err })(cmd, nil)
}
