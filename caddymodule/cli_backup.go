package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// backupCommand is `wxgate wechat backup`.
func backupCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "backup [--address <interface>] [--config <path>] <file>",
		Short: "Copies the sessions of the running gate into a file",
		Long: `
Copies the database of the running gate, as it stands at one moment, into a new file, checks the copy and says what is in it. The gate goes on serving meanwhile. An existing file is not
overwritten.

The master key is not in it. Keep a copy of the key file, or of what seal_key names, elsewhere: a backup is of no use without it.
`,
		Args: cobra.ExactArgs(1),
		RunE: statusRun(func(cmd *cobra.Command, args []string) (int, error) { return c.backup(cmd, args[0]) }),
	}
	c.flags(cmd)
	return cmd
}

func (c *adminClient) backup(cmd *cobra.Command, path string) (status int, err error) {
	if _, err := os.Lstat(path); err == nil {
		return adminRefused, fmt.Errorf("%s is there already and is not overwritten", path)
	}
	resp, status, err := c.send("GET", "/wechat/backup", nil)
	if err != nil {
		return status, err
	}
	defer resp.Body.Close()
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, func() { resp.Body.Close() })()

	report, err := keep(path, resp.Body)
	if err != nil {
		return adminRefused, fmt.Errorf("backing up: %w", errors.Join(err, ctx.Err()))
	}
	info, err := os.Stat(path)
	if err != nil {
		return adminRefused, err
	}
	out := cmd.OutOrStdout()
	_, err = fmt.Fprintf(out, "%s: %s, %s of %s. The master key is not in it: keep that too, elsewhere.\n",
		path, size(info.Size()), amount(int(report.Stats.Sessions), "session"), amount(int(report.Stats.Users), "user"))
	if report.Damaged > 0 {
		fmt.Fprintf(out, "%s cannot be read, here and in the running gate.\n", amount(int(report.Damaged), "record"))
	}
	return adminRefused, err
}

// keep writes a backup so that the file is there only once it is whole, checked and on the disk.
func keep(path string, from io.Reader) (bolt.Report, error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return bolt.Report{}, fmt.Errorf("%s exists: another backup to %s is being made, or was broken off; if none is running, remove %s", tmp, path, tmp)
	}
	if err != nil {
		return bolt.Report{}, err
	}
	defer os.Remove(tmp)
	_, err = io.Copy(f, from)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return bolt.Report{}, err
	}
	report, err := bolt.Check(tmp)
	if err != nil {
		return bolt.Report{}, err
	}
	return report, os.Rename(tmp, path)
}

// restoreCommand is `wxgate wechat restore`.
func restoreCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "restore <file> --to <database>",
		Short: "Puts a backup in the place of the database, while no gate runs",
		Long: `
Checks a backup and puts it in the place of the database; the one that was there is kept under another name. It is refused while a gate has the database open. Stop the gate before and
start it after.

The gate needs the master key that it had when the backup was made: <database>.key, or what seal_key names. It does not start with another.

What happened after the backup is forgotten: logins made since are gone, and sessions that were ended since are back until they expire.
`,
		Args: cobra.ExactArgs(1),
		RunE: statusRun(func(cmd *cobra.Command, args []string) (int, error) { return restore(cmd.OutOrStdout(), args[0], to) }),
	}
	cmd.Flags().StringVar(&to, "to", "", "The database, as `store bolt` names it")
	_ = cmd.MarkFlagRequired("to") // it is there
	return cmd
}

func restore(out io.Writer, file, to string) (status int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return adminRefused, err
	}
	defer f.Close()
	setAside, err := bolt.Restore(f, to)
	if err != nil {
		return adminRefused, err
	}
	fmt.Fprintf(out, "%s is now %s.\n", to, file)
	if setAside != "" {
		fmt.Fprintf(out, "The database that was there is now %s.\n", setAside)
	}
	_, err = fmt.Fprintf(out, "The gate starts only with the master key of the backup: %s.key, or what seal_key names.\n", to)
	if _, missing := os.Stat(to + ".key"); errors.Is(missing, fs.ErrNotExist) {
		fmt.Fprintf(out, "There is no %s.key: unless seal_key is set, put it there before you start the gate.\n", to)
	}
	return adminRefused, err
}
