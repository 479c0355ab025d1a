package wechatapp

import (
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// How a process ends (docs/design.md#stopping). Caddy closes the listeners, and then
// waits up to grace_period for connections. Few of them still need the store, so the
// gate hands it over meanwhile: the next process serves while this one drains.

const (
	// handOverAfter leaves time to requests that a server has begun to read.
	handOverAfter = time.Second

	// exitPatience bounds how long a store that does not close, as on a disk that
	// hangs, keeps the process.
	exitPatience = 20 * time.Second
)

// OnExit runs f on a goroutine of its own when the process exits and the server of
// ctx, a handler's, has closed its listeners. A reload does not run it.
func OnExit(ctx caddy.Context, f func()) {
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || srv == nil {
		return
	}
	srv.RegisterOnShutdown(func() {
		if caddy.Exiting() {
			f()
		}
	})
}

// HandOver closes the store soon, so that another process can open it. A later
// request gets session.ErrUnavailable where it needs a session.
func (a *App) HandOver() {
	time.Sleep(handOverAfter)
	began := time.Now()
	if a.closeStore() {
		Logger("store").Info("session store handed over; connections drain",
			zap.String("store", a.opener.Identity()),
			zap.Duration("waited_for_calls", time.Since(began).Round(time.Millisecond)))
	}
}

// closeStore closes the store, which replaced Apps may hold, too. It reports false
// when this App has given it back before.
func (a *App) closeStore() bool {
	mine := a.held.releaseStore()
	for _, old := range lingering.all() {
		old.held.releaseStore()
	}
	return mine
}

// exit gives everything back within exitPatience.
func (a *App) exit() {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		a.closeStore()
		a.Close()
	}()
	select {
	case <-closed:
	case <-time.After(exitPatience):
		Logger("store").Error("session store does not close; exiting without it",
			zap.String("store", a.opener.Identity()))
	}
}
