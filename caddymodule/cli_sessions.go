package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// sessionsCommand is `wxgate wechat sessions`.
func sessionsCommand() *cobra.Command {
	var c adminClient
	var appID, openID, unionID string
	cmd := &cobra.Command{
		Use:   "sessions {--appid <appid> --openid <openid> | --unionid <unionid>} [--json]",
		Short: "Lists the sessions of a user",
		Long: `
Lists what the running gate knows of a user of one mini program, or of everybody with a unionid. A session goes by an id, which ` + "`revoke --session`" + ` takes and which opens nothing.
When it was last seen is noted lazily and may be up to an hour old.
`,
		Args: cobra.NoArgs,
		RunE: statusRun(func(cmd *cobra.Command, _ []string) (int, error) {
			q := make(url.Values)
			for name, value := range map[string]string{"appid": appID, "openid": openID, "unionid": unionID} {
				if cmd.Flags().Changed(name) {
					q.Set(name, value)
				}
			}
			if !asksFor(q, "appid", "openid") && !asksFor(q, "unionid") {
				return adminRefused, errors.New("say whose: --appid and --openid, or --unionid")
			}
			return ask(&c, cmd, func() (*http.Response, int, error) { return c.send("GET", "/wechat/sessions?"+q.Encode(), nil) }, writeSessions)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&appID, "appid", "", "Mini program of the user")
	f.StringVar(&openID, "openid", "", "The user")
	f.StringVar(&unionID, "unionid", "", "The user in all mini programs")
	c.flags(cmd)
	c.jsonFlag(cmd)
	return cmd
}

func writeSessions(out io.Writer, a sessionsAnswer) error {
	if len(a.Users) == 0 {
		_, err := fmt.Fprintln(out, "No such user has logged in here.")
		return err
	}
	for i, u := range a.Users {
		if i > 0 {
			fmt.Fprintln(out)
		}
		unionID := "none known"
		if u.UnionID != "" {
			unionID = shown(u.UnionID)
		}
		fmt.Fprintf(out, "appid       %s\nopenid      %s\nunionid     %s\nlast login  %s\n", shown(u.AppID), shown(u.OpenID), unionID, moment(u.LastLogin))
		if len(u.Sessions) == 0 {
			fmt.Fprintln(out, "no sessions")
			continue
		}
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "SESSION\tSTATE\tCREATED\tLAST SEEN\tEXPIRES")
		for _, s := range u.Sessions {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", shown(s.ID), s.State, moment(s.Created), moment(s.LastSeen), moment(s.Expires))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}
