package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// forgetAnswer is what POST /wechat/forget tells when it is done.
type forgetAnswer struct {
	Target string `json:"target"` // user or unionid
	// users who were known, and their live sessions; absent when that could not
	// be found out before
	Forgotten *ended `json:"forgotten,omitempty"`
}

// serveForget takes any mini program, one that is no longer configured, too:
// its users are to be forgotten the sooner.
func serveForget(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	kind, t, err := readTarget(w, r, "user", "unionid")
	if err != nil {
		return err
	}
	if err := t.resolve(live.App.Person); err != nil {
		return err
	}
	n, err := forget(
		context.WithoutCancel(r.Context()), live, kind, t,
	) // what was begun is finished, as with a revocation
	t.audit(r, "user forgotten", kind, n, err)
	switch {
	case errors.Is(err, session.ErrUnavailable):
		return refusal(
			http.StatusServiceUnavailable,
			"the session store does not answer: this gate refuses the user's sessions "+
				"from now on, but may not have forgotten the user: repeat it",
			err,
		)
	case err != nil:
		return storeRefusal(err)
	}
	return answerAdmin(w, forgetAnswer{Target: kind, Forgotten: n})
}

// forget removes what is known of a target and returns how much it was.
func forget(ctx context.Context, live *wechatapp.Live, kind string, t adminTarget) (*ended, error) {
	users, unknown := known(ctx, live, kind, t)
	err := tell(ctx, live, wechatapp.EventForgotten, kind, t, users, unknown, time.Time{})
	if err != nil { // a repeat must find the users, so they only lose their sessions
		_, revokeErr := revoke(ctx, live, kind, t)
		return nil, errors.Join(err, revokeErr)
	}
	if kind == "user" {
		err = live.Sessions.Forget(ctx, t.user(), session.EndForgotten)
	} else {
		_, err = live.Sessions.ForgetUnionID(ctx, t.person(), session.EndForgotten)
	}
	if err != nil || unknown != nil {
		return nil, err
	}
	n := countLive(users...)
	n.Users = len(users)
	return n, nil
}

// forgetCommand is `wxgate wechat forget`.
func forgetCommand() *cobra.Command {
	var c adminClient
	var t adminTarget
	var consent cli.Consent
	cmd := &cobra.Command{
		Use:   "forget {--appid APPID --openid OPENID | --unionid UNIONID}",
		Short: "Removes all that is known of a user",
		Long: `
Ends every session of a user of one mini program, or of all users with a unionid, and
removes what the gate keeps of them: the openid, the unionid, the session_key and the
telephone number. A user who logs in again is a new user. Earlier backups and log lines
stay as they are.

The command tells how many users that are and asks; without a terminal it needs --yes.
`,
		Example: `  wxgate wechat forget --appid wx0123456789abcdef --openid oUser1
  wxgate wechat forget --unionid uUser1 --yes`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			body, err := t.whom(cmd)
			if err != nil {
				return cli.Failed, err
			}
			err = c.askFirst(cmd, &consent, "This deletes all that is known of a user", body)
			if err != nil {
				return cli.Failed, err
			}
			return ask(&c, cmd, "POST", "/wechat/forget", body, writeForgotten)
		}),
	}
	t.userFlags(cmd)
	consent.Flag(cmd)
	c.flags(cmd)
	return cmd
}

func writeForgotten(out io.Writer, a forgetAnswer) (err error) {
	switch {
	case a.Forgotten == nil:
		_, err = fmt.Fprintln(out, "Forgotten.")
	case a.Forgotten.Users == 0:
		_, err = fmt.Fprintln(out, "No such user was known.")
	default:
		_, err = fmt.Fprintf(
			out, "Forgot %s with %s.\n", cli.Amount(a.Forgotten.Users, "user"),
			cli.Amount(a.Forgotten.Sessions, "live session"),
		)
	}
	return err
}
