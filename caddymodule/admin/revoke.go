package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// revokeAnswer is what POST /wechat/revoke tells when it is done.
type revokeAnswer struct {
	Target string `json:"target"`          // session, user, unionid, app or all
	Ended  *ended `json:"ended,omitempty"` // not counted for a whole mini program and for all
}

// ended counts the sessions that were live just before they were ended, and
// whose they were.
type ended struct {
	Users    int `json:"users"`
	Sessions int `json:"sessions"`
}

func serveRevoke(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	kind, t, err := readTarget(w, r, "user", "session", "unionid", "app", "all")
	if err != nil {
		return err
	}
	if err := t.checkApp(r.Context(), live); err != nil {
		return err
	}
	// What was begun is finished, whether or not the caller waits for it.
	n, err := revoke(context.WithoutCancel(r.Context()), live, kind, t)
	t.audit(r, "sessions revoked", kind, n, err)
	switch {
	case errors.Is(err, session.ErrUnknown):
		return refusal(
			http.StatusNotFound,
			"the user has no such session, or more than one with an id that begins so; "+
				"at least 8 digits are needed",
			nil,
		)
	case errors.Is(err, session.ErrUnavailable) && kind != "session":
		return refusal(
			http.StatusServiceUnavailable,
			"the session store does not answer: this gate refuses those sessions from "+
				"now on and keeps trying to end them for good, until it is stopped",
			err,
		)
	case err != nil:
		return storeRefusal(err)
	}
	return answerAdmin(w, revokeAnswer{Target: kind, Ended: n})
}

// revoke ends the sessions of a target and returns how many, where it counts them.
func revoke(ctx context.Context, live *wechatapp.Live, kind string, t adminTarget) (*ended, error) {
	s := live.Sessions
	switch kind {
	case "session":
		if err := s.EndByID(ctx, t.user(), t.Session, session.EndRevoked); err != nil {
			return nil, err
		}
		return &ended{Users: 1, Sessions: 1}, nil
	case "user", "unionid":
		users, unknown := known(
			ctx, live, kind, t,
		) // for the count: what cannot be counted is revoked all the same
		var err error
		if kind == "user" {
			err = s.RevokeUser(ctx, t.user(), session.EndRevoked)
		} else {
			_, err = s.RevokeUnionID(ctx, t.UnionID, session.EndRevoked)
		}
		if err != nil || unknown != nil {
			return nil, err
		}
		return countLive(users...), nil
	case "app":
		return nil, s.RevokeApp(ctx, t.AppID)
	}
	return nil, s.RevokeAll(ctx)
}

// known returns the users that a target of kind user or unionid means. An unknown
// target has none and is no error.
func known(
	ctx context.Context, live *wechatapp.Live, kind string, t adminTarget,
) ([]session.UserInfo, error) {
	if kind == "unionid" {
		return live.Sessions.UsersByUnionID(ctx, t.UnionID)
	}
	u, err := live.Sessions.User(ctx, t.user())
	switch {
	case errors.Is(err, session.ErrUnknownUser):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return []session.UserInfo{u}, nil
}

func countLive(users ...session.UserInfo) *ended {
	var n ended
	for _, u := range users {
		before := n.Sessions
		for _, s := range u.Sessions {
			if s.State == session.StateLive {
				n.Sessions++
			}
		}
		if n.Sessions > before {
			n.Users++
		}
	}
	return &n
}

// revokeCommand is `wxgate wechat revoke`.
func revokeCommand() *cobra.Command {
	var c adminClient
	var t adminTarget
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke {--appid <appid> --openid <openid> [--session <id>] | " +
			"--unionid <unionid> | --appid <appid> | --all --yes}",
		Short: "Ends sessions, at once",
		Long: `
Ends one session of a user, all sessions of a user, of all users with a unionid, of a
mini program, or of all users. The command asks no question. The gate refuses the
sessions from the next request on, and their users have to log in again.
`,
		Example: `  wxgate wechat revoke --appid wx0123456789abcdef --openid oUser1
  wxgate wechat revoke --unionid uUser1`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			body := t.given(cmd)
			switch {
			case len(body) == 0:
				return cli.Failed, errors.New(
					"say whose sessions: --appid and --openid, --unionid, --appid, or --all; " +
						"see --help",
				)
			case t.All && !yes:
				return cli.Failed, errors.New("--all ends every session there is: say --yes too")
			}
			return ask(
				&c,
				cmd,
				func() (*http.Response, int, error) {
					return c.send("POST", "/wechat/revoke", body)
				},
				func(out io.Writer, a revokeAnswer) error {
					return writeRevoked(out, t, a)
				},
			)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&t.AppID, "appid", "", "Mini program of the user; alone, everybody in it")
	f.StringVar(&t.OpenID, "openid", "", "The user")
	f.StringVar(&t.Session, "session", "", "One session of the user, by its id")
	f.StringVar(&t.UnionID, "unionid", "", "The user in all mini programs")
	f.BoolVar(&t.All, "all", false, "Every session there is")
	f.BoolVar(&yes, "yes", false, "Mean --all")
	c.flags(cmd)
	c.jsonFlag(cmd)
	return cmd
}

func writeRevoked(out io.Writer, t adminTarget, a revokeAnswer) (err error) {
	switch {
	case a.Ended != nil:
		_, err = fmt.Fprintf(
			out, "Ended %s of %s.\n", cli.Amount(a.Ended.Sessions, "live session"),
			cli.Amount(a.Ended.Users, "user"),
		)
	case a.Target == "app":
		_, err = fmt.Fprintf(
			out, "Ended every session of the mini program %s.\n", cli.Text(t.AppID),
		)
	default:
		_, err = fmt.Fprintln(out, "Ended every session.")
	}
	return err
}
