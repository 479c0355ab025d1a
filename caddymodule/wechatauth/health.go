package wechatauth

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// serveHealth answers a probe, which comes every few seconds and leaves no trace.
func (h *Handler) serveHealth(w http.ResponseWriter, r *http.Request, e endpoint) error {
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return reply.MethodNotAllowed("GET, HEAD", e.ask).Write(w, r)
	}
	return e.serve(h, w, r, "")
}

// serveLivez answers 200 as long as the process serves. A restart cures no outage of
// the store or of WeChat, so these do not count.
func (h *Handler) serveLivez(w http.ResponseWriter, r *http.Request, _ string) error {
	return tellHealth(w, r, http.StatusOK, wechatapp.Ready)
}

// serveReadyz answers 200 when the site may get requests. An outage of the store
// leaves it at 200, degraded: the cache goes on, and with all gates out of service no
// request would be served. With the parameter strict it is 503 then, for a load
// balancer that takes out a gate only while another one is ready.
func (h *Handler) serveReadyz(w http.ResponseWriter, r *http.Request, _ string) error {
	status := http.StatusOK
	state, waiting := h.readiness(r)
	switch state {
	case wechatapp.Starting, wechatapp.Stopping:
		status = http.StatusServiceUnavailable
	case wechatapp.Degraded:
		if _, strict := r.URL.Query()["strict"]; strict {
			status = http.StatusServiceUnavailable
		}
	}
	return tellHealth(w, r, status, state, waiting...)
}

// readiness returns the state of the gate and what it waits for.
func (h *Handler) readiness(r *http.Request) (state wechatapp.Readiness, waiting []string) {
	switch {
	case caddy.Exiting():
		return wechatapp.Stopping, nil
	case h.Cloudrun: // it uses no session and no store
		return wechatapp.Ready, nil
	}
	live := h.app.Opened()
	if live == nil {
		return wechatapp.Starting, nil
	}
	state, _ = live.Readiness(r.Context())
	return live.WithTickets(state)
}

// healthAnswer tells a probe how the gate does.
type healthAnswer struct {
	Status  wechatapp.Readiness `json:"status"`
	Waiting []string            `json:"waiting_for,omitempty"`
}

func tellHealth(
	w http.ResponseWriter, r *http.Request, status int, state wechatapp.Readiness,
	waiting ...string,
) error {
	if status != http.StatusOK {
		w.Header().Set("Retry-After", "1")
	}
	return reply.JSONStatus(w, r, status, healthAnswer{state, waiting})
}
