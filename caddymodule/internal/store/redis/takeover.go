package redis

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// links is the link of a store, which a reload with other settings replaces: a
// password, a user, TLS files, time-outs. The new link makes its contact while the
// old one serves, so no request fails and the cache stays.
type links struct {
	now atomic.Pointer[link]

	taking sync.Mutex     // held while a new link makes contact
	wg     sync.WaitGroup // of attempts, and of old links that end

	mu      sync.Mutex
	ended   bool
	attempt context.CancelFunc // ends the attempts with refused settings; nil for none
}

func (s *Store) link() *link { return s.links.now.Load() }

// config returns the settings in use.
func (s *Store) config() *Config { return &s.link().cfg }

func (ls *links) watch(report func(store.Change)) { ls.now.Load().watch(report) }

func (ls *links) close() {
	ls.mu.Lock()
	ls.ended = true
	ls.mu.Unlock()
	ls.stopAttempt()
	ls.taking.Lock()
	ls.now.Load().close()
	ls.taking.Unlock()
	ls.wg.Wait()
}

// newAttempt returns a context for the attempts with refused settings, which the
// next stopAttempt ends.
func (ls *links) newAttempt() (context.Context, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.ended {
		return nil, errClosed
	}
	ctx, cancel := context.WithCancel(context.Background())
	ls.attempt = cancel
	return ctx, nil
}

func (ls *links) stopAttempt() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.attempt != nil {
		ls.attempt()
	}
}

// Delays between attempts with settings that the engine has refused.
const (
	attemptsUp   = 3 * time.Second // while the old contact serves
	attemptsDown = 500 * time.Millisecond
)

// Renew takes up the settings of cfg, which names the same place. It returns when
// the new contact serves. An error says why the engine does not accept them: the old
// contact goes on then, and the store tries again until the engine accepts them or
// another Renew comes.
func (s *Store) Renew(cfg Config) error {
	cfg, err := cfg.complete()
	if err != nil {
		return fmt.Errorf("taking up settings of redis: %w", err)
	}
	cfg.Logger = s.log
	ls := &s.links
	ls.stopAttempt()
	ls.taking.Lock()
	defer ls.taking.Unlock()
	ctx, err := ls.newAttempt()
	if err != nil || s.config().same(cfg) {
		return err
	}
	if err := s.takeUp(ctx, cfg); err != nil {
		ls.wg.Go(func() { s.attempt(ctx, cfg) })
		return fmt.Errorf("taking up settings of redis: %w", err)
	}
	return nil
}

// attempt tries settings that the engine has refused until it accepts them.
func (s *Store) attempt(ctx context.Context, cfg Config) {
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(attemptsDown):
		}
		if s.link().up() && time.Since(last) < attemptsUp {
			continue
		}
		s.links.taking.Lock()
		err := s.takeUp(ctx, cfg)
		s.links.taking.Unlock()
		if err == nil {
			return
		}
		last = time.Now()
	}
}

// takeUp replaces the link by one with other settings once that has made contact.
func (s *Store) takeUp(ctx context.Context, cfg Config) error {
	old := s.link()
	next := makeLink(cfg)
	next.before, next.records = old, old.records
	next.clock.Store(old.clock.Load())
	next.log.isUp, next.log.isDown = old.up(), true // an attempt that fails is no outage
	if report := old.watcher.Load(); report != nil {
		next.watcher.Store(report)
	}
	next.wg.Go(next.run)
	select {
	case <-next.tried:
	case <-ctx.Done():
	case <-time.After(cfg.DialTimeout + 2*cfg.pace.hopeless):
	}
	if !next.up() || ctx.Err() != nil {
		_, err := next.client()
		next.close()
		return cmp.Or(ctx.Err(), err, errSlow)
	}
	s.links.now.Store(next)
	s.log.Info("settings of redis taken up", zap.Strings("addresses", cfg.Addresses))
	s.links.wg.Go(func() {
		select {
		case <-next.ctx.Done():
		case <-time.After(cfg.patience()): // for calls under way
		}
		old.close()
	})
	return nil
}

// takesOver reports whether the contact of this link continues that of the one
// before without a gap: that one has an answer to a heartbeat which it sent after
// this one had begun to track.
func (l *link) takesOver(first beat) bool {
	old := l.before
	l.before = nil
	if old == nil {
		return false
	}
	deadline := time.Now().Add(l.cfg.pace.hopeless)
	for old.up() && l.ctx.Err() == nil && time.Now().Before(deadline) {
		if old.heard().After(first.sent) {
			return true
		}
		time.Sleep(l.cfg.pace.interval / 10)
	}
	return false
}

// up reports whether calls reach the engine.
func (l *link) up() bool { c := l.now.Load(); return c.reading == nil && !c.since.IsZero() }

// same reports whether two configurations differ in nothing that a link could take
// up.
func (c Config) same(d Config) bool {
	sentinel := func(c Config) Sentinel {
		if c.Sentinel == nil {
			return Sentinel{}
		}
		return *c.Sentinel
	}
	return c.Username == d.Username && c.Password == d.Password && c.TLSDigest == d.TLSDigest &&
		(c.TLS == nil) == (d.TLS == nil) && sentinel(c) == sentinel(d) && c.Cluster == d.Cluster &&
		c.DialTimeout == d.DialTimeout && c.ReadTimeout == d.ReadTimeout &&
		c.WriteTimeout == d.WriteTimeout
}
