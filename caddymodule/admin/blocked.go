package admin

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// blockedAnswer is what GET /wechat/blocked tells.
type blockedAnswer struct {
	Blocked []session.Block `json:"blocked"` // newest first; never null
}

func serveBlocked(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	all, err := live.Sessions.Blocks(r.Context())
	if err != nil {
		return storeRefusal(err)
	}
	return answerAdmin(w, blockedAnswer{Blocked: append([]session.Block{}, all...)})
}

// blockedCommand is `wxgate wechat blocked`.
func blockedCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "blocked",
		Short: "Lists the users who are kept from logging in",
		Args:  cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			return ask(
				&c, cmd,
				func() (*http.Response, int, error) {
					return c.send("GET", "/wechat/blocked", nil)
				},
				writeBlocked,
			)
		}),
	}
	c.flags(cmd)
	c.jsonFlag(cmd)
	return cmd
}

func writeBlocked(out io.Writer, a blockedAnswer) error {
	if len(a.Blocked) == 0 {
		_, err := fmt.Fprintln(out, "No user is blocked.")
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "APPID\tOPENID\tUNIONID\tSINCE\tUNTIL\tREASON")
	for _, b := range a.Blocked {
		name := func(s string) string { return cli.Text(cmp.Or(s, "-")) }
		reason := strings.Map(func(c rune) rune {
			if notShown(c) {
				return '?'
			}
			return c
		}, b.Reason)
		unionID := name(b.UnionID)
		if b.OpenPlatform != "" {
			unionID += " of " + cli.Text(b.OpenPlatform)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", name(b.AppID), name(b.OpenID),
			unionID, cli.Time(b.Since), cli.Time(b.Until), cmp.Or(reason, "-"))
	}
	return t.Flush()
}
