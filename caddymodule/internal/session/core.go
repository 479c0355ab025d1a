package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/wxgate/wxgate/caddymodule/internal/span"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// CoreConfig is what a Core is made of.
type CoreConfig struct {
	Store       store.Store // closed by Core.Close
	MaxSessions int64       // entries that the cache may hold; should exceed the live sessions
	Logger      *zap.Logger // nil: no logs
	Audit       *zap.Logger // how sessions end; nil: no logs

	// Hits and Misses count the checks that the cache answered and did not
	// answer, Replaced how often the store was emptied or replaced, and Foreign the
	// records that another than a gate wrote; nil for none.
	Hits, Misses, Replaced, Foreign Counter

	// OpenStreams counts the requests that have gone on for a while, and EndedStreams
	// those that were closed with their session; nil for none.
	OpenStreams  Gauge
	EndedStreams Counter

	// Observe hears of each StoreCall; nil: nobody does.
	Observe func(StoreCall)
}

// Counter is a metric that is cheap enough for the path of every request.
type Counter interface{ Inc() }

// Gauge is one that also falls.
type Gauge interface{ Add(n int64) int64 }

type noCounter struct{}

func (noCounter) Inc() {}

func (noCounter) Add(int64) int64 { return 0 }

// Core is the part of the gate that outlives a configuration: the open store,
// the cache in front of it, and the logins and look-ups under way. Services of
// several configurations may share one. It is safe for concurrent use.
type Core struct {
	store   store.Store
	shared  store.Shared // the same, when other gates use it too; else nil
	clocked store.Clocked
	cache   *cache
	lookups singleflight.Group
	logins  flights

	doubts      doubts
	revocations revocations
	streams     streams
	lapses      lapses

	log    *zap.Logger
	audit  *zap.Logger
	outage outage
	uses   uses

	answered atomic.Bool // the store has answered once

	work     sync.WaitGroup // goroutines of background
	workDone bool           // by Close, with workMu held
	workMu   sync.Mutex

	closing context.Context
	close   context.CancelFunc

	hits, misses, replaced, foreignRecords Counter

	observe func(StoreCall) // or nil

	foreignLog rate.Sometimes
}

// NewCore returns a Core over an open store. It watches a store.Shared from
// then on.
func NewCore(cfg CoreConfig) (*Core, error) {
	cache, err := newCache(cfg.MaxSessions)
	if err != nil {
		return nil, err
	}
	c := &Core{
		store: cfg.Store, cache: cache, observe: cfg.Observe,
		log:            cmp.Or(cfg.Logger, zap.NewNop()),
		audit:          cmp.Or(cfg.Audit, zap.NewNop()),
		hits:           cmp.Or[Counter](cfg.Hits, noCounter{}),
		misses:         cmp.Or[Counter](cfg.Misses, noCounter{}),
		replaced:       cmp.Or[Counter](cfg.Replaced, noCounter{}),
		foreignRecords: cmp.Or[Counter](cfg.Foreign, noCounter{}),
		foreignLog:     rate.Sometimes{First: 1, Interval: time.Minute},
	}
	c.streams.opened = cmp.Or[Gauge](cfg.OpenStreams, noCounter{})
	c.streams.closed = cmp.Or[Counter](cfg.EndedStreams, noCounter{})
	c.clocked, _ = cfg.Store.(store.Clocked)
	c.outage.log = c.log
	c.uses.over = make(chan struct{})
	c.revocations.core = c
	c.closing, c.close = context.WithCancel(context.Background())
	if r, ok := cfg.Store.(store.EndReporter); ok {
		r.ReportEnds(c.ended)
	}
	if c.shared, _ = cfg.Store.(store.Shared); c.shared != nil {
		c.shared.Watch(c.changed)
	}
	_, reports := cfg.Store.(store.SelfReporting)
	c.outage.quiet = reports || c.shared != nil // they log their outages themselves
	return c, nil
}

// Reopen opens the store again if it is broken. What the cache holds may not be in
// the store then.
func (c *Core) Reopen() error {
	r, ok := c.store.(store.Reopener)
	if !ok {
		return nil
	}
	again, err := r.Reopen()
	if again {
		c.changed(store.Change{What: store.AllChanged})
	}
	return wrap("opening the store again", err)
}

// clock returns the time by which sessions begin and end at the time now of this
// process: that of the store's server where gates share one. So a machine whose
// clock is wrong, or jumps, makes no session that lasts for years and ends none.
func (c *Core) clock(now time.Time) time.Time {
	if c.clocked == nil {
		return now
	}
	return c.clocked.Clock().At(now)
}

// HasClock reports whether the store has a clock that all gates share.
func (c *Core) HasClock() bool { return c.clocked != nil }

// ClockUnset reports whether a clock cannot be right, as on a machine that starts in
// 1970 and waits for NTP.
func ClockUnset(now time.Time) bool { return now.Year() < 1990 }

// Now returns the time by the clock that gates share.
func (c *Core) Now() time.Time { return c.clock(time.Now()) }

// localTime returns a time of a record, in milliseconds, by the clock of this machine.
func (c *Core) localTime(ms int64) time.Time {
	if c.clocked == nil {
		return time.UnixMilli(ms)
	}
	now := time.Now()
	return time.UnixMilli(ms + now.UnixMilli() - c.clock(now).UnixMilli())
}

// Renew makes the open store take up the settings of r.
func (c *Core) Renew(r store.Renewer) error { return r.Renew(c.store) }

// closePatience bounds what Close waits for calls under way: a login at WeChat
// for its default timeout, then at the store. No call waits for its client.
const closePatience = 5*time.Second + storeTimeout + time.Second

// Close refuses new calls with ErrUnavailable, waits for those under way, for a
// bounded time, and closes the cache and the store. It logs each revocation
// that the store has not taken by then.
func (c *Core) Close() error {
	c.close()
	c.uses.end()
	inTime := true
	select {
	case <-c.uses.over:
	case <-time.After(closePatience):
		inTime = false
		c.log.Error("session store closed while calls are under way")
	}
	c.workMu.Lock()
	c.workDone = true
	c.workMu.Unlock()
	c.work.Wait()
	// A closed ristretto breaks those who still use it
	// (docs/stores.md#ristretto-close).
	if inTime {
		c.cache.entries.Close()
	} else {
		go func() {
			<-c.uses.over
			c.cache.entries.Close()
		}()
	}
	return c.store.Close()
}

// background runs f on a goroutine that Close waits for; false when Close is
// past that.
func (c *Core) background(f func()) bool {
	c.workMu.Lock()
	defer c.workMu.Unlock()
	if !c.workDone {
		c.work.Go(f)
	}
	return !c.workDone
}

// uses counts calls under way, at the cost of two atomic additions.
type uses struct {
	_    [64]byte     // keeps what checks only read out of a line that they all write
	n    atomic.Int64 // calls under way, plus ended
	_    [64]byte
	over chan struct{} // closed after end, when no call is under way
	once sync.Once
}

const ended int64 = 1 << 32

// begin counts a call, which ends with done, or returns errClosed.
func (u *uses) begin() error {
	if u.n.Add(1)&ended != 0 {
		u.done()
		return errClosed
	}
	return nil
}

func (u *uses) done() {
	if u.n.Add(-1) == ended {
		u.once.Do(func() { close(u.over) })
	}
}

// end refuses calls from now on.
func (u *uses) end() {
	if u.n.Or(ended)&^ended == 0 {
		u.once.Do(func() { close(u.over) })
	}
}

// asked notes the outcome of a call to the store for the outage log and returns
// it. A caller who gives up says nothing about the store.
func (c *Core) asked(way way, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
	case errors.Is(err, ErrUnavailable):
		c.outage.note(way, err)
	default:
		c.answered.Store(true)
		c.outage.note(way, nil)
	}
	return err
}

// StoreCall is one call of the store that a client waits for.
type StoreCall struct {
	Name   string // lookup or login
	Result string // ok, unavailable, or canceled when the caller gave up
	Took   time.Duration
}

// storeCall begins a StoreCall, which ends with the error of the store.
func (c *Core) storeCall(ctx context.Context, name string) (context.Context, func(error)) {
	ctx, call := span.Start(ctx, "session store", name)
	began := time.Now()
	return ctx, func(err error) {
		result := "ok"
		switch {
		case errors.Is(err, context.Canceled):
			result = "canceled"
		case errors.Is(err, ErrUnavailable):
			result = "unavailable"
		}
		call.End(result, result == "unavailable")
		if c.observe != nil {
			c.observe(StoreCall{Name: name, Result: result, Took: time.Since(began)})
		}
	}
}

// Fact is store.Store.Fact. The error wraps ErrUnavailable.
func (c *Core) Fact(ctx context.Context, name string) ([]byte, error) {
	if err := c.uses.begin(); err != nil {
		return nil, err
	}
	defer c.uses.done()
	value, err := c.store.Fact(ctx, name)
	return value, c.asked(reading, err)
}

// SetFact is store.Store.SetFact. The error wraps ErrUnavailable.
func (c *Core) SetFact(
	ctx context.Context, name string, was, value []byte,
) (now []byte, err error) {
	if err := c.uses.begin(); err != nil {
		return nil, err
	}
	defer c.uses.done()
	now, err = c.store.SetFact(ctx, name, was, value)
	return now, c.asked(writing, err)
}

// survive turns a panic into an error: on a goroutine of ours it would end the
// process. It logs the panic's value only if that is Go's own, since another
// may hold a secret.
func survive[T any](c *Core, f func() (T, error)) (out T, err error) {
	defer func() {
		if p := recover(); p != nil {
			text := fmt.Sprintf("%T", p)
			if e, ok := p.(runtime.Error); ok {
				text = e.Error()
			}
			c.log.Error("panicked", zap.String("panic", text), zap.Stack("stack"))
			err = fmt.Errorf("%w: interrupted", ErrUnavailable)
		}
	}()
	return f()
}

// outage logs once when the store goes away and once when it is back, however many
// requests notice (docs/design.md#p4).
type outage struct {
	log   *zap.Logger
	quiet bool // log at debug level: the store logs its outages itself

	down atomic.Uint32 // ways that have failed
}

// way is one of the ways to notice an outage. A full disk fails every write and
// no read, so a read must not end what a write has noticed.
type way uint32

const (
	writing way = 1 << iota
	reading
)

// note records the outcome of one call: nil for an answer, an error for an outage,
// which ends when all ways that failed work again.
func (o *outage) note(w way, err error) {
	bit := uint32(w)
	switch {
	case err != nil && o.down.Load()&bit == 0 && o.down.Or(bit) == 0:
		o.log.Log(o.level(zap.ErrorLevel), "session store is unavailable", zap.Error(err))
	case err == nil && o.down.Load()&bit != 0 && o.down.And(^bit) == bit:
		o.log.Log(o.level(zap.InfoLevel), "session store is back")
	}
}

func (o *outage) level(loud zapcore.Level) zapcore.Level {
	if o.quiet {
		return zap.DebugLevel
	}
	return loud
}

// isDown reports whether the last call failed.
func (o *outage) isDown() bool { return o.down.Load() != 0 }
