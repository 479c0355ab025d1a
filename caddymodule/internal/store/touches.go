package store

import (
	"sync"
	"time"
)

// MaxTouches bounds what may wait in Touches. A touch that finds no room is dropped: the session is touched again soon, and at worst its idle limit comes early.
const MaxTouches = 8192

// Touches collects the newest UsedUntil of each session, until its engine writes them along. It is safe for concurrent use; make one with NewTouches.
type Touches struct {
	mu      sync.Mutex
	seen    map[Digest]time.Time
	arrived chan struct{}
}

// NewTouches returns an empty collection.
func NewTouches() *Touches {
	return &Touches{seen: make(map[Digest]time.Time), arrived: make(chan struct{}, 1)}
}

// Arrived gets a value when the first touch after a Take comes in.
func (p *Touches) Arrived() <-chan struct{} { return p.arrived }

// Add notes that a session is used until t. It never blocks; a time before the one that is noted changes nothing.
func (p *Touches) Add(d Digest, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, ok := p.seen[d]
	if ok && !t.After(before) || !ok && len(p.seen) >= MaxTouches {
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

// Len returns how many sessions wait.
func (p *Touches) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen)
}

// Take returns what has been collected and starts over; nil when there is nothing.
func (p *Touches) Take() map[Digest]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) == 0 {
		return nil
	}
	taken := p.seen
	p.seen = make(map[Digest]time.Time)
	return taken
}
