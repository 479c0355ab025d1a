package wechatapp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// pool keeps what outlives a configuration: open stores with their cache, WeChat
// clients with their circuit breaker, rate limits. A key names the resource and
// nothing else, so that a reload with another setting finds the same resource
// (docs/caddy.md#reload).
var pool = caddy.NewUsagePool()

type (
	coreKey    struct{ store string }
	wechatKey  struct{ api API }
	limiterKey struct{}

	userLimitsKey struct{}
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

// holdings lists what one App has taken from the pool.
type holdings struct {
	mu   sync.Mutex
	keys []any

	releasing sync.Mutex // held until what is released is closed
}

// take finds or makes the pooled object of a key. release gives it back.
func take[T caddy.Destructor](h *holdings, key any, construct func() (T, error)) (v T, err error) {
	got, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) { return construct() })
	if err != nil {
		return v, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys = append(h.keys, key)
	return got.(T), nil
}

// release gives everything back, in the order in which it was taken. The pool closes
// what no other App holds; the core, first, waits for the calls under way.
func (h *holdings) release() { h.releaseIf(func(any) bool { return true }) }

// releaseStore gives back the store alone. It reports whether there was one.
func (h *holdings) releaseStore() bool {
	return h.releaseIf(func(key any) bool {
		_, ok := key.(coreKey)
		return ok
	})
}

func (h *holdings) releaseIf(which func(key any) bool) bool {
	h.releasing.Lock()
	defer h.releasing.Unlock()
	var keys, kept []any
	h.mu.Lock()
	for _, k := range h.keys {
		if which(k) {
			keys = append(keys, k)
		} else {
			kept = append(kept, k)
		}
	}
	h.keys = kept
	h.mu.Unlock()
	for _, k := range keys {
		if _, err := pool.Delete(k); err != nil {
			Logger("").Error("closing replaced configuration failed", zap.Error(err))
		}
	}
	return len(keys) > 0
}

// takeCore opens the store unless it is open, and again when it is broken.
func takeCore(h *holdings, opener store.Opener, maxSessions int64) (*session.Core, error) {
	c, err := take(h, coreKey{opener.Identity()}, func() (pooledCore, error) {
		log := Logger("store")
		st, err := opener.Open(log)
		if err != nil {
			return pooledCore{}, fmt.Errorf("opening session store: %w", err)
		}
		return newPooledCore(st, log, maxSessions)
	})
	if err != nil {
		return nil, err
	}
	return c.Core, c.Reopen()
}

// checkReplacement refuses a store that would begin empty in the place of one with
// sessions: a mistyped path logs all users out. It comes before the new store makes a
// file or a master key.
func (a *App) checkReplacement() error {
	next, ok := a.opener.(store.Beginner)
	running := Current()
	if !ok || running == nil || next.MayBegin() || !next.Begins() ||
		running.opener.Identity() == a.opener.Identity() {
		return nil
	}
	live := running.live.Load()
	if live == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), StartTimeout)
	defer cancel()
	stats, err := live.Sessions.Stats(ctx)
	if err == nil && stats.Store.Sessions == 0 {
		return nil
	}
	Logger("store").Error("reload would log all users out; it is refused",
		zap.String("store", running.opener.Identity()),
		zap.Int64("sessions", stats.Store.Sessions),
		zap.String("empty_store", a.opener.Identity()))
	return fmt.Errorf("there is no session store at %s, and %s has %d sessions: check the path, "+
		"or consent to an empty store with `new` in the block of `store`",
		a.opener.Identity(), running.opener.Identity(), stats.Store.Sessions)
}

// renewStore makes a store that an earlier configuration has opened take up the
// settings of this one.
func (a *App) renewStore() {
	r, ok := a.opener.(store.Renewer)
	if !ok {
		return
	}
	if err := a.live.Load().Core.Renew(r); err != nil {
		a.log.Warn("settings of session store not taken up", zap.Error(err),
			zap.String("cure", "the connections so far go on; correct the settings or the server"))
	}
}

func newPooledCore(st store.Store, log *zap.Logger, maxSessions int64) (pooledCore, error) {
	c, err := session.NewCore(session.CoreConfig{
		Store: st, MaxSessions: maxSessions, Logger: log, Audit: Logger("audit"),
		Hits: metrics.cacheHits, Misses: metrics.cacheMisses, Replaced: metrics.damagedStores,
		OpenStreams: metrics.openStreams, EndedStreams: metrics.endedStreams,
		Foreign: metrics.foreignRecords, Observe: metrics.observeStore,
	})
	if err != nil {
		return pooledCore{}, errors.Join(err, st.Close())
	}
	return pooledCore{c}, nil
}

func takeWeChat(h *holdings, api API) (*weixin.Client, error) {
	c, err := take(h, wechatKey{api}, func() (pooledWeChat, error) {
		lines := newWeChatLog(Logger("weixin"))
		c, err := weixin.New(weixin.Config{
			BaseURL: api.BaseURL,
			Timeout: time.Duration(api.Timeout),
			Observe: func(call weixin.Call) {
				metrics.observeWeChat(call)
				lines.observe(call)
			},
			LoginsChanged: lines.transitions("WeChat"),
			CallsChanged:  lines.transitions("WeChat API"), // can fail while logins succeed
			SecretChanged: lines.secretChanged,
		})
		return pooledWeChat{c}, err
	})
	return c.Client, err
}

func takeLimiter(h *holdings, cfg limit.Config) (*limit.Limiter, error) {
	construct := func() (pooledLimiter, error) { return pooledLimiter{limit.New(cfg)}, nil }
	l, err := take(h, limiterKey{}, construct)
	return l.Limiter, err
}

func takeUserLimits(h *holdings) (*UserLimits, error) {
	return take(h, userLimitsKey{}, func() (*UserLimits, error) { return NewUserLimits(), nil })
}

// refuseEmpty refuses a reload that would move from a store with live sessions to one
// without any, unless the operator consents: a mistyped address or database would log
// all users out. A store that does not answer is not judged.
func (a *App) refuseEmpty(core *session.Core, sessions *session.Service) error {
	if _, judged := a.opener.(store.Beginner); judged { // by checkReplacement
		return nil
	}
	next, ok := a.opener.(store.Consenter)
	was := Current()
	if !ok || next.MayBegin() || was == nil {
		return nil
	}
	live := was.live.Load()
	if live == nil || live.Core == core || !holdsSessions(live.Sessions, false) ||
		holdsSessions(sessions, true) {
		return nil
	}
	return fmt.Errorf("refusing to move from session store %s to %s, which holds no session: "+
		"all users would be logged out; correct the address, or write new into the block of "+
		"store to begin with an empty one", was.opener.Identity(), a.opener.Identity())
}

// holdsSessions reports whether live sessions need a master key of the store, or
// unknown when the store does not answer.
func holdsSessions(s *session.Service, unknown bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), keysPatience)
	defer cancel()
	needs, err := s.MasterKeys(ctx)
	if err != nil {
		return unknown
	}
	for _, until := range needs {
		if until.After(time.Now()) {
			return true
		}
	}
	return false
}
