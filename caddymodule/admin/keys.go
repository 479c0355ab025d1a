package admin

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/assertion"
	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// keysAnswer is what GET /wechat/keys tells: names, never keys.
type keysAnswer struct {
	Keys      []keyRow       `json:"keys"`                // as in the ring, newest first
	Assertion []assertionRow `json:"assertion,omitempty"` // oldest first
}

type keyRow struct {
	ID          string    `json:"id"`
	State       string    `json:"state"`
	NeededUntil time.Time `json:"needed_until,omitzero"`
}

// The states of a master key.
const (
	keySigns  = "signs"  // signs new tokens and encrypts session_keys
	keyNeeded = "needed" // sessions that were made under it live
	keySpare  = "not needed"

	// keyMissing: sessions were made under it at another gate, and this one refuses
	// them.
	keyMissing = "MISSING"
)

func serveKeys(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	needs, err := live.Sessions.MasterKeys(r.Context())
	if err != nil {
		return storeRefusal(err)
	}
	var answer keysAnswer
	for i, id := range live.App.KeyRing().IDs() {
		row := keyRow{ID: id.String(), State: keySpare}
		switch until := needs[id]; {
		case i == 0:
			row.State = keySigns
		case until.After(time.Now()):
			row.State = keyNeeded
			row.NeededUntil = until.UTC().Truncate(time.Second).Add(time.Second)
		}
		answer.Keys = append(answer.Keys, row)
	}
	answer.Keys = append(answer.Keys, missingKeys(live.App.KeyRing(), needs)...)
	for _, k := range live.Assertions.List() {
		answer.Assertion = append(answer.Assertion, assertionRowOf(k))
	}
	return answerAdmin(w, answer)
}

// missingKeys returns the keys that live sessions need and the ring lacks, by name:
// another gate of the fleet signs with a ring of its own.
func missingKeys(ring *keyring.Ring, needs map[keyring.ID]time.Time) (rows []keyRow) {
	for id, until := range needs {
		if until.After(time.Now()) && !ring.Has(id) {
			rows = append(rows, keyRow{
				ID: id.String(), State: keyMissing,
				NeededUntil: until.UTC().Truncate(time.Second).Add(time.Second),
			})
		}
	}
	slices.SortFunc(rows, func(a, b keyRow) int { return cmp.Compare(a.ID, b.ID) })
	return rows
}

// keysCommand is `wxgate wechat keys`.
func keysCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Lists the keys of the running gate by name, or makes a new one",
		Long: `
Lists the names of the master keys of the running gate: the one that signs, and the
older ones with the time until which sessions need them. Where a site has the word
assertion, it lists the keys that sign assertions, too. A name says nothing of its key.
A master key that is MISSING is in use at another gate of the store: put it into seal_key.
` + "`keys new`" + ` makes a master key, ` + "`keys rotate-assertion`" + ` an assertion key.
`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			return ask(&c, cmd, "GET", "/wechat/keys", nil, writeKeys)
		}),
	}
	c.flags(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "new",
		Short: "Makes a master key and prints it",
		Long: `
Prints a new random master key, and on standard error how to take it into use. The
command asks no gate and keeps nothing: it shows the key this one time.
`,
		Args: cobra.NoArgs,
		RunE: func(
			cmd *cobra.Command, _ []string,
		) error {
			return writeNewKey(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	})
	cmd.AddCommand(rotateAssertionCommand())
	return cmd
}

func writeKeys(out io.Writer, a keysAnswer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tSTATE\tNEEDED UNTIL")
	for _, k := range a.Keys {
		fmt.Fprintf(t, "%s\t%s\t%s\n", cli.Text(k.ID), k.State, cli.Time(k.NeededUntil))
	}
	if len(a.Assertion) > 0 {
		fmt.Fprintln(t, "\nASSERTION KEY\tSTATE\tSIGNS FROM")
	}
	for _, k := range a.Assertion {
		fmt.Fprintf(t, "%s\t%s\t%s\n", cli.Text(k.ID), k.State, cli.Time(k.From))
	}
	return t.Flush()
}

// writeNewKey keeps the key apart from what is said about it, so that it can be
// sent into a file.
func writeNewKey(out, advice io.Writer) error {
	if _, err := fmt.Fprintln(out, keyring.NewMasterKey()); err != nil {
		return err
	}
	_, err := fmt.Fprint(advice, `
Put it on a line of its own in front of the other keys, in the file that seal_key names,
such as

	seal_key {file./etc/wxgate/master.keys}

or in <database>.key when there is no seal_key, and run `+"`wxgate reload --force`"+`.
In an environment variable, put a comma between the keys and restart. No user is logged
out. The keys behind it can go when `+"`wxgate wechat keys`"+` no longer calls them needed.
`)
	return err
}

// assertionRow tells of one assertion key. Its name is the kid of its assertions.
type assertionRow struct {
	ID    string    `json:"id"`
	State string    `json:"state"`
	From  time.Time `json:"signs_from,omitzero"`
}

// The states of an assertion key, beside keySigns.
const (
	keyPublished = "published" // signs later
	keyOld       = "old"       // goes when its last assertion has ended
)

func assertionRowOf(k assertion.Key) assertionRow {
	row := assertionRow{ID: k.ID, State: keySigns, From: k.From.UTC()}
	switch {
	case k.Signs:
	case k.From.After(time.Now()):
		row.State = keyPublished
	default:
		row.State = keyOld
	}
	return row
}

// serveRotateAssertion makes a new assertion key; it answers with the row of the key.
func serveRotateAssertion(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	if err := requireJSON(r); err != nil {
		return err
	}
	id, from, err := live.RotateAssertion(r.Context())
	switch {
	case errors.Is(err, wechatapp.ErrNoAssertions):
		return refusal(http.StatusNotFound, err.Error(), nil)
	case errors.Is(err, session.ErrUnavailable):
		return storeRefusal(err)
	case err != nil:
		return refusal(http.StatusInternalServerError, err.Error(), err)
	}
	wechatapp.Logger("audit").Info("assertion key rotated",
		zap.String("key", id), zap.Time("signs_from", from))
	return answerAdmin(w, assertionRowOf(
		assertion.Key{ID: id, From: from, Signs: !from.After(time.Now())}))
}

// rotateAssertionCommand is `wxgate wechat keys rotate-assertion`.
func rotateAssertionCommand() *cobra.Command {
	var c adminClient
	var consent cli.Consent
	cmd := &cobra.Command{
		Use:   "rotate-assertion",
		Short: "Makes a new key that signs assertions, for all gates of the store",
		Long: `
Makes a new key for the word assertion. All gates of the store publish it at once, and
sign with it after ten minutes, when every verifier has it. The old key stays published
until its last assertion has ended: no verification fails. While a new key waits, the
command makes none and tells of that one. It asks first; without a terminal it needs --yes.
`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			err := consent.Ask(cmd, func() string {
				return "This makes a new assertion key for all gates of the store."
			})
			if err != nil {
				return cli.Failed, err
			}
			return ask(&c, cmd, "POST", "/wechat/keys/rotate-assertion", struct{}{}, writeRotated)
		}),
	}
	consent.Flag(cmd)
	c.flags(cmd)
	return cmd
}

func writeRotated(out io.Writer, k assertionRow) (err error) {
	if k.State == keySigns {
		_, err = fmt.Fprintf(out, "The new assertion key %s signs from now on.\n", cli.Text(k.ID))
	} else {
		_, err = fmt.Fprintf(out, "The new assertion key %s is published, and signs from %s on.\n",
			cli.Text(k.ID), cli.Time(k.From))
	}
	return err
}
