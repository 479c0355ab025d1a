package session

import (
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// A server that gates share may lose what it acknowledged just before it crashed or was replaced, a revocation as well as a login: a failover takes what the new primary had not been sent, however
// many replicas had it. A lost login is made again; a lost revocation would bring a session back. So a gate repeats what it revoked last when it has lost contact and made it again.

const (
	latelyKept = 15 * time.Second // longer than a failover takes and a server waits with writing to its disk
	maxLately  = 1 << 13

	latelyOnWay = 5 * time.Second // longer than a revocation takes
)

// lately keeps the last revocations that the store has taken, oldest first.
type lately struct {
	mu     sync.Mutex
	list   []pastRevocation
	closed bool
}

type pastRevocation struct {
	revocation
	at time.Time
}

func (l *lately) add(r revocation, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) >= maxLately || len(l.list) > 0 && at.Sub(l.list[0].at) > 2*latelyKept {
		l.drop(at)
	}
	if len(l.list) >= maxLately {
		l.list = l.list[1:]
	}
	l.list = append(l.list, pastRevocation{r, at})
}

// drop removes what is too old. The lock must be held.
func (l *lately) drop(now time.Time) {
	l.list = slices.DeleteFunc(l.list, func(p pastRevocation) bool { return now.Sub(p.at) > latelyKept })
}

// since returns what was added since a time.
func (l *lately) since(from time.Time) []pastRevocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.list, func(p pastRevocation) bool { return !p.at.Before(from) })
	if i < 0 {
		return nil
	}
	return slices.Clone(l.list[i:])
}

// run runs f beside everything else, unless the Core is closing: contact may be made at that very moment.
func (l *lately) run(c *Core, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		c.work.Go(f)
	}
}

// stop ends run.
func (l *lately) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// repeatLately makes the last revocations pending again, and a moment later those that were on their way to the old server when there was contact with the new one. Those of a whole mini program
// and of everybody also end what was made in between.
func (c *Core) repeatLately() {
	contact := time.Now()
	past := c.lately.since(c.shared.Heard().Add(-latelyKept)) // which was before the loss, however long ago that is
	if len(past) > 0 {
		c.outage.Log.Info("repeating the last revocations: contact with the session store was lost", zap.Int("revocations", len(past)))
		c.repeat(past)
	}
	c.lately.run(c, func() {
		select {
		case <-time.After(latelyOnWay):
			c.repeat(c.lately.since(contact))
		case <-c.closing.Done():
		}
	})
}

func (c *Core) repeat(past []pastRevocation) {
	if len(past) > 0 && c.pending.repeat(past) {
		c.lately.run(c, c.retry)
	}
}
