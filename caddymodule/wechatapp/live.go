package wechatapp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/assertion"
	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// Live holds the open resources of a started App.
type Live struct {
	App      *App
	Core     *session.Core
	Sessions *session.Service
	WeChat   *weixin.Client
	Users    *UserLimits

	Assertions *assertion.Keys // nil: no site signs

	limiter   *limit.Limiter
	platforms []platform
}

const (
	// StartTimeout bounds how long a request waits for Start.
	StartTimeout = 10 * time.Second

	// Linger is how long a replaced configuration keeps its store open: a request
	// that its server has begun to read may reach the handlers after Cleanup.
	Linger = 5 * time.Second
)

// errNotStarted is the error for a request while the store is not open.
var errNotStarted = fmt.Errorf("%w: not open", session.ErrUnavailable)

// Live returns the open resources of the App. It waits for Start. The error is
// session.ErrUnavailable.
//
// A reload may close them at any time: later calls of Sessions then return
// session.ErrUnavailable, and calls in flight finish, since Core counts them.
func (a *App) Live(ctx context.Context) (*Live, error) {
	live := a.live.Load()
	if live == nil {
		if live = a.await(ctx); live == nil {
			return nil, errNotStarted
		}
	}
	return live, nil
}

// await waits for Start to end. It returns what is open then: that of the App, or
// of the configuration that runs on. Caddy starts its apps in no particular order,
// and the listeners of a configuration may be open before its App fails to start.
func (a *App) await(ctx context.Context) *Live {
	ctx, cancel := context.WithTimeout(ctx, StartTimeout)
	defer cancel()
	select {
	case <-a.settled:
	case <-ctx.Done():
		return nil
	}
	return a.Opened()
}

// Opened is Live without the wait for Start. It returns nil when nothing is open.
func (a *App) Opened() *Live {
	if live := a.live.Load(); live != nil {
		return live
	}
	return current()
}

// Readiness tells whether the gate may get requests.
type Readiness string

// The states, as readyz and status name them.
const (
	Ready    Readiness = "ok"
	Degraded Readiness = "degraded" // the store is away; the cache serves
	Starting Readiness = "starting" // no store has answered yet
	Stopping Readiness = "stopping"
)

// Readiness asks the store whether it takes logins. trouble says why it does not.
func (l *Live) Readiness(ctx context.Context) (state Readiness, trouble error) {
	answered, trouble := l.Sessions.Ready(ctx)
	switch {
	case !answered:
		return Starting, trouble
	case trouble != nil:
		return Degraded, trouble
	}
	return Ready, nil
}

// current returns what the running configuration has open, or nil.
func current() *Live {
	if a := Current(); a != nil {
		return a.live.Load()
	}
	return nil
}

// started lists the Apps that have started and are not cleaned up, oldest first.
// During a reload there are two; when Caddy refuses the new configuration after
// all, since another of its apps does not start, the old one runs on.
var started appList

// lingering lists the replaced Apps that still hold what they took.
var lingering appList

type appList struct {
	mu   sync.Mutex
	apps []*App
}

func (s *appList) add(a *App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps = append(s.apps, a)
}

func (s *appList) all() []*App {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.apps)
}

func (s *appList) remove(a *App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps = slices.DeleteFunc(s.apps, func(other *App) bool { return other == a })
}

// Current returns the App that started last, or nil.
func Current() *App {
	apps := started.all()
	if len(apps) == 0 {
		return nil
	}
	return apps[len(apps)-1]
}

// AllowLogin takes one login of a client from the rate limits: those of this gate,
// then the limit per client that all gates of the store share.
func (l *Live) AllowLogin(
	ctx context.Context, client netip.Addr,
) (wait time.Duration, by limit.Limit) {
	l.limiter.Set(l.App.limits) // configurations share the buckets, not the rates
	if wait, by = l.limiter.Allow(client); by != "" || !l.Core.Shared() {
		return limit.Spread(wait), by
	}
	name, r := l.limiter.Bucket(client)
	if r.Events <= 0 {
		return 0, ""
	}
	if wait, ok := l.spend(ctx, name, r); !ok {
		return wait, limit.OfClient
	}
	return 0, ""
}

// BeginLogin counts an exchange of a client as under way until end is called with
// its outcome. A limit refuses it when too many are, or when WeChat has refused too many
// codes of the client.
func (l *Live) BeginLogin(
	ctx context.Context, client netip.Addr,
) (end func(error), wait time.Duration, by limit.Limit) {
	l.limiter.Set(l.App.limits)
	done, wait, by := l.limiter.Begin(ctx, client)
	if by != "" {
		return nil, limit.Spread(wait), by
	}
	metrics.loginsInFlight.Add(1)
	var once sync.Once
	return func(err error) {
		once.Do(func() {
			metrics.loginsInFlight.Add(-1)
			done(codeRefused(err))
		})
	}, 0, ""
}

// NoRoom returns why a login that AllowLogin or BeginLogin refuses finds no room: a
// *weixin.Error while WeChat answers none of those under way, else nil. began says
// that BeginLogin refused it.
func (l *Live) NoRoom(began bool) error {
	if !began && !l.limiter.Full() {
		return nil // its client does too much
	}
	if e := l.WeChat.NoAnswer(); e != nil {
		return e
	}
	return nil
}

// codeRefused reports whether WeChat has judged the code and refused it. An outage
// or a wrong AppSecret says nothing of the client.
func codeRefused(err error) bool {
	e, ok := errors.AsType[*weixin.Error](err)
	return ok && slices.Contains([]weixin.Class{
		weixin.ClassCodeInvalid, weixin.ClassCodeUsed, weixin.ClassUserBlocked,
		weixin.ClassRateLimited,
	}, e.Class)
}

// LoginsInFlight returns the number of logins under way at all gates of this
// process.
func LoginsInFlight() int64 { return metrics.loginsInFlight.Load() }

// spend takes one event from a bucket that all gates of the store share.
func (l *Live) spend(ctx context.Context, bucket string, r limit.Rate) (time.Duration, bool) {
	rate := session.Rate{Every: max(1, r.Per/time.Duration(r.Events)), Burst: r.Events}
	wait := l.Core.Spend(ctx, bucket, rate)
	return limit.Spread(wait), wait <= 0
}

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
