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
	Ended  *ended `json:"ended,omitempty"` // absent when it could not be counted in time
}

// nobody reports that a user or a unionid had no session to end. A revocation of a mini
// program or of all is worth a status 0 also then: it frees master keys.
func (a revokeAnswer) nobody() bool {
	return a.Target != "app" && a.Target != "all" && a.Ended != nil && a.Ended.Sessions == 0
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
	if err := t.resolve(live.App.Person); err != nil {
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
	}
	_, n, unknown := count(ctx, live, kind, t) // if unknown, they are revoked all the same
	var err error
	switch kind {
	case "user":
		err = s.RevokeUser(ctx, t.user(), session.EndRevoked)
	case "unionid":
		_, err = s.RevokeUnionID(ctx, t.person(), session.EndRevoked)
	case "app":
		err = s.RevokeApp(ctx, t.AppID)
	default:
		err = s.RevokeAll(ctx)
	}
	if err != nil || unknown != nil {
		return nil, err
	}
	return n, nil
}

// revokeCommand is `wxgate wechat revoke`.
func revokeCommand() *cobra.Command {
	var c adminClient
	var t adminTarget
	var consent cli.Consent
	cmd := &cobra.Command{
		Use: "revoke {--appid APPID --openid OPENID [--session ID] | " +
			"--unionid UNIONID | --appid APPID | --all}",
		Short: "Ends sessions, at once",
		Long: `
Ends one session of a user, all sessions of a user, of all users with a unionid, of a
mini program, or of all users. The gate refuses the sessions from the next request on, and
their users have to log in again.

For a unionid, a mini program or all users the command tells how many that are and asks;
without a terminal it needs --yes. The exit status is 1, too, when there was no live
session to end.
`,
		Example: `  wxgate wechat revoke --appid wx0123456789abcdef --openid oUser1
  wxgate wechat revoke --unionid uUser1 --yes`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			body := t.given(cmd)
			_, person := body["open_platform"]
			switch {
			case len(body) == 0:
				return cli.Failed, errors.New(
					"say whose sessions: --appid and --openid, --unionid, --appid, or --all; " +
						"see --help",
				)
			case len(body) == 1 || person:
				err := c.askFirst(cmd, &consent, "This ends the sessions of many", body)
				if err != nil {
					return cli.Failed, err
				}
			}
			var answer revokeAnswer
			write := func(out io.Writer, a revokeAnswer) error {
				if a.nobody() {
					return nil // the error says it
				}
				return writeRevoked(out, t, a)
			}
			status, err := ask(&c, cmd, "POST", "/wechat/revoke", body, write, &answer)
			if err == nil && answer.nobody() {
				return cli.Failed, errors.New("nobody had a live session: nothing was ended")
			}
			return status, err
		}),
	}
	f := cmd.Flags()
	f.StringVar(&t.AppID, "appid", "", "`APPID` of the mini program; alone, everybody in it")
	f.StringVar(&t.OpenID, "openid", "", "`OPENID` of the user")
	f.StringVar(&t.Session, "session", "", "`ID` of one session of the user")
	unionIDFlags(cmd, &t.UnionID, &t.OpenPlatform)
	f.BoolVar(&t.All, "all", false, "Every session there is")
	consent.Flag(cmd)
	c.flags(cmd)
	return cmd
}

func writeRevoked(out io.Writer, t adminTarget, a revokeAnswer) error {
	n, every := "", ""
	switch a.Target {
	case "app":
		every = "every session of the mini program " + cli.Text(t.AppID)
	case "all":
		every = "every session"
	}
	if a.Ended != nil {
		n = cli.Amount(a.Ended.Sessions, "live session") + " of " +
			cli.Amount(a.Ended.Users, "user")
	}
	if n != "" && every != "" {
		every += ": "
	}
	_, err := fmt.Fprintf(out, "Ended %s%s.\n", every, n)
	return err
}
