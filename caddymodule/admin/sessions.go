package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// sessionsAnswer is what GET /wechat/sessions tells.
type sessionsAnswer struct {
	Users []userAnswer `json:"users"` // never null
}

type userAnswer struct {
	AppID     string       `json:"appid"`
	OpenID    string       `json:"openid"`
	UnionID   string       `json:"unionid,omitempty"`
	LastLogin time.Time    `json:"last_login,omitzero"`
	Sessions  []sessionRow `json:"sessions"` // oldest first; never null
	Ends      []endRow     `json:"ends"`     // the last few, newest first; never null
}

// endRow is a session that has ended.
type endRow struct {
	ID      string    `json:"id"`
	Reason  string    `json:"reason"`
	Created time.Time `json:"created"`
	Ended   time.Time `json:"ended"`
}

// sessionRow is one session. Its id opens nothing.
type sessionRow struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // live, idle, expired or revoked
	Created  time.Time `json:"created"`
	LastSeen time.Time `json:"last_seen"` // noted lazily
	Expires  time.Time `json:"expires"`
}

func serveSessions(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refusal(http.StatusBadRequest, "the query is malformed", nil)
	}
	var users []session.UserInfo
	switch {
	case asksFor(q, "appid", "openid"):
		var u session.UserInfo
		u, err = live.Sessions.User(
			r.Context(), session.User{AppID: q.Get("appid"), OpenID: q.Get("openid")},
		)
		if err == nil {
			users = []session.UserInfo{u}
		} else if errors.Is(err, session.ErrUnknownUser) {
			err = nil // nobody
		}
	case asksForPerson(q):
		t := adminTarget{UnionID: q.Get("unionid"), OpenPlatform: q.Get("open_platform")}
		if err := t.resolve(live.App.Person); err != nil {
			return err
		}
		users, err = live.Sessions.UsersByUnionID(r.Context(), t.person())
	default:
		const forms = "ask for ?appid=…&openid=… or for ?unionid=…"
		return refusal(http.StatusBadRequest, forms, nil)
	}
	if err != nil {
		return storeRefusal(err)
	}
	answer := sessionsAnswer{Users: []userAnswer{}}
	for _, u := range users {
		answer.Users = append(answer.Users, rowsOf(u))
	}
	return answerAdmin(w, answer)
}

// asksFor reports whether a query has exactly these names, each with one value.
func asksFor(q url.Values, names ...string) bool {
	for _, name := range names {
		if len(q[name]) != 1 || q.Get(name) == "" {
			return false
		}
	}
	return len(q) == len(names)
}

// asksForPerson reports whether a query is for a unionid.
func asksForPerson(q url.Values) bool {
	return asksFor(q, "unionid") || asksFor(q, "unionid", "open_platform")
}

func rowsOf(u session.UserInfo) userAnswer {
	whole := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	out := userAnswer{
		AppID:     u.AppID,
		OpenID:    u.OpenID,
		UnionID:   u.UnionID,
		LastLogin: whole(u.LastLogin),
		Sessions:  []sessionRow{},
		Ends:      []endRow{},
	}
	for _, e := range u.Ends {
		out.Ends = append(out.Ends, endRow{e.ID, e.Reason, whole(e.Created), whole(e.Ended)})
	}
	for _, s := range u.Sessions {
		out.Sessions = append(
			out.Sessions,
			sessionRow{
				ID:       s.ID,
				State:    s.State,
				Created:  whole(s.Created),
				LastSeen: whole(s.LastSeen),
				Expires:  whole(s.Expires),
			},
		)
	}
	return out
}

// sessionsCommand is `wxgate wechat sessions`.
func sessionsCommand() *cobra.Command {
	var c adminClient
	var appID, openID, unionID, platform string
	cmd := &cobra.Command{
		Use:   "sessions {--appid APPID --openid OPENID | --unionid UNIONID}",
		Short: "Lists the sessions of a user",
		Long: `
Lists what the running gate knows of a user of one mini program, or of all users with a
unionid. The id of a session is for ` + "`revoke --session`" + ` and opens nothing. The gate
notes lazily when it saw a session: the time may be up to an hour old. Below the sessions
stand the last five that have ended, each with its reason and time.
`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			q := make(url.Values)
			for name, value := range map[string]string{
				"appid": appID, "openid": openID, "unionid": unionID, "open_platform": platform,
			} {
				if cmd.Flags().Changed(strings.ReplaceAll(name, "_", "-")) {
					q.Set(name, value)
				}
			}
			if !asksFor(q, "appid", "openid") && !asksForPerson(q) {
				return cli.Failed, errors.New("say whose: --appid and --openid, or --unionid")
			}
			return ask(&c, cmd, "GET", "/wechat/sessions?"+q.Encode(), nil, writeSessions)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&appID, "appid", "", "`APPID` of the mini program")
	f.StringVar(&openID, "openid", "", "`OPENID` of the user")
	unionIDFlags(cmd, &unionID, &platform)
	c.flags(cmd)
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
			unionID = cli.Text(u.UnionID)
		}
		fmt.Fprintf(
			out, "appid       %s\nopenid      %s\nunionid     %s\nlast login  %s\n",
			cli.Text(u.AppID), cli.Text(u.OpenID), unionID, cli.Time(u.LastLogin),
		)
		if err := u.write(out); err != nil {
			return err
		}
	}
	return nil
}

// write writes the tables of a user.
func (u userAnswer) write(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(u.Sessions) == 0 {
		fmt.Fprintln(t, "no sessions")
	} else {
		fmt.Fprintln(t, "SESSION\tSTATE\tCREATED\tLAST SEEN\tEXPIRES")
	}
	for _, s := range u.Sessions {
		fmt.Fprintf(
			t, "%s\t%s\t%s\t%s\t%s\n", cli.Text(s.ID), s.State, cli.Time(s.Created),
			cli.Time(s.LastSeen), cli.Time(s.Expires),
		)
	}
	if len(u.Ends) > 0 {
		fmt.Fprintln(t, "ENDED\tREASON\tCREATED\tENDED AT")
	}
	for _, e := range u.Ends {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", cli.Text(e.ID), cli.Text(e.Reason),
			cli.Time(e.Created), cli.Time(e.Ended))
	}
	return t.Flush()
}
