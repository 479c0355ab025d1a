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
	var consent cli.Consent
	cmd := &cobra.Command{
		Use:   "restore FILE --to DATABASE",
		Short: "Puts a backup in the place of the database, while no gate runs",
		Long: `
Checks a backup and puts it in the place of the database. The old database is kept under
another name. The command refuses while a gate has the database open: stop the gate
before, and start it after. It asks first; without a terminal it needs --yes.

The gate needs the master key of the backup: DATABASE.key, or the value of seal_key at
that time. It does not start with another.

Changes after the backup are lost: later logins are gone, and sessions that ended later
are back until they expire.
`,
		Args: cobra.ExactArgs(1),
		RunE: cli.Run(func(cmd *cobra.Command, args []string) (int, error) {
			err := consent.Ask(cmd, func() string {
				return fmt.Sprintf("This puts %s in the place of the database %s.", args[0], to)
			})
			if err != nil {
				return cli.Failed, err
			}
			return restore(cmd.OutOrStdout(), args[0], to)
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "`DATABASE`, as store bolt names it")
	consent.Flag(cmd)
	_ = cmd.MarkFlagRequired("to") // it is there
	return cmd
}

func restore(out io.Writer, file, to string) (status int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return cli.Failed, fmt.Errorf("opening backup: %w", err)
	}
	defer f.Close()
	setAside, err := bolt.Restore(f, to)
	if err != nil {
		return cli.Failed, err
	}
	kept := "; there was no old one"
	if setAside != "" {
		kept = ", the old one is kept as " + setAside
	}
	fmt.Fprintf(out, "copied %s over %s%s\n", file, to, kept)
	_, err = fmt.Fprintf(out, "The gate starts only with the master key of the backup: "+
		"%s.key, or what seal_key names.\n", to)
	if _, missing := os.Stat(to + ".key"); errors.Is(missing, fs.ErrNotExist) {
		fmt.Fprintf(out, "There is no %s.key: unless seal_key is set, "+
			"put it there before you start the gate.\n", to)
	}
	return cli.Failed, err
}
