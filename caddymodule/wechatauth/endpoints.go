package wechatauth

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// endpoint is one of the gate's own endpoints.
type endpoint struct {
	method string
	also   string              // another method, or none
	ask    string              // for a caller that uses another method
	app    bool                // may ask the app (withNext)
	open   bool                // answers whatever tokens a call presents, none among them
	health bool                // for probes: HEAD, too, in every mode, without log and metric
	on     func(*Handler) bool // nil: on every site
	// serve answers a call. It may return a reply.Problem in place of an answer, with
	// an id when it has logged the problem.
	serve func(h *Handler, w http.ResponseWriter, r *http.Request, token string) error
}

// endpoints is the table of endpoints by the rest of their path
// (docs/design.md#endpoints). A slash at the end stands for one more segment.
var endpoints = map[string]endpoint{
	"login": {
		method: http.MethodPost, open: true,
		ask:   "send POST with a JSON body that holds code, the string from wx.login",
		serve: (*Handler).serveLogin,
	},
	"logout": {
		method: http.MethodPost, ask: "send POST with the token",
		serve: (*Handler).serveLogout,
	},
	"session": {
		method: http.MethodGet, ask: "send GET with the token",
		serve: (*Handler).serveSession,
	},
	"sessions": {
		method: http.MethodGet, ask: "send GET with the token",
		serve: (*Handler).serveSessions,
	},
	"sessions/": {
		method: http.MethodDelete, ask: "send DELETE with the token",
		serve: (*Handler).serveEndSession,
	},
	"ticket": {
		method: http.MethodPost, on: func(h *Handler) bool { return h.Tickets },
		ask:   "send POST with the token and a JSON body that holds path",
		serve: (*Handler).serveTicket,
	},
	"decrypt": {
		method: http.MethodPost,
		ask:    "send POST with the token and a JSON body that holds encryptedData and iv",
		serve:  ownData("decrypt", (*Handler).decrypt),
	},
	"push/": {
		method: http.MethodPost, also: http.MethodGet, open: true, app: true, on: takesPushes,
		ask:   "this is the URL of WeChat's message push",
		serve: (*Handler).servePush,
	},
	"jwks.json": {
		method: http.MethodGet, open: true, ask: "send GET", on: signs,
		serve: (*Handler).serveKeySet,
	},
	"phone": {
		method: http.MethodPost,
		ask: "send POST with the token and a JSON body that holds code, " +
			"the string from the getPhoneNumber button",
		serve: ownData("phone", (*Handler).phone),
	},
	"livez": {
		method: http.MethodGet, ask: "send GET or HEAD", open: true, health: true,
		serve: (*Handler).serveLivez,
	},
	"readyz": {
		method: http.MethodGet, ask: "send GET or HEAD", open: true, health: true,
		serve: (*Handler).serveReadyz,
	},
}

// endpointNames lists the endpoints that the site has.
func (h *Handler) endpointNames() (names []string) {
	for name, e := range endpoints {
		if e.on == nil || e.on(h) {
			names = append(names, name)
		}
	}
	names = append(names, h.componentEndpointNames()...)
	slices.Sort(names)
	return names
}

// serveEndpoint answers a call of an endpoint.
func (h *Handler) serveEndpoint(w http.ResponseWriter, r *http.Request, c Claims) error {
	e := endpointOf(c.Route.Endpoint)
	if e.health {
		return h.serveHealth(w, r, e)
	}
	_, wafer := asWafer(r)
	if r.Method != e.method && (e.also == "" || r.Method != e.also) &&
		!(wafer && c.Route.Endpoint == "login" && r.Method == http.MethodGet) {
		return h.refuseCall(w, r, c.Route.Endpoint, reply.MethodNotAllowed(e.method, e.ask))
	}
	if c.Token == "" && !e.open {
		return h.refuse(w, r, h.detailed(refuse(Missing, &reply.SessionMissing, ""), c, r))
	}
	err := e.serve(h, w, r, c.Token)
	p, ok := errors.AsType[reply.Problem](err)
	switch {
	case !ok:
		return err
	case p.ID == "": // it has no log line
		return h.refuseCall(w, r, c.Route.Endpoint, p)
	}
	return p.Write(w, r)
}

// sessionAnswer tells a client about a session, without the openid.
type sessionAnswer struct {
	ThirdSession string `json:"3rd_session,omitempty"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	UnionIDBound bool   `json:"unionid_bound"`
}

func secondsUntil(t time.Time) int64 {
	return max(int64(time.Until(t).Round(time.Second)/time.Second), 0)
}

// checked calls next with the identity behind the token, or refuses the call.
func (h *Handler) checked(
	w http.ResponseWriter, r *http.Request, token string, next func(session.Identity) error,
) error {
	id, err := h.authenticate(r, token)
	if err != nil {
		return h.refuse(w, r, refused(err))
	}
	metrics.decided(Accepted)
	return next(id)
}

// serveSession tells whether the presented session is valid.
func (h *Handler) serveSession(w http.ResponseWriter, r *http.Request, token string) error {
	return h.checked(w, r, token, func(id session.Identity) error {
		metrics.called("session", "ok")
		return reply.JSON(w, r, sessionAnswer{
			ExpiresIn: secondsUntil(id.Expires), UnionIDBound: id.UnionID != "",
		})
	})
}

// serveLogout ends the presented session, or all sessions of its user.
func (h *Handler) serveLogout(w http.ResponseWriter, r *http.Request, token string) error {
	body, err := reply.ReadObject(w, r, reply.MaxBody)
	if err != nil {
		return err
	}
	all, err := body.Flag("all")
	if err != nil {
		return err
	}
	if err := h.logout(r, token, all); err != nil {
		return h.refuse(w, r, refused(err))
	}
	metrics.called("logout", "ok")
	h.log.Info("logout", zap.Bool("all", all), zap.String("session", session.IDOf(token)),
		zap.String("client_ip", clientIP(r)))
	return reply.NoContent(w, r)
}

func (h *Handler) logout(r *http.Request, token string, all bool) error {
	live, err := h.app.Live(r.Context())
	if err != nil {
		return err
	}
	if !all {
		return live.Sessions.Logout(r.Context(), token)
	}
	// Ending every session of a user takes a session that the site accepts.
	id, err := h.authenticate(r, token)
	if err != nil {
		return err
	}
	return live.Sessions.RevokeUser(r.Context(), id.User(), session.EndLogout)
}
