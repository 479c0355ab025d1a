package wechatauth

import (
	"context"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// exiting ends when the process exits and has closed its listeners.
var exiting, exit = context.WithCancel(context.Background())

// atExit makes the exit of the process quick: it ends event streams and the dropping
// of bodies, and hands the store over.
func (h *Handler) atExit(ctx caddy.Context) {
	wechatapp.OnExit(ctx, func() {
		exit()
		reply.StopDropping()
		if h.app != nil {
			h.app.HandOver()
		}
	})
}

// endAtExit ends an event stream when the process exits; its client connects again by
// itself. Any other request may end within grace_period.
func endAtExit(w http.ResponseWriter, r *http.Request) {
	accept := r.Header["Accept"]
	if len(accept) == 0 || !strings.HasPrefix(accept[0], "text/event-stream") {
		return
	}
	stop := context.AfterFunc(exiting, func() {
		defer func() { _ = recover() }() // the request may have just ended
		breakOff(w)
	})
	context.AfterFunc(r.Context(), func() { stop() })
}
