package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// unblockAnswer is what POST /wechat/unblock tells when it is done.
type unblockAnswer struct {
	Target string `json:"target"` // user or unionid
}

// serveUnblock takes any mini program, one that is no longer configured, too.
func serveUnblock(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	kind, t, err := readTarget(w, r, "user", "unionid")
	if err != nil {
		return err
	}
	if err := t.resolve(live.App.FormerPerson); err != nil {
		return err
	}
	held, err := live.Sessions.Unblock(context.WithoutCancel(r.Context()), t.blocked())
	if err == nil && !held {
		return refusal(http.StatusNotFound,
			"no block of that "+kind+" holds: `wechat blocked` lists those that do", nil)
	}
	t.audit(r, "user unblocked", kind, nil, err)
	if err != nil {
		return storeRefusal(err)
	}
	return answerAdmin(w, unblockAnswer{Target: kind})
}

// unblockCommand is `wxgate wechat unblock`.
func unblockCommand() *cobra.Command {
	var c adminClient
	var t adminTarget
	cmd := &cobra.Command{
		Use:   "unblock {--appid APPID --openid OPENID | --unionid UNIONID}",
		Short: "Lets a blocked user log in again",
		Long: `
Removes the block of a user, or of a unionid, as it was made: a block by unionid does not
end with the openid of one user. The exit status is 1 when there is no such block.
`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			body, err := t.whom(cmd)
			if err != nil {
				return cli.Failed, err
			}
			return ask(
				&c, cmd,
				func() (*http.Response, int, error) {
					return c.send("POST", "/wechat/unblock", body)
				},
				func(out io.Writer, _ unblockAnswer) error {
					_, err := fmt.Fprintln(out, "Unblocked.")
					return err
				},
			)
		}),
	}
	t.userFlags(cmd)
	c.flags(cmd)
	c.jsonFlag(cmd)
	return cmd
}
