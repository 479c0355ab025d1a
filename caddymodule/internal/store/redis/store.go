package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Store is a store.Shared on Redis or Valkey. Make one with Open.
type Store struct {
	cfg     Config
	log     *zap.Logger
	keys    layout
	scripts scripts
	link    *link

	id     string        // of this store, among all that share the engine
	claims atomic.Uint64 // made by this store

	touches *store.Touches
	lagging atomic.Bool // the last revocation did not reach a replica in time

	damagedLog rate.Sometimes
	damagedN   atomic.Int64

	closing   chan struct{} // closed by Close: no new work
	flushed   chan struct{} // closed when no touch will be written any more
	closeOnce sync.Once
}

var _ store.Shared = (*Store)(nil)

// openPatience is how long Open waits for the engine. One that is there answers sooner, and then no call is refused for want of a connection.
const openPatience = time.Second

// Open returns a store whether or not the engine can be reached, in about a second at the latest; the error is one of the configuration.
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("opening session store: %w", err)
	}
	s := &Store{
		cfg:        cfg,
		log:        cfg.Logger,
		keys:       layout(cfg.Prefix),
		scripts:    newScripts(),
		link:       newLink(cfg),
		id:         rand.Text(),
		touches:    store.NewTouches(),
		damagedLog: rate.Sometimes{First: 3, Interval: time.Minute},
		closing:    make(chan struct{}),
		flushed:    make(chan struct{}),
	}
	go s.flushLoop()
	s.link.await(openPatience)
	return s, nil
}

// Watch implements store.Shared.
func (s *Store) Watch(report func(store.Change)) { s.link.watch(report) }

// Heard implements store.Shared.
func (s *Store) Heard() time.Time { return s.link.heard() }

// Health implements store.Store. It writes once, since the heartbeat notices a server
// that hangs only after a while, and a login code that is spent by then is lost.
func (s *Store) Health(ctx context.Context) error {
	if err := s.link.health(); err != nil {
		return unavailable("checking session store", err)
	}
	return s.write(ctx, func(ctx context.Context, db db) error {
		trial := db.c.B().Set().Key(db.keys.trial(s.link.id)).Value("").Px(probeTTL).Build()
		return db.c.Do(ctx, trial.ToRetryable()).Error()
	})
}

// Close implements store.Store. What Touch left is lost when the engine cannot be reached.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		<-s.flushed
		s.link.close()
	})
	return nil
}

// db is the engine during one call. Its methods return what the engine or the connection said, and store.ErrNotFound.
type db struct {
	*Store
	c rueidis.Client
}

func (s *Store) read(ctx context.Context, f func(context.Context, db) error) error {
	return s.ask(ctx, "reading session store", s.cfg.ReadTimeout, f)
}

func (s *Store) write(ctx context.Context, f func(context.Context, db) error) error {
	return s.ask(ctx, "writing session store", s.cfg.WriteTimeout, f)
}

// ask runs f, which has until the end of ctx, but no longer than limit. An error other than store.ErrNotFound wraps store.ErrUnavailable.
func (s *Store) ask(ctx context.Context, doing string, limit time.Duration, f func(context.Context, db) error) error {
	if err := s.refuse(ctx); err != nil {
		return unavailable(doing, err)
	}
	c, err := s.link.client()
	if err != nil {
		return unavailable(doing, err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlow)
	defer cancel()
	err = f(ctx, db{s, c})
	if err == nil || errors.Is(err, store.ErrNotFound) {
		return err
	}
	err = unavailable(doing, cause(ctx, err))
	if !errors.Is(err, context.Canceled) {
		s.link.failed(began, err)
	}
	return err
}

// refuse returns why a call is not even tried.
func (s *Store) refuse(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-s.closing:
		return errClosed
	default:
		return nil
	}
}
