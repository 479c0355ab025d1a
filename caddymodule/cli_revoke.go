package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

// revokeCommand is `wxgate wechat revoke`.
func revokeCommand() *cobra.Command {
	var c adminClient
	var t adminTarget
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke {--appid <appid> --openid <openid> [--session <id>] | --unionid <unionid> | --appid <appid> | --all --yes}",
		Short: "Ends sessions, at once",
		Long: `
Ends one session of a user, all sessions of a user, of everybody with a unionid, of a mini program, or all there are. Nothing is asked. They are refused from the next request on, and their
users have to log in again.
`,
		Example: `  wxgate wechat revoke --appid wx0123456789abcdef --openid oUser1
  wxgate wechat revoke --unionid uUser1`,
		Args: cobra.NoArgs,
		RunE: statusRun(func(cmd *cobra.Command, _ []string) (int, error) {
			body := t.given(cmd)
			switch {
			case len(body) == 0:
				return adminRefused, errors.New("say whose sessions: --appid and --openid, --unionid, --appid, or --all; see --help")
			case t.All && !yes:
				return adminRefused, errors.New("--all ends every session there is: say --yes too")
			}
			return ask(&c, cmd, func() (*http.Response, int, error) { return c.send("POST", "/wechat/revoke", body) }, func(out io.Writer, a revokeAnswer) error {
				return writeRevoked(out, t, a)
			})
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

// given returns the members that were given as flags, be they empty: an unset variable of a script must not widen the target.
func (t adminTarget) given(cmd *cobra.Command) map[string]any {
	body := make(map[string]any)
	for name, value := range map[string]any{"appid": t.AppID, "openid": t.OpenID, "session": t.Session, "unionid": t.UnionID, "all": t.All} {
		if cmd.Flags().Changed(name) {
			body[name] = value
		}
	}
	return body
}

func writeRevoked(out io.Writer, t adminTarget, a revokeAnswer) (err error) {
	switch {
	case a.Ended != nil:
		_, err = fmt.Fprintf(out, "Ended %s of %s.\n", amount(a.Ended.Sessions, "live session"), amount(a.Ended.Users, "user"))
	case a.Target == "app":
		_, err = fmt.Fprintf(out, "Ended every session of the mini program %s.\n", shown(t.AppID))
	default:
		_, err = fmt.Fprintln(out, "Ended every session.")
	}
	return err
}
