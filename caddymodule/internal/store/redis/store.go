// Package redis is the session store that several gates share: Redis 6.2 or later,
// or Valkey, as one server, behind sentinels, or as a cluster. It must not know
// HTTP, Caddy or tokens.
//
// One half keeps the contact: link.go (state and its loop), heartbeat.go (with
// the connection that invalidations come by), topology.go (which servers are the
// primaries), health.go (outages and their log lines) and config.go (settings and
// connections). The simpler way, to read each session again every second, was
// refused: real users call once in a while, so the cache would serve none of them.
//
// The other half keeps the records: store.go (calls and their errors), layout.go
// (names of keys), script.go, session.go (look-ups and notes of use), far.go (look-ups
// over a long way), login.go, user.go, revoke.go, fleet.go (what gates share beside
// sessions) and walk.go (size, dump and load). The two halves are more files than a
// package has elsewhere; none of them is of use without the others.
//
// Nothing assumes that two records live on one server. Records that change in one
// step have one hash tag and change in one script. A script marked as repeatable
// leaves the same behind when it runs twice, so the client may send it again after
// a lost answer; all other writes are sent once.
//
// What an acknowledged write survives is up to the server
// (docs/stores.md#redis-durability). A record that cannot be read is logged and
// counts as absent: its session is refused, and the next login writes it anew.
package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	store.EndReports

	log   *zap.Logger
	keys  layout
	links links

	lastNeeds atomic.Pointer[recentNeeds]

	touches *store.Touches
	lagging atomic.Bool // the last revocation did not reach a replica in time

	noFar, farKnown atomic.Bool // the server forbids farScript, or has its text

	damagedLog rate.Sometimes
	damagedN   atomic.Int64

	closing   chan struct{} // closed by Close: no new calls
	flushed   chan struct{} // closed after the last note of use
	closeOnce sync.Once
}

var (
	_ store.Shared  = (*Store)(nil)
	_ store.Patient = (*Store)(nil)

	_ store.EndReporter = (*Store)(nil)

	_ store.Contacted = (*Store)(nil)
	_ store.Clocked   = (*Store)(nil)
)

// openPatience limits the wait of Open for the engine. Where the engine is up, the
// first call after Open then finds a connection.
const openPatience = time.Second

// Open returns a store whether or not the engine can be reached, in about a second
// at the latest. The error is a mistake in the configuration.
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("opening session store: %w", err)
	}
	s := &Store{
		log:        cfg.Logger,
		keys:       layout(cfg.Prefix),
		touches:    store.NewTouches(),
		damagedLog: rate.Sometimes{First: 3, Interval: time.Minute},
		closing:    make(chan struct{}),
		flushed:    make(chan struct{}),
	}
	s.links.now.Store(newLink(cfg))
	go s.flushLoop()
	s.link().awaitAttempt(openPatience)
	return s, nil
}

// Watch implements store.Shared.
func (s *Store) Watch(report func(store.Change)) { s.links.watch(report) }

// Heard implements store.Shared.
func (s *Store) Heard() time.Time { return s.link().heard() }

// Health implements store.Store. It writes once, since the heartbeat notices a
// server that hangs only after a while, and a login code that is spent by then is
// lost.
func (s *Store) Health(ctx context.Context) error {
	if err := s.link().health(); err != nil {
		return unavailable("checking session store", err)
	}
	return s.write(ctx, func(ctx context.Context, db db) error {
		trial := db.c.B().Set().Key(db.keys.trial(s.link().id)).Value("").Px(probeTTL).Build()
		return db.c.Do(ctx, trial.ToRetryable()).Error()
	})
}

// Close implements store.Store. Without contact the last notes of use are lost.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		<-s.flushed
		s.links.close()
	})
	return nil
}

// db is the engine during one call. Its methods return errors of the engine or the
// connection as they are, and store.ErrNotFound.
type db struct {
	*Store
	c rueidis.Client
}

func (s *Store) read(ctx context.Context, f func(context.Context, db) error) error {
	return s.ask(ctx, "reading session store", s.config().ReadTimeout, f)
}

func (s *Store) write(ctx context.Context, f func(context.Context, db) error) error {
	return s.ask(ctx, "writing session store", s.config().WriteTimeout, f)
}

// result runs f by read, write or the like, and returns the value that f returns.
func result[T any](
	ctx context.Context,
	by func(context.Context, func(context.Context, db) error) error,
	f func(context.Context, db) (T, error),
) (T, error) {
	var v T
	err := by(ctx, func(ctx context.Context, db db) (err error) {
		v, err = f(ctx, db)
		return err
	})
	if err != nil {
		return *new(T), err
	}
	return v, nil
}

// ask runs f until the end of ctx, but no longer than limit. An error other than
// store.ErrNotFound wraps store.ErrUnavailable.
func (s *Store) ask(
	ctx context.Context, doing string, limit time.Duration, f func(context.Context, db) error,
) error {
	if err := s.refusal(ctx); err != nil {
		return unavailable(doing, err)
	}
	link := s.link()
	c, err := link.client()
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
		link.recordFailure(began, err)
	}
	return err
}

// refusal returns why the store does not even try a call.
func (s *Store) refusal(ctx context.Context) error {
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

var (
	errClosed = errors.New("the store is closed")
	errSlow   = errors.New("the engine took too long")
)

// unavailable wraps err in store.ErrUnavailable.
func unavailable(doing string, err error) error {
	if errors.Is(err, store.ErrUnavailable) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, store.ErrUnavailable, err)
}

// cause returns why a call failed, in words that the log may hold (P6): an engine
// that does not know a command repeats its arguments, which are the records.
func cause(ctx context.Context, err error) error {
	if said, ok := rueidis.IsRedisErr(err); ok {
		text, _, _ := strings.Cut(said.Error(), ", with args")
		return answered(text)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return errSlow // the connection's clock was ahead of the context's
	}
	return err
}

// damaged counts and logs a record that cannot be read. The line has only the
// start of its name: enough to find the record, too little to use it.
func (s *Store) damaged(kind string, name []byte) {
	n := s.damagedN.Add(1)
	s.damagedLog.Do(func() {
		s.log.Error(
			"damaged record in session store; treated as absent",
			zap.String("kind", kind),
			zap.String("key", fmt.Sprintf("%x", name[:min(4, len(name))])),
			zap.Int64("seen", n),
		)
	})
}
