package wechatauth

import (
	"errors"
	"net/http"
	"path"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// sessionsAnswer lists the caller's own sessions.
type sessionsAnswer struct {
	Sessions []ownSession `json:"sessions"` // newest first; never empty
}

// ownSession is one session. Its id opens nothing, and is the one that the log shows.
type ownSession struct {
	ID       string    `json:"id"`
	Created  time.Time `json:"created"`
	LastUsed time.Time `json:"last_used"` // noted lazily
	Current  bool      `json:"current"`   // the one that asks
}

// serveSessions lists the live sessions of the caller.
func (h *Handler) serveSessions(w http.ResponseWriter, r *http.Request, token string) error {
	return h.ofCaller(w, r, token, func(s *session.Service, id session.Identity) error {
		list, err := s.OwnSessions(r.Context(), id.User())
		if err != nil {
			return h.refuse(w, r, refused(err))
		}
		own := session.IDOf(token)
		var answer sessionsAnswer
		for _, i := range list {
			answer.Sessions = append(answer.Sessions, ownSession{
				ID: i.ID, Current: i.ID == own,
				Created:  i.Created.UTC().Truncate(time.Second),
				LastUsed: i.LastSeen.UTC().Truncate(time.Second),
			})
		}
		metrics.called("sessions", "ok")
		return reply.JSON(w, r, answer)
	})
}

// noSession answers for an id of another user as for one of nobody.
var noSession = reply.Problem{
	Status: http.StatusNotFound, Code: reply.NotFound.Code,
	Detail: "you have no session with this id: GET the list to see yours",
}

// serveEndSession ends one session of the caller.
func (h *Handler) serveEndSession(w http.ResponseWriter, r *http.Request, token string) error {
	return h.ofCaller(w, r, token, func(s *session.Service, caller session.Identity) error {
		id := path.Base(r.URL.EscapedPath())
		err := session.ErrUnknown
		if len(id) == session.IDLen {
			err = s.EndByID(r.Context(), caller.User(), id, session.EndLogout)
		}
		switch {
		case errors.Is(err, session.ErrUnknown):
			return noSession
		case err != nil:
			return h.refuse(w, r, refused(err))
		}
		metrics.called("sessions", "ok")
		h.log.Info("logout", zap.Bool("all", false), zap.String("session", id),
			zap.String("client_ip", clientIP(r)))
		return reply.NoContent(w, r)
	})
}

// ofCaller calls next with the sessions and the identity behind the token, or refuses
// the call.
func (h *Handler) ofCaller(
	w http.ResponseWriter, r *http.Request, token string,
	next func(*session.Service, session.Identity) error,
) error {
	return h.checked(w, r, token, func(id session.Identity) error {
		live, err := h.app.Live(r.Context())
		if err != nil {
			return h.refuse(w, r, refused(err))
		}
		return next(live.Sessions, id)
	})
}
