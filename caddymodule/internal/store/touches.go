package store

import (
	"sync"
	"time"
)

// MaxTouches bounds the sessions that wait in Touches. A touch without room is
// lost: the next use touches the session again, and at worst its idle timeout
// comes early.
const MaxTouches = 8192

// Touches collects the latest UsedUntil of each session until its engine writes
// them. It is safe for concurrent use; make one with NewTouches.
type Touches struct {
	mu      sync.Mutex
	until   map[Digest]time.Time
	arrived chan struct{}
}

// NewTouches returns an empty collection.
func NewTouches() *Touches {
	return &Touches{until: make(map[Digest]time.Time), arrived: make(chan struct{}, 1)}
}

// Arrived receives a value when the first touch after a Take comes.
func (p *Touches) Arrived() <-chan struct{} { return p.arrived }

// Add collects a touch. It never blocks, and ignores an earlier time.
func (p *Touches) Add(d Digest, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, ok := p.until[d]
	if ok && !until.After(before) || !ok && len(p.until) >= MaxTouches {
		return
	}
	p.until[d] = until
	if len(p.until) == 1 {
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
	return len(p.until)
}

// Take returns the collection and starts a new one; nil when it is empty.
func (p *Touches) Take() map[Digest]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.until) == 0 {
		return nil
	}
	taken := p.until
	p.until = make(map[Digest]time.Time)
	return taken
}
