package wechatauth

import (
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// The life of a ticket in seconds: by default, and at most. A link is easily passed
// on, and a long download makes many requests.
const (
	ticketLife    = 5 * 60
	maxTicketLife = 24 * 60 * 60
)

// ticketAnswer tells a client its link.
type ticketAnswer struct {
	URL       string `json:"url"`
	ExpiresIn int64  `json:"expires_in"` // seconds
}

// serveTicket makes a link that is good without a header, for one path.
func (h *Handler) serveTicket(w http.ResponseWriter, r *http.Request, token string) error {
	return h.ofCaller(w, r, token, func(s *session.Service, id session.Identity) error {
		body, err := reply.ReadObject(w, r, reply.MaxBody)
		if err != nil {
			return err
		}
		path, err := body.Text("path")
		if err != nil {
			return err
		}
		life, err := body.Count("expires_in", ticketLife, maxTicketLife)
		if err != nil {
			return err
		}
		target, err := h.rules.CheckTicketTarget(path)
		if err != nil {
			return reply.Invalid(http.StatusBadRequest, "path: "+err.Error())
		}
		ends := time.Now().Add(time.Duration(life) * time.Second)
		if ends.After(id.Expires) {
			ends = id.Expires
		}
		metrics.called("ticket", "ok")
		return reply.JSON(w, r, ticketAnswer{
			URL:       gate.WithTicket(target, s.Ticket(token, target, ends)),
			ExpiresIn: secondsUntil(ends),
		})
	})
}

// takeTicket takes the ticket out of a request, and out of Caddy's copy of it, which
// php_fastcgi passes to the app.
func takeTicket(rules *gate.Rules, r *http.Request) string {
	before, _ := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	return rules.TakeTicket(r, before.URL)
}

// fromTicket returns the token in the ticket of a request.
func (h *Handler) fromTicket(
	w http.ResponseWriter, r *http.Request, ticket string,
) (token string, err error) {
	live, err := h.app.Live(r.Context())
	if err != nil {
		return "", err
	}
	// A page that a ticket opens must not tell others its address.
	w.Header()["Referrer-Policy"] = []string{"no-referrer"}
	return live.Sessions.TicketToken(ticket, gate.TicketTarget(r))
}
