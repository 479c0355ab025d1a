package wechatauth

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
)

// The states that the health endpoints tell.
const (
	healthy  = "ok"
	degraded = "degraded" // the store is away; the cache serves
	starting = "starting" // no store has answered yet
	stopping = "stopping"
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
	return tellHealth(w, r, http.StatusOK, healthy)
}

// serveReadyz answers 200 when the site may get requests. An outage of the store
// leaves it at 200, degraded: the cache goes on, and with all gates out of service no
// request would be served. With the parameter strict it is 503 then, for a load
// balancer that takes out a gate only while another one is ready.
func (h *Handler) serveReadyz(w http.ResponseWriter, r *http.Request, _ string) error {
	status, state := http.StatusOK, h.readiness(r)
	switch state {
	case starting, stopping:
		status = http.StatusServiceUnavailable
	case degraded:
		if _, strict := r.URL.Query()["strict"]; strict {
			status = http.StatusServiceUnavailable
		}
	}
	return tellHealth(w, r, status, state)
}

func (h *Handler) readiness(r *http.Request) string {
	switch {
	case caddy.Exiting():
		return stopping
	case h.Cloudrun: // it uses no session and no store
		return healthy
	}
	live := h.app.Opened()
	if live == nil {
		return starting
	}
	switch answered, err := live.Sessions.Ready(r.Context()); {
	case !answered:
		return starting
	case err != nil:
		return degraded
	}
	return healthy
}

func tellHealth(w http.ResponseWriter, r *http.Request, status int, state string) error {
	if status != http.StatusOK {
		w.Header().Set("Retry-After", "1")
	}
	return reply.JSONStatus(w, r, status, map[string]string{"status": state})
}
