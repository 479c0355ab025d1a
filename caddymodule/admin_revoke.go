package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// revokeAnswer is what POST /wechat/revoke tells when it is done.
type revokeAnswer struct {
	Target string `json:"target"`          // session, user, unionid, app or all
	Ended  *ended `json:"ended,omitempty"` // not counted for a whole mini program and for all
}

// ended counts the sessions that were live just before they were ended, and whose they were.
type ended struct {
	Users    int `json:"users"`
	Sessions int `json:"sessions"`
}

func serveRevoke(live *running, w http.ResponseWriter, r *http.Request) error {
	kind, t, err := readTarget(w, r, "user", "session", "unionid", "app", "all")
	if err != nil {
		return err
	}
	if configured := func(app weixin.Credentials) bool { return app.ID == t.AppID }; t.AppID != "" && !slices.ContainsFunc(live.app.apps, configured) {
		return refusal(http.StatusNotFound, "no such mini program is configured", nil)
	}
	// What was begun is finished, whether or not the caller waits for it.
	n, err := live.revoke(context.WithoutCancel(r.Context()), kind, t)
	t.audit(r, "sessions revoked", kind, n, err)
	switch {
	case errors.Is(err, session.ErrUnknown):
		return refusal(http.StatusNotFound, "the user has no such session, or more than one with an id that begins so; at least 8 digits are needed", nil)
	case errors.Is(err, session.ErrUnavailable) && kind != "session":
		return refusal(http.StatusServiceUnavailable, "the session store does not answer: this gate refuses those sessions from now on and keeps trying to end them for good, until it is stopped", err)
	case err != nil:
		return storeRefusal(err)
	}
	return answerAdmin(w, revokeAnswer{Target: kind, Ended: n})
}

// revoke ends the sessions of a target and returns how many, where it counts them.
func (live *running) revoke(ctx context.Context, kind string, t adminTarget) (*ended, error) {
	s := live.sessions
	switch kind {
	case "session":
		if err := s.EndByID(ctx, t.user(), t.Session); err != nil {
			return nil, err
		}
		return &ended{Users: 1, Sessions: 1}, nil
	case "user", "unionid":
		users, unknown := live.known(ctx, kind, t) // for the count: what cannot be counted is revoked all the same
		var err error
		if kind == "user" {
			err = s.RevokeUser(ctx, t.user())
		} else {
			_, err = s.RevokeUnionID(ctx, t.UnionID)
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

// known returns the users that a target of kind user or unionid means. Nobody is not an error.
func (live *running) known(ctx context.Context, kind string, t adminTarget) ([]session.UserInfo, error) {
	if kind == "unionid" {
		return live.sessions.UsersByUnionID(ctx, t.UnionID)
	}
	u, err := live.sessions.User(ctx, t.user())
	switch {
	case errors.Is(err, store.ErrNotFound):
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
