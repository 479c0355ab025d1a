package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

// keysCommand is `wxgate wechat keys`.
func keysCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "keys [--json] [--address <interface>] [--config <path>]",
		Short: "Lists the master keys of the running gate by name, or makes a new one",
		Long: `
Lists the names of the master keys that the running gate has: the one that signs, and the older ones with the time until which sessions need them. A name tells nothing of its key.
` + "`keys new`" + ` makes a key.
`,
		Args: cobra.NoArgs,
		RunE: statusRun(func(cmd *cobra.Command, _ []string) (int, error) {
			return ask(&c, cmd, func() (*http.Response, int, error) { return c.send("GET", "/wechat/keys", nil) }, writeKeys)
		}),
	}
	c.flags(cmd)
	c.jsonFlag(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "new",
		Short: "Makes a master key and prints it",
		Long: `
Prints a new random master key, and beside it, on standard error, how it is taken into use. No gate is asked and nothing is kept: this is the only time that it is shown.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return writeNewKey(cmd.OutOrStdout(), cmd.ErrOrStderr()) },
	})
	return cmd
}

func writeKeys(out io.Writer, a keysAnswer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tSTATE\tNEEDED UNTIL")
	for _, k := range a.Keys {
		fmt.Fprintf(t, "%s\t%s\t%s\n", shown(k.ID), k.State, moment(k.NeededUntil))
	}
	return t.Flush()
}

// writeNewKey keeps the key apart from what is said about it, so that it can be sent into a file.
func writeNewKey(out, advice io.Writer) error {
	if _, err := fmt.Fprintln(out, keyring.NewMasterKey()); err != nil {
		return err
	}
	_, err := fmt.Fprint(advice, `
Put it on a line of its own in front of the keys that are there, in the file that seal_key names, such as

	seal_key {file./etc/wxgate/master.keys}

or in <database>.key when there is no seal_key, and run `+"`wxgate reload --force`"+`. In an environment variable, put a comma between the keys and restart. Nobody is logged out. The
keys behind it can go when `+"`wxgate wechat keys`"+` no longer calls them needed.
`)
	return err
}
