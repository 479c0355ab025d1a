package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

// forgetCommand is `wxgate wechat forget`.
func forgetCommand() *cobra.Command {
	var c adminClient
	var t adminTarget
	cmd := &cobra.Command{
		Use:   "forget {--appid <appid> --openid <openid> | --unionid <unionid>}",
		Short: "Removes all that is known of a user",
		Long: `
Ends every session of a user of one mini program, or of everybody with a unionid, and removes what the gate keeps of them: the openid, the unionid, the session_key and the telephone number.
Nothing is asked. Who logs in again begins as somebody new. Backups that were made before are left as they are; so are log lines.
`,
		Example: `  wxgate wechat forget --appid wx0123456789abcdef --openid oUser1
  wxgate wechat forget --unionid uUser1`,
		Args: cobra.NoArgs,
		RunE: statusRun(func(cmd *cobra.Command, _ []string) (int, error) {
			body := t.given(cmd)
			if len(body) == 0 {
				return adminRefused, errors.New("say whom: --appid and --openid, or --unionid; see --help")
			}
			return ask(&c, cmd, func() (*http.Response, int, error) { return c.send("POST", "/wechat/forget", body) }, writeForgotten)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&t.AppID, "appid", "", "Mini program of the user")
	f.StringVar(&t.OpenID, "openid", "", "The user")
	f.StringVar(&t.UnionID, "unionid", "", "The user in all mini programs")
	c.flags(cmd)
	c.jsonFlag(cmd)
	return cmd
}

func writeForgotten(out io.Writer, a forgetAnswer) (err error) {
	switch {
	case a.Forgotten == nil:
		_, err = fmt.Fprintln(out, "Forgotten.")
	case a.Forgotten.Users == 0:
		_, err = fmt.Fprintln(out, "No such user was known.")
	default:
		_, err = fmt.Fprintf(out, "Forgot %s with %s.\n", amount(a.Forgotten.Users, "user"), amount(a.Forgotten.Sessions, "live session"))
	}
	return err
}
