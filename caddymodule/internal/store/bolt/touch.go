package bolt

import (
	"sync"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// maxTouches bounds what may wait for a commit. A touch that finds no room is dropped: the session is touched again soon, and at worst its idle limit comes early.
const maxTouches = 8192

// touches collects the newest time each session was seen at, until a commit takes them along.
type touches struct {
	mu      sync.Mutex
	seen    map[store.Digest]time.Time
	arrived chan struct{} // gets a value when the first touch after a take comes in
}

func newTouches() touches {
	return touches{seen: make(map[store.Digest]time.Time), arrived: make(chan struct{}, 1)}
}

// Touch implements store.Store.
func (s *Store) Touch(d store.Digest, t time.Time) { s.touches.add(d, t) }

func (p *touches) add(d store.Digest, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, ok := p.seen[d]
	switch {
	case ok && !t.After(before), !ok && len(p.seen) >= maxTouches:
		return
	}
	p.seen[d] = t
	if len(p.seen) == 1 {
		select {
		case p.arrived <- struct{}{}:
		default:
		}
	}
}

// take returns what has been collected and starts over.
func (p *touches) take() map[store.Digest]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) == 0 {
		return nil
	}
	taken := p.seen
	p.seen = make(map[store.Digest]time.Time)
	return taken
}

// touch writes seen times. The row's expiry is absolute, so its place in exp stays.
func (t *tables) touch(seen map[store.Digest]time.Time) error {
	for d, at := range seen {
		ses, ok := t.getSession(d)
		if !ok || !at.After(ses.LastSeen) {
			continue
		}
		ses.LastSeen = at
		if err := t.putSession(d, ses); err != nil {
			return err
		}
	}
	return nil
}
