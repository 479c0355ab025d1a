package session

import (
	"context"
	"io"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Stats is what an operator may want to know of the sessions as a whole.
type Stats struct {
	Store        store.Stats
	StoreDown    bool  // the last call that asked the store failed
	CacheEntries int64 // sessions in the cache
	CacheMax     int64 // sessions that the cache may hold
	LoginsKept   int   // logins under way, and those that are kept to be answered again

	Heard   time.Time // when a store that gates share was last heard of; the zero time for other stores, and when it was not
	Pending int       // revocations that the store has not taken yet
}

// Stats counts what there is. It may take seconds. With an error, which wraps ErrUnavailable, all but Stats.Store is nevertheless valid.
func (s *Service) Stats(ctx context.Context) (Stats, error) {
	c := s.cfg.Core
	st, err := c.store.Stats(ctx)
	err = c.asked(reading, err)
	c.cache.resize(s.cfg.MaxSessions)
	limit := c.cache.entries.MaxCost()
	var heard time.Time
	if c.shared != nil {
		heard = c.shared.Heard()
	}
	return Stats{
		Heard:        heard,
		Pending:      c.revocations.len(),
		Store:        st,
		StoreDown:    c.outage.Down(),
		CacheEntries: max(0, limit-c.cache.entries.RemainingCost()),
		CacheMax:     limit,
		LoginsKept:   c.logins.len(),
	}, wrap("counting sessions", err)
}

// Backup writes a consistent copy of the store to w and returns its size in bytes. The error is ErrNoBackup when this kind of store has ways of its own.
func (s *Service) Backup(ctx context.Context, w io.Writer) (int64, error) {
	c := s.cfg.Core
	b, ok := c.store.(store.Backuper)
	if !ok {
		return 0, ErrNoBackup
	}
	n, err := b.Backup(ctx, w)
	return n, wrap("backing up sessions", err)
}
