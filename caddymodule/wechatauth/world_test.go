package wechatauth

import (
	"testing"

	"github.com/wxgate/wxgate/caddymodule/wechatapp"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
)

// world is an app with a gate in front of it, without a server.
type world struct {
	*apptest.World
	gate *Handler
}

// newWorld provisions; start is the caller's. The fields of h configure the site.
func newWorld(t testing.TB, h *Handler, options ...apptest.Option) *world {
	t.Helper()
	w := &world{World: apptest.New(t, options...)}
	w.gate = w.newGate(h)
	return w
}

// newGate provisions one more site.
func (w *world) newGate(h *Handler) *Handler {
	w.T.Helper()
	if err := h.Provision(w.Ctx); err != nil {
		w.T.Fatal(err)
	}
	h.log, h.refusals = w.Log, wechatapp.NewRefusalLog(w.Log)
	return h
}

func (w *world) start() *world {
	w.T.Helper()
	w.Start()
	return w
}
