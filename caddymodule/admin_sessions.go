package caddymodule

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
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
}

// sessionRow is one session. Its id opens nothing.
type sessionRow struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // live, idle, expired or revoked
	Created  time.Time `json:"created"`
	LastSeen time.Time `json:"last_seen"` // noted lazily
	Expires  time.Time `json:"expires"`
}

func serveSessions(live *running, w http.ResponseWriter, r *http.Request) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refusal(http.StatusBadRequest, "the query is malformed", nil)
	}
	var users []session.UserInfo
	switch {
	case asksFor(q, "appid", "openid"):
		var u session.UserInfo
		u, err = live.sessions.User(r.Context(), store.UserID{AppID: q.Get("appid"), OpenID: q.Get("openid")})
		if err == nil {
			users = []session.UserInfo{u}
		} else if errors.Is(err, store.ErrNotFound) {
			err = nil // nobody
		}
	case asksFor(q, "unionid"):
		users, err = live.sessions.UsersByUnionID(r.Context(), q.Get("unionid"))
	default:
		return refusal(http.StatusBadRequest, "ask for ?appid=…&openid=… or for ?unionid=…", nil)
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

func rowsOf(u session.UserInfo) userAnswer {
	whole := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	out := userAnswer{AppID: u.AppID, OpenID: u.OpenID, UnionID: u.UnionID, LastLogin: whole(u.LastLogin), Sessions: []sessionRow{}}
	for _, s := range u.Sessions {
		out.Sessions = append(out.Sessions, sessionRow{ID: s.ID, State: s.State, Created: whole(s.Created), LastSeen: whole(s.LastSeen), Expires: whole(s.Expires)})
	}
	return out
}
