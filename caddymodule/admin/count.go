package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// countTime bounds a count that has to read every user.
const countTime = 3 * time.Second

// countAnswer is what GET /wechat/count tells.
type countAnswer struct {
	Known int `json:"known"` // users, also those without a live session
	ended
}

// serveCount tells how many users and live sessions a target has, for the question that
// a command asks before it ends them.
func serveCount(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	kind, t := "", adminTarget{
		AppID: q.Get("appid"), OpenID: q.Get("openid"), UnionID: q.Get("unionid"),
		OpenPlatform: q.Get("open_platform"),
	}
	switch {
	case err != nil:
	case asksFor(q, "appid", "openid"):
		kind = "user"
	case asksForPerson(q):
		kind = "unionid"
	case asksFor(q, "appid"):
		kind = "app"
	case asksFor(q, "all") && q.Get("all") == "true":
		kind = "all"
	}
	if kind == "" {
		const forms = "ask for ?appid=…&openid=…, ?unionid=…, ?appid=… or ?all=true"
		return refusal(http.StatusBadRequest, forms, nil)
	}
	if err := t.resolve(live.App.Person); err != nil {
		return err
	}
	known, n, err := count(r.Context(), live, kind, t)
	if err != nil {
		return storeRefusal(err)
	}
	return answerAdmin(w, countAnswer{known, *n})
}

// count returns how many users of a target are known, and how many of them have how many
// live sessions.
func count(
	ctx context.Context, live *wechatapp.Live, kind string, t adminTarget,
) (users int, n *ended, err error) {
	if kind == "app" || kind == "all" {
		ctx, cancel := context.WithTimeout(ctx, countTime)
		defer cancel()
		counted, err := live.Sessions.CountLive(ctx, t.AppID)
		return counted.Known, &ended{counted.Users, counted.Sessions}, err
	}
	list, err := known(ctx, live, kind, t)
	return len(list), countLive(list...), err
}

// known returns the users that a target of kind user or unionid means. An unknown
// target has none and is no error.
func known(
	ctx context.Context, live *wechatapp.Live, kind string, t adminTarget,
) ([]session.UserInfo, error) {
	if kind == "unionid" {
		return live.Sessions.UsersByUnionID(ctx, t.person())
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

// askFirst asks for consent to a change of the target of a body.
func (c *adminClient) askFirst(
	cmd *cobra.Command, consent *cli.Consent, what string, body map[string]any,
) error {
	return consent.Ask(cmd, func() string {
		q := make(url.Values)
		for _, name := range []string{"appid", "openid", "unionid", "open_platform", "all"} {
			if v, ok := body[name]; ok {
				q.Set(name, fmt.Sprint(v))
			}
		}
		return what + ": " + c.howMany(q) + "."
	})
}

// howMany asks the gate whom a target means.
func (c *adminClient) howMany(q url.Values) string {
	resp, _, err := c.send(http.MethodGet, "/wechat/count?"+q.Encode(), nil)
	if err == nil {
		defer resp.Body.Close()
		var n countAnswer
		if err = json.NewDecoder(resp.Body).Decode(&n); err == nil {
			return cli.Amount(n.Known, "user") + " with " + cli.Amount(n.Sessions, "live session")
		}
	}
	return "how many users and sessions that is, is not known (" + err.Error() + ")"
}
