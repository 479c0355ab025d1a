package session

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// CoreConfig is what a Core is made of.
type CoreConfig struct {
	Store       store.Store // closed by Core.Close
	MaxSessions int64       // entries that the cache may hold; should exceed the live sessions
	Logger      *zap.Logger // told of each outage of the store, once; nil for none

	// Hits and Misses count the checks that the cache answered and did not answer; nil for none.
	Hits, Misses Counter
}

// Counter is what a metric has to offer. It must be cheap: it is on the path of every request.
type Counter interface{ Inc() }

type noCounter struct{}

func (noCounter) Inc() {}

// Core is the part of the gate's state that must outlive a configuration: the open store, the cache in front of it, and the logins and look-ups under way. Services of several
// configurations may share one; it is safe for concurrent use.
type Core struct {
	store   store.Store
	shared  store.Shared // the same, when other gates use it too; else nil
	stale   atomic.Int64 // nanoseconds: SetMaxStaleness
	cache   *cache
	lookups singleflight.Group
	logins  flights

	revocations revocations

	outage  Outage
	work    sync.WaitGroup // logins and look-ups whose client may have gone, and the retrying of revocations
	closing context.Context
	close   context.CancelFunc

	hits, misses Counter
}

// NewCore returns a Core over an open store. A store.Shared is watched from then on.
func NewCore(cfg CoreConfig) (*Core, error) {
	c, err := newCache(cfg.MaxSessions)
	if err != nil {
		return nil, err
	}
	core := &Core{store: cfg.Store, cache: c, outage: Outage{What: "session store", Log: cfg.Logger}, hits: cfg.Hits, misses: cfg.Misses}
	core.revocations.core = core
	core.closing, core.close = context.WithCancel(context.Background())
	if core.outage.Log == nil {
		core.outage.Log = zap.NewNop()
	}
	if core.hits == nil {
		core.hits = noCounter{}
	}
	if core.misses == nil {
		core.misses = noCounter{}
	}
	if core.shared, _ = cfg.Store.(store.Shared); core.shared != nil {
		core.outage.Quiet = true // it tells of its outages itself
		core.shared.Watch(core.changed)
	}
	return core, nil
}

// SetMaxSessions changes the number of entries that the cache may hold.
func (c *Core) SetMaxSessions(n int64) { c.cache.entries.UpdateMaxCost(n) }

// SetMaxStaleness changes how long the cache in front of a store.Shared is believed without hearing from it; 0, as at first, is not at all. It has no meaning for other stores.
func (c *Core) SetMaxStaleness(d time.Duration) { c.stale.Store(int64(d)) }

// Close waits for the logins under way, then closes the cache and the store. Revocations that the store has not taken by then are given up, with a line in the log each. No other method may be
// called during or after it: ristretto does not survive that (STORE.md 1.8).
func (c *Core) Close() error {
	c.close()
	c.revocations.close()
	c.work.Wait()
	c.cache.entries.Close()
	return c.store.Close()
}

// asked notes the outcome of a call to the store and returns it. Only unavailability is news about the store; a caller who gave up is not.
func (c *Core) asked(way uint32, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
	case errors.Is(err, store.ErrUnavailable):
		c.outage.note(way, err)
	default:
		c.outage.note(way, nil)
	}
	return err
}

// survive turns a panic into an error: on a goroutine of ours it would end the process, every site of it. The panic's value is not logged unless it is Go's own, since it may hold anything.
func survive[T any](c *Core, f func() (T, error)) (out T, err error) {
	defer func() {
		if p := recover(); p != nil {
			text := fmt.Sprintf("%T", p)
			if e, ok := p.(runtime.Error); ok {
				text = e.Error()
			}
			c.outage.Log.Error("panicked", zap.String("panic", text), zap.Stack("stack"))
			err = fmt.Errorf("%w: interrupted", ErrUnavailable)
		}
	}()
	return f()
}
