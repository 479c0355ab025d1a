package caddymodule

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// running is what a started App has open.
type running struct {
	app        *App
	core       *session.Core
	sessions   *session.Service
	wechat     *weixin.Client
	limiter    loginLimiter
	allowances *allowances
	lease      *lease // entered; leave it after use
}

// loginLimiter counts the logins that it has let in and that are not over.
type loginLimiter struct{ *limit.Limiter }

// Begin is that of limit.Limiter.
func (l loginLimiter) Begin() (end func(), ok bool) {
	done, ok := l.Limiter.Begin()
	if !ok {
		return nil, false
	}
	metrics.loginsInFlight.Add(1)
	return sync.OnceFunc(func() {
		metrics.loginsInFlight.Add(-1)
		done()
	}), true
}

// current is the App that started last. Caddy starts its apps in no particular order, and the listeners of a configuration may be open before its App turns out not to start: whoever comes
// in by them is served by the one that runs on.
var current atomic.Pointer[App]

const (
	// startTimeout bounds how long a request waits for Start.
	startTimeout = 10 * time.Second

	// linger is how long a replaced configuration keeps what it holds: a request that its server had begun to read may reach its handlers after Cleanup.
	linger = 5 * time.Second
)

// errNotStarted is what a request gets when the store could not be opened in time, or was closed behind it.
var errNotStarted = fmt.Errorf("%w: not open", session.ErrUnavailable)

// enter returns what is open, for one use that ends with a call of its lease's leave.
func (a *App) enter(ctx context.Context) (*running, error) {
	live := a.live.Load()
	if live == nil {
		if live = a.await(ctx); live == nil {
			return nil, errNotStarted
		}
	}
	if !live.lease.enter() {
		return nil, errNotStarted
	}
	return live, nil
}

// await waits for Start to end and returns what is open then: the App's own, or else that of the configuration which runs on.
func (a *App) await(ctx context.Context) *running {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-a.settled:
	case <-ctx.Done():
		return nil
	}
	if live := a.live.Load(); live != nil {
		return live
	}
	if other := current.Load(); other != nil {
		return other.live.Load()
	}
	return nil
}

// share gives what configurations have in common the settings of this one.
func (a *App) share() {
	live := a.live.Load()
	live.limiter.Set(a.limits)
}

// stepDown undoes what Start did beyond this App. One that was replaced has nothing to undo; one that goes while it is current belongs to a configuration that was refused after all, since
// another app of it did not start, and what ran before runs on with its own settings (DESIGN.md P7).
func (a *App) stepDown() {
	if before := a.previous.Swap(nil); current.CompareAndSwap(a, before) && before != nil {
		before.share()
	}
	if c := current.Load(); c != nil {
		c.previous.CompareAndSwap(a, nil) // or a chain of old configurations would stay in memory
	}
}
