package redis

// Replicas reports what the heartbeat has found.
func (s *Store) Replicas() bool { return s.link.replicas() }

// PendingTouches is how many wait to be written.
func (s *Store) PendingTouches() int {
	return s.touches.Len()
}

// Flush writes what Touch has collected.
func (s *Store) Flush() error { return s.flush() }
