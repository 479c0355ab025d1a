package redis

import (
	"testing"
	"time"
)

// WithPace sets the times of the heartbeat.
func WithPace(cfg Config, interval, overdue, hopeless time.Duration) Config {
	cfg.pace = pace{interval, overdue, hopeless}
	return cfg
}

// NotShort skips a test that waits for seconds.
func NotShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("slow outage or failover; run without -short")
	}
}

// Replicas reports what the heartbeat has found.
func (s *Store) Replicas() bool { return s.link.replicas() }

// PendingTouches is how many wait to be written.
func (s *Store) PendingTouches() int {
	return s.touches.Len()
}

// Flush writes what Touch has collected.
func (s *Store) Flush() error { return s.flush() }

// Complete returns a configuration with its defaults.
func Complete(cfg Config) (Config, error) { return cfg.complete() }
