package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/assertion"
	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

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
			return ask(
				&c, cmd,
				func() (*http.Response, int, error) {
					return c.send("POST", "/wechat/keys/rotate-assertion", struct{}{})
				},
				writeRotated,
			)
		}),
	}
	consent.Flag(cmd)
	c.flags(cmd)
	c.jsonFlag(cmd)
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
