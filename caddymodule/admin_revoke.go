package caddymodule

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"slices"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// revokeTarget is whose sessions are to end. Its members say the same in JSON.
type revokeTarget struct {
	AppID   string `json:"appid,omitempty"`
	OpenID  string `json:"openid,omitempty"`
	Session string `json:"session,omitempty"`
	UnionID string `json:"unionid,omitempty"`
	All     bool   `json:"all,omitempty"`
}

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

// revokeKinds are the targets by the members that name them, exactly these and no other.
var revokeKinds = map[string][]string{
	"session": {"appid", "openid", "session"},
	"user":    {"appid", "openid"},
	"unionid": {"unionid"},
	"app":     {"appid"},
	"all":     {"all"},
}

func serveRevoke(live *running, w http.ResponseWriter, r *http.Request) error {
	// A form of another site can send text/plain without asking the browser; this type it cannot (THREATS.md 31).
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return refusal(http.StatusUnsupportedMediaType, "the body must be application/json", nil)
	}
	kind, t, err := readTarget(w, r)
	if err != nil {
		if p, ok := errors.AsType[problem](err); ok {
			return refusal(p.status, p.detail, nil)
		}
		return err
	}
	if configured := func(app weixin.App) bool { return app.ID == t.AppID }; t.AppID != "" && !slices.ContainsFunc(live.app.apps, configured) {
		return refusal(http.StatusNotFound, "no such mini program is configured", nil)
	}
	// What was begun is finished, whether or not the caller waits for it.
	n, err := live.revoke(context.WithoutCancel(r.Context()), kind, t)
	fields := []zap.Field{zap.String("target", kind)}
	for name, value := range map[string]string{"appid": t.AppID, "openid": t.OpenID, "unionid": t.UnionID, "session": t.Session} {
		if value != "" {
			fields = append(fields, zap.String(name, value))
		}
	}
	if n != nil {
		fields = append(fields, zap.Int("users", n.Users), zap.Int("sessions", n.Sessions))
	}
	audit(r, "sessions revoked", err, fields...)
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

// readTarget reads a body that names exactly one target. The error is a problem.
func readTarget(w http.ResponseWriter, r *http.Request) (kind string, t revokeTarget, err error) {
	obj, err := readObject(w, r)
	if err != nil {
		return "", t, err
	}
	for name, dst := range map[string]*string{"appid": &t.AppID, "openid": &t.OpenID, "unionid": &t.UnionID, "session": &t.Session} {
		if *dst, err = text(obj, name); err != nil {
			return "", t, err
		}
		if _, given := obj[name]; given && *dst == "" {
			return "", t, invalidRequest(http.StatusBadRequest, name+" is empty")
		}
	}
	if t.All, err = flag(obj, "all"); err != nil {
		return "", t, err
	}
	for kind, names := range revokeKinds {
		has := func(name string) bool { _, ok := obj[name]; return ok }
		if len(obj) == len(names) && !slices.ContainsFunc(names, func(n string) bool { return !has(n) }) && t.All == (kind == "all") {
			return kind, t, nil
		}
	}
	return "", t, invalidRequest(http.StatusBadRequest, `name one target and nothing else: {"appid", "openid", "session"}, {"appid", "openid"}, {"unionid"}, {"appid"} or {"all": true}`)
}

// revoke ends the sessions of a target and returns how many, where it counts them.
func (live *running) revoke(ctx context.Context, kind string, t revokeTarget) (*ended, error) {
	s, id := live.sessions, store.UserID{AppID: t.AppID, OpenID: t.OpenID}
	switch kind {
	case "session":
		if err := s.EndByID(ctx, id, t.Session); err != nil {
			return nil, err
		}
		return &ended{Users: 1, Sessions: 1}, nil
	case "user":
		u, unknown := s.User(ctx, id) // for the count: what cannot be counted is revoked all the same
		err := s.RevokeUser(ctx, id)
		if err != nil || unknown != nil && !errors.Is(unknown, store.ErrNotFound) {
			return nil, err
		}
		return countLive(u), nil
	case "unionid":
		users, unknown := s.UsersByUnionID(ctx, t.UnionID)
		_, err := s.RevokeUnionID(ctx, t.UnionID)
		if err != nil || unknown != nil {
			return nil, err
		}
		return countLive(users...), nil
	case "app":
		return nil, s.RevokeApp(ctx, t.AppID)
	}
	return nil, s.RevokeAll(ctx)
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
