package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/assertion"
	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// migrateCommand is `wxgate wechat migrate`.
func migrateCommand() *cobra.Command {
	var m migration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "migrate --from STORE --to STORE [--since BACKUP]",
		Short: "Copies users and live sessions from one session store into another",
		Long: `
Copies users and live sessions from one store into another. No user has to log in again.
A store is

	bolt:FILE     the database of a gate that does not run, or a backup of a running one
	NAME          the store of that name in the configuration, such as redis, with the
	              addresses and passwords from there

The command does not change the source. It adds to the target: sessions are added, and of
two records of a user the later login counts. Blocks go along; so do the keys of
assertions and the state of each component, if the target has none and seal_key opens
them. Run it again after an error, or to copy newer logins.

To change the store while the gate runs, with new.Caddyfile as the new configuration:

	wxgate wechat backup before.db
	wxgate wechat migrate --from bolt:before.db --to redis --config new.Caddyfile
	wxgate reload --config new.Caddyfile
	wxgate wechat migrate --from bolt:/var/lib/wxgate/sessions.db --since bolt:before.db \
	    --to redis --config new.Caddyfile

The last step copies the logins made between the first and the third. With --since, the
command copies only the changes since that backup: it ends the sessions that ended
meanwhile in the other store too, and it brings back none that ended there.

The command does not copy master keys. seal_key in the configuration must hold the master
keys of the sessions; for bolt without seal_key, that is the content of DATABASE.key.
Otherwise the command refuses.

The exit status is 0 when all is copied, 1 when the command refuses or fails, 2 when it
cannot reach a store.
`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			m.progress, m.every, m.patience = cmd.ErrOrStderr(), time.Second, 2*wechatapp.Linger
			r, err := m.run(ctx)
			switch {
			case errors.Is(err, store.ErrUnavailable) && ctx.Err() == nil:
				return cli.Unreachable, err
			case err != nil:
				return cli.Failed, err
			case asJSON:
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return cli.Failed, enc.Encode(r)
			}
			return cli.Failed, r.write(cmd.OutOrStdout())
		}),
	}
	f := cmd.Flags()
	f.StringVar(&m.from, "from", "",
		"`STORE` to read: bolt:FILE, or the name of the configuration's store")
	f.StringVar(&m.to, "to", "",
		"`STORE` to add to: bolt:FILE, or the name of the configuration's store")
	f.StringVar(&m.since, "since", "",
		"`BACKUP`, bolt:FILE, that was copied before; copies only the changes since")
	f.StringVarP(&m.config, "config", "c", "",
		"Configuration `FILE` that holds the store (default: the Caddyfile in this folder)")
	f.StringVarP(&m.adapter, "adapter", "a", "", "`NAME` of the config adapter")
	f.BoolVar(&asJSON, "json", false, "Print JSON")
	_ = cmd.MarkFlagRequired("from") // they are there
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

// migration holds the flags of the command.
type migration struct {
	from, to, since string
	config, adapter string
	progress        io.Writer
	every           time.Duration // between two lines of it
	patience        time.Duration // for a file that a gate has open
}

// migrated is the result of the command.
type migrated struct {
	From     string         `json:"from"`
	To       string         `json:"to"`
	Users    migratedAmount `json:"users"`
	Sessions migratedAmount `json:"sessions"`
	Ended    int            `json:"ended"`      // sessions, at the source since the backup
	Blocks   int            `json:"blocks"`     // that hold at the source, new since the backup
	Damaged  int64          `json:"unreadable"` // records of the source
	Keys     []string       `json:"keys"`       // master keys that the sessions need

	AssertionKeys bool `json:"assertion_keys"` // the target has those of the source
	Components    int  `json:"components"`     // third-party platforms whose state went along

	since bool
}

// migratedAmount counts the records read, and those that the target lacked.
type migratedAmount struct {
	Read  int `json:"read"`
	Added int `json:"added"`
}

// write prints the result as text.
func (r migrated) write(out io.Writer) error {
	fmt.Fprintf(out, "From %s to %s.\n%s, %d of them new there; %s, %d of them new there.\n",
		r.From, r.To, cli.Amount(r.Users.Read, "user"), r.Users.Added,
		cli.Amount(r.Sessions.Read, "live session"), r.Sessions.Added)
	if r.since {
		ended := cli.Amount(r.Ended, "session")
		fmt.Fprintf(out, "%s ended since the backup, and now there too.\n", ended)
	}
	if r.Blocks > 0 {
		fmt.Fprintf(out, "%s of users.\n", cli.Amount(r.Blocks, "block"))
	}
	if r.AssertionKeys {
		fmt.Fprintln(out, "The keys of assertions are there now, too.")
	}
	if r.Components > 0 {
		fmt.Fprintf(out, "The state of %s.\n", cli.Amount(r.Components, "third-party platform"))
	}
	if r.Damaged > 0 {
		damaged := cli.Amount(int(r.Damaged), "record")
		fmt.Fprintf(out, "%s cannot be read and stayed behind.\n", damaged)
	}
	if !r.since && r.Sessions.Added < r.Sessions.Read {
		fmt.Fprintln(out, "The others were there already. Of these, any that had been ended there "+
			"since an earlier run would be back: --since <backup> prevents that.")
	}
	if len(r.Keys) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "The gates need the master keys of these sessions, %s, "+
		"in seal_key until `wxgate wechat keys` no longer calls them needed.\n",
		strings.Join(r.Keys, ", "))
	return err
}

// run copies.
func (m *migration) run(ctx context.Context) (r migrated, err error) {
	stores, err := m.open(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stores.close()) }()
	r = migrated{
		From:    stores.from.name,
		To:      stores.to.name,
		Damaged: stores.from.damaged,
		since:   stores.since != nil,
	}
	needed, err := stores.neededKeys(ctx)
	if err != nil {
		return r, err
	}
	if err := stores.checkKeys(needed); err != nil {
		return r, err
	}
	for id := range needed {
		r.Keys = append(r.Keys, id.String())
	}
	slices.Sort(r.Keys)
	needMasterKeys := stores.to.store.(store.Loader).NeedMasterKeys
	if err := needMasterKeys(ctx, needed); err != nil {
		return r, fmt.Errorf("noting master keys: %w", err)
	}
	if r.Blocks, err = stores.copyBlocks(ctx); err != nil { // before the sessions that they end
		return r, fmt.Errorf("copying, which can be done again: %w", err)
	}
	r.AssertionKeys, err = assertion.CopyKeys(ctx, stores.from.source, stores.to.store, stores.ring)
	if err != nil {
		return r, err
	}
	if r.Components, err = stores.copyPlatforms(ctx); err != nil {
		return r, err
	}
	if err := m.copy(ctx, stores, &r); err != nil {
		return r, fmt.Errorf("copying, which can be done again: %w", err)
	}
	if err := needMasterKeys(ctx, needed); err != nil { // a gate may have revoked all users
		return r, fmt.Errorf("noting master keys: %w", err)
	}
	if stores.since == nil {
		return r, nil
	}
	if r.Ended, err = stores.carryEnds(ctx); err != nil {
		return r, fmt.Errorf("ending what was ended, which can be done again: %w", err)
	}
	return r, nil
}
