package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// restoreCommand is `wxgate wechat restore`.
func restoreCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "restore <file> --to <database>",
		Short: "Puts a backup in the place of the database, while no gate runs",
		Long: `
Checks a backup and puts it in the place of the database. The old database is kept under
another name. The command refuses while a gate has the database open: stop the gate
before, and start it after.

The gate needs the master key of the backup: <database>.key, or the value of seal_key at
that time. It does not start with another.

Changes after the backup are lost: later logins are gone, and sessions that ended later
are back until they expire.
`,
		Args: cobra.ExactArgs(1),
		RunE: cli.Run(func(cmd *cobra.Command, args []string) (int, error) {
			return restore(cmd.OutOrStdout(), args[0], to)
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "The database, as `store bolt` names it")
	_ = cmd.MarkFlagRequired("to") // it is there
	return cmd
}

func restore(out io.Writer, file, to string) (status int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return cli.Failed, err
	}
	defer f.Close()
	setAside, err := bolt.Restore(f, to)
	if err != nil {
		return cli.Failed, err
	}
	fmt.Fprintf(out, "%s is now %s.\n", to, file)
	if setAside != "" {
		fmt.Fprintf(out, "The database that was there is now %s.\n", setAside)
	}
	_, err = fmt.Fprintf(out, "The gate starts only with the master key of the backup: "+
		"%s.key, or what seal_key names.\n", to)
	if _, missing := os.Stat(to + ".key"); errors.Is(missing, fs.ErrNotExist) {
		fmt.Fprintf(out, "There is no %s.key: unless seal_key is set, "+
			"put it there before you start the gate.\n", to)
	}
	return cli.Failed, err
}
