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
)

// lately keeps the last revocations that the store has taken, oldest first.
type lately struct {
	mu   sync.Mutex
	list []pastRevocation
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

// take returns what a store that has been lost contact with may not know any more.
func (l *lately) take(now time.Time) []pastRevocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(now)
	return slices.Clone(l.list)
}

// repeatLately makes the last revocations pending again. Those of a whole mini program and of everybody also end what was made between them and the loss of contact.
func (c *Core) repeatLately() {
	past := c.lately.take(time.Now())
	if len(past) == 0 {
		return
	}
	c.outage.Log.Info("repeating the last revocations: contact with the session store was lost", zap.Int("revocations", len(past)))
	if c.pending.repeat(past) {
		c.work.Go(c.retry)
	}
}
