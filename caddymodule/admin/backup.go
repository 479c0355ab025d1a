package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// serveBackup streams the database. It is refused to all browsers: no page,
// however trusted, has a use for it. It is a POST, so that no bare GET of an app
// that an attacker steers fetches it (docs/threats.md#t39).
func serveBackup(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	out := &backupWriter{w: w}
	n, err := live.Sessions.Backup(r.Context(), out)
	wechatapp.Audit(r, "sessions backed up", err, zap.Int64("bytes", n))
	switch {
	case err == nil:
		return nil
	case out.begun:
		// Too late for a status: what was sent must not pass for whole.
		panic(http.ErrAbortHandler)
	case errors.Is(err, session.ErrNoBackup):
		return refusal(
			http.StatusNotImplemented, "this kind of session store is backed up with its own tools",
			nil,
		)
	case errors.Is(err, bolt.ErrBusy):
		return refusal(
			http.StatusConflict, "another backup is being made: try again when it is done", nil,
		)
	case errors.Is(err, bolt.ErrRoom):
		return refusal(
			http.StatusInsufficientStorage,
			"a backup is first made beside the database, and there is too little room; "+
				"the log has the figures",
			err,
		)
	}
	return storeRefusal(err)
}

// backupWriter sends the header with the first bytes, so that an error before
// them can still be told.
type backupWriter struct {
	w     http.ResponseWriter
	begun bool
}

func (b *backupWriter) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.w.Header().Set("Content-Type", "application/octet-stream")
	}
	return b.w.Write(p)
}

// backupCommand is `wxgate wechat backup`.
func backupCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copies the sessions of the running gate into a file",
		Long: `
Copies the database of the running gate, as it is at one moment, into a new file, checks
the copy and says what is in it. The gate serves meanwhile. The command overwrites no
file.

The backup does not hold the master key. Keep a copy of the key file, or of what
seal_key names, elsewhere: the backup is useless without it.
`,
		Args: cobra.ExactArgs(1),
		RunE: cli.Run(func(cmd *cobra.Command, args []string) (int, error) {
			return c.backup(cmd, args[0])
		}),
	}
	c.addressFlags(cmd)
	return cmd
}

func (c *adminClient) backup(cmd *cobra.Command, path string) (status int, err error) {
	if _, err := os.Lstat(path); err == nil {
		return cli.Failed, fmt.Errorf("%s is there already and is not overwritten", path)
	}
	resp, status, err := c.send("POST", "/wechat/backup", nil)
	if err != nil {
		return status, err
	}
	defer resp.Body.Close()
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, func() { resp.Body.Close() })()

	report, err := keep(path, resp.Body)
	if err != nil {
		return cli.Failed, fmt.Errorf("backing up: %w", errors.Join(err, ctx.Err()))
	}
	info, err := os.Stat(path)
	if err != nil {
		return cli.Failed, err
	}
	out := cmd.OutOrStdout()
	_, err = fmt.Fprintf(
		out, "%s: %s, %s of %s. The master key is not in it: keep that too, elsewhere.\n", path,
		cli.Size(info.Size()), cli.Amount(int(report.Stats.Sessions), "session"),
		cli.Amount(int(report.Stats.Users), "user"),
	)
	if report.Damaged > 0 {
		fmt.Fprintf(
			out, "%s cannot be read, here and in the running gate.\n",
			cli.Amount(int(report.Damaged), "record"),
		)
	}
	return cli.Failed, err
}

// keep writes a backup so that the file is there only once it is whole, checked
// and on the disk.
func keep(path string, from io.Reader) (bolt.Report, error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return bolt.Report{}, fmt.Errorf(
			"%s exists: another backup to %s is being made, or was broken off; if none "+
				"is running, remove %s",
			tmp, path, tmp,
		)
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
