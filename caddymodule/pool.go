package caddymodule

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// pool keeps what must outlive a configuration: open stores with the cache in front of them, WeChat clients with their breaker, the login limiter. Keys name the resource and nothing
// else, so that a reload which changes some unrelated setting finds the same one (CADDY.md 1.6).
var pool = caddy.NewUsagePool()

type (
	coreKey    struct{ store string }
	wechatKey  struct{ api API }
	limiterKey struct{}

	allowancesKey struct{}
)

type pooledCore struct{ *session.Core }

// Destruct closes the store once no configuration refers to it.
func (c pooledCore) Destruct() error { return c.Close() }

type pooledWeChat struct{ *weixin.Client }

// Destruct closes idle connections.
func (c pooledWeChat) Destruct() error {
	c.Close()
	return nil
}

type pooledLimiter struct{ *limit.Limiter }

// Destruct has nothing to release.
func (pooledLimiter) Destruct() error { return nil }

// holdings is what one App has taken from the pool.
type holdings struct{ keys []any }

// take finds or makes the pooled object of a key and remembers to give it back.
func take[T caddy.Destructor](h *holdings, key any, construct func() (T, error)) (v T, err error) {
	got, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) { return construct() })
	if err != nil {
		return v, err
	}
	h.keys = append(h.keys, key)
	return got.(T), nil
}

// release gives everything back. What nobody else holds is closed.
func (h *holdings) release(log *zap.Logger) {
	for _, k := range h.keys {
		if _, err := pool.Delete(k); err != nil {
			log.Error("closing what the last configuration left", zap.Error(err))
		}
	}
	h.keys = nil
}

// takeCore opens the store unless it is open.
func takeCore(h *holdings, opener StoreOpener, maxSessions int64) (*session.Core, error) {
	c, err := take(h, coreKey{opener.Identity()}, func() (pooledCore, error) {
		log := liveLogger().Named("store")
		st, err := opener.Open(log)
		if err != nil {
			return pooledCore{}, fmt.Errorf("opening session store: %w", err)
		}
		return newPooledCore(st, log, maxSessions)
	})
	return c.Core, err
}

func newPooledCore(st store.Store, log *zap.Logger, maxSessions int64) (pooledCore, error) {
	c, err := session.NewCore(session.CoreConfig{
		Store: st, MaxSessions: maxSessions, Logger: log,
		Hits: metrics.cacheHits, Misses: metrics.cacheMisses,
	})
	if err != nil {
		return pooledCore{}, errors.Join(err, st.Close())
	}
	return pooledCore{c}, nil
}

func takeWeChat(h *holdings, api API) (*weixin.Client, error) {
	c, err := take(h, wechatKey{api}, func() (pooledWeChat, error) {
		log := liveLogger().Named("weixin")
		logins, rest := &session.Outage{What: "WeChat", Log: log}, &session.Outage{What: "WeChat API", Log: log}
		c, err := weixin.New(weixin.Config{
			BaseURL: api.BaseURL,
			Timeout: time.Duration(api.Timeout),
			Observe: func(call weixin.Call) {
				metrics.observeWeChat(call)
				switch call.Name {
				case "code2session":
					noteOutage(logins, call)
				case "relayed": // to any path that an app chooses: one that fails says nothing of the others, and each is logged
				default: // which can be ill while everybody logs in
					noteOutage(rest, call)
				}
			},
		})
		return pooledWeChat{c}, err
	})
	return c.Client, err
}

// noteOutage tells an answer of WeChat, whatever it says, from silence.
func noteOutage(o *session.Outage, call weixin.Call) {
	switch call.Class {
	case weixin.ClassCanceled: // nobody waited to hear
		return
	case weixin.ClassUnavailable:
		o.Note(fmt.Errorf("%s: %s", call.Name, call.Class))
		return
	}
	o.Note(nil)
}

func takeLimiter(h *holdings, cfg limit.Config) (*limit.Limiter, error) {
	l, err := take(h, limiterKey{}, func() (pooledLimiter, error) { return pooledLimiter{limit.New(cfg)}, nil })
	return l.Limiter, err
}

func takeAllowances(h *holdings) (*allowances, error) {
	return take(h, allowancesKey{}, func() (*allowances, error) { return newAllowances(), nil })
}

// lease counts the uses of an App's holdings. Caddy cleans a configuration up while its last requests still run (CADDY.md 1.6), so the holdings are given back by whoever leaves last.
// The zero lease is open.
type lease struct {
	state   atomic.Int64 // number of uses, plus closing
	release func()
}

const (
	closing  int64 = 1 << 32 // close was called: the last one out releases
	released int64 = 1 << 33
)

// enter begins a use; false when the holdings are gone.
func (l *lease) enter() bool {
	if l.state.Add(1)&released != 0 {
		l.state.Add(-1)
		return false
	}
	return true
}

// leave ends a use.
func (l *lease) leave() {
	l.state.Add(-1)
	l.tryRelease()
}

// close lets the last use, or itself, release.
func (l *lease) close() {
	l.state.Or(closing)
	l.tryRelease()
}

func (l *lease) tryRelease() {
	if l.state.CompareAndSwap(closing, closing|released) {
		l.release()
	}
}
