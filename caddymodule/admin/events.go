package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// tell keeps an event for the app about each user that a target means: users, which known
// has found, or unknown says why it has not.
func tell(
	ctx context.Context, live *wechatapp.Live, event, kind string, t adminTarget,
	users []session.UserInfo, unknown error, until time.Time,
) error {
	switch {
	case !live.App.SendsEvents():
		return nil
	case kind == "user" && len(users) == 0: // the app may hold what the gate does not
		users = []session.UserInfo{{AppID: t.AppID, OpenID: t.OpenID}}
	case unknown != nil:
		return unknown
	}
	var errs []error
	for _, u := range users {
		errs = append(errs, live.Tell(ctx, rand.Text(), nil, wechatapp.Event{
			Event: event, AppID: u.AppID, OpenID: u.OpenID, UnionID: u.UnionID,
			Reason: wechatapp.ReasonOperator, Until: until,
		}))
	}
	return errors.Join(errs...)
}
