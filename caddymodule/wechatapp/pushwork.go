package wechatapp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wxgate/wxgate/caddymodule/internal/pushbox"
)

const (
	// pushEvery is how often a gate looks for pushes that wait for their app.
	pushEvery = 2 * time.Second

	pushWorkers = 8
)

// PushQueue returns the pushes that wait for their app.
func (l *Live) PushQueue() pushbox.Queue {
	return pushbox.Queue{Facts: l.Core, Ring: l.App.ring}
}

// PushSite is a site that gives pushes and events to its app.
type PushSite struct {
	Server    *caddyhttp.Server
	Host      string // a name of the site
	Endpoints string // prefix of its endpoints
	Serves    func(appID string) bool
}

// pushSites are the sites that deliver pushes to an app, and their servers.
type pushSites struct {
	mu      sync.Mutex
	sites   []PushSite
	servers []*caddyhttp.Server
}

// DeliverPushesBy makes the App send a push that waits through the routes of the server
// of a site, where a site that delivers it takes it (PushAttemptOf).
func (a *App) DeliverPushesBy(site PushSite) {
	a.pushSites.mu.Lock()
	defer a.pushSites.mu.Unlock()
	if site.Server == nil {
		return
	}
	a.pushSites.sites = append(a.pushSites.sites, site)
	if !slices.Contains(a.pushSites.servers, site.Server) {
		a.pushSites.servers = append(a.pushSites.servers, site.Server)
	}
}

// watchPushes delivers the pushes that wait, until stepDown.
func (a *App) watchPushes() {
	live := a.live.Load()
	if len(a.DeliverPaths(a.AppIDs())) == 0 {
		return
	}
	a.background.every(pushEvery, func(ctx context.Context) error {
		return a.deliverPushes(ctx, live)
	}, func(err error) {
		Logger("").Error("kept pushes are lost", zap.Error(err))
	})
}

// deliverPushes makes an attempt with each push whose turn it is. Another gate of the
// fleet has others.
func (a *App) deliverPushes(ctx context.Context, live *Live) error {
	var group errgroup.Group
	group.SetLimit(pushWorkers)
	defer group.Wait()
	var lost error
	for shard := range pushbox.Shards {
		due, dropped, err := live.PushQueue().Claim(ctx, shard, time.Now())
		switch {
		case errors.Is(err, pushbox.ErrLost):
			lost = err
			continue
		case err != nil:
			return err
		}
		for _, d := range dropped {
			metrics.pushDeliveries.WithLabelValues("dropped").Inc()
			fields := []zap.Field{
				zap.String("appid", d.AppID), zap.Time("since", d.Since),
				zap.Int("attempts", d.Tries),
			}
			if d.Event != "" {
				fields = append(fields, zap.String("event", d.Event),
					zap.String("openid", d.OpenID))
			}
			Logger("").Error("push dropped: the app did not take it", fields...)
		}
		for _, d := range due {
			group.Go(func() error {
				live.PushDone(d, a.redeliver(ctx, d))
				return nil
			})
		}
	}
	return lost
}

// PushDone ends an attempt to deliver a push.
func (l *Live) PushDone(d pushbox.Due, delivered bool) {
	result := "failed"
	if delivered {
		result = "delivered"
	}
	metrics.pushDeliveries.WithLabelValues(result).Inc()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// After an error the lease ends, and the push is delivered again.
	_ = l.PushQueue().Done(ctx, d, delivered, time.Now())
}

// PushAttempt is an attempt to deliver a push that waits. It travels with a request that
// the gate makes itself.
type PushAttempt struct {
	Due pushbox.Due

	taken, delivered bool
}

// End tells how the attempt ended.
func (p *PushAttempt) End(delivered bool) { p.taken, p.delivered = true, delivered }

type pushAttemptKey struct{}

// PushAttemptOf returns the attempt that a request is, or nil. No client can make one.
func PushAttemptOf(r *http.Request) *PushAttempt {
	p, _ := r.Context().Value(pushAttemptKey{}).(*PushAttempt)
	return p
}

// redeliver sends a push through the servers until a site takes it, by the URL that
// WeChat used, and reports whether the app has it. The request has no body: a site that
// is not the push's learns nothing.
func (a *App) redeliver(ctx context.Context, d pushbox.Due) (delivered bool) {
	ctx, cancel := context.WithTimeout(ctx, pushbox.Lease)
	defer cancel()
	attempt := &PushAttempt{Due: d}
	a.pushSites.mu.Lock()
	servers := slices.Clone(a.pushSites.servers)
	if d.Host == "" { // no request of WeChat's has brought it
		i := slices.IndexFunc(a.pushSites.sites, func(s PushSite) bool { return s.Serves(d.AppID) })
		if i < 0 {
			servers = nil // another gate has the site
		} else {
			site := a.pushSites.sites[i]
			d.Host, d.Path = site.Host, site.Endpoints+d.Path
			servers = []*caddyhttp.Server{site.Server}
		}
	}
	a.pushSites.mu.Unlock()
	for _, srv := range servers {
		r, err := http.NewRequestWithContext(
			context.WithValue(ctx, pushAttemptKey{}, attempt), http.MethodPost, d.Path, http.NoBody)
		if err != nil {
			return false
		}
		r.Host, r.RequestURI = d.Host, d.Path
		r.RemoteAddr = "127.0.0.1:0"
		throughServer(srv, r)
		if attempt.taken {
			break
		}
	}
	return attempt.delivered
}

// throughServer runs a request that comes from no connection. A handler panics to break
// a connection off.
func throughServer(srv *caddyhttp.Server, r *http.Request) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			Logger("").Error("panicked", zap.String("panic", fmt.Sprintf("%T", p)),
				zap.Stack("stack"))
		}
	}()
	srv.ServeHTTP(nowhere{make(http.Header)}, r)
}

// nowhere is the writer of an answer that interests nobody.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (n nowhere) WriteHeader(int)             {}
