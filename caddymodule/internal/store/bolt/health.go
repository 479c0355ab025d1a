package bolt

import (
	"context"
	"fmt"
	"time"
)

// stallAfter is how long a commit may run before the disk counts as stuck.
const stallAfter = 2 * time.Second

// Health implements store.Store. It tells the outcome of the last commit, whether one is stuck and whether the file is where it was opened; after a failure the store tries by itself every second, so that Health recovers without a
// login having to fail first.
func (s *Store) Health(ctx context.Context) error {
	const doing = "checking session store"
	if ctx.Err() != nil {
		return unavailable(doing, context.Cause(ctx))
	}
	select {
	case <-s.closing:
		return unavailable(doing, errClosed)
	default:
	}
	if f := s.fault.Load(); f != nil {
		return unavailable(doing, f.err)
	}
	if err := s.missing(s.named); err != nil {
		return unavailable(doing, err)
	}
	if start := s.committing.Load(); start != nil {
		if d := time.Since(*start); d > stallAfter {
			return unavailable(doing, fmt.Errorf("%w: a commit has been running for %s", errSlow, d.Round(time.Second)))
		}
	}
	return nil
}
