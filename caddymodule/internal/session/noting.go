package session

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// A session in use is noted in the store now and then, and its idle limit allows for the uses in between (touchInterval). So it matters at which interval the notes were made that a
// configuration finds: at its own or a shorter one, they mean what its own mean, and who was refused stays refused; at a longer one, or nobody knows which, sessions in use must not be ended
// for want of notes that nobody made (Service.idle). The store says which it was (store.Noting), and what it says must be true whatever becomes of a configuration, a gate or a write. Hence:
//
//   - All Services of a Core make notes at the shortest interval that any of them needs. One that is refused after it has begun, or is not yet gone, thus spoils nothing.
//   - The interval gets longer only after the store has said so, and shorter before.
//   - Where gates share the store, one that needs a shorter interval than the store speaks of says so as from notingAhead on, and whichever makes notes more seldom than the store says corrects
//     it within KeysEvery.

const (
	// finestTouch is the touchInterval of the shortest idle limit that there is. Uses are noted at it while it is not known what the store says.
	finestTouch = 250 * time.Millisecond

	notingPatience = time.Second      // of a Core that begins, for what the store says
	notingRetry    = time.Second      // between two attempts
	notingTimeout  = 5 * time.Second  // of one of them
	notingSettle   = 10 * time.Second // until the store is told of a longer interval: by then the configuration that needs no shorter one has been refused, if it is going to be
	notingAhead    = 2 * KeysEvery
)

// noting is at which interval the Services of a Core note uses, and what the store says of it.
type noting struct {
	every atomic.Int64 // milliseconds: no longer than any Service needs, nor than what the store may say

	asking sync.Mutex // held while the store is asked or told

	mu       sync.Mutex
	services []*Service
	said     store.Noting  // by the store; while that is open, of what it may say the one with the shorter interval
	known    bool          // it has been asked
	sure     bool          // it says that and nothing else
	telling  chan struct{} // closed when tell ends; nil while it does not run
}

// ask finds out what the store says, unless it takes long: then tell does it.
func (n *noting) ask(ctx context.Context, c *Core) {
	ctx, cancel := context.WithTimeout(ctx, notingPatience)
	defer cancel()
	if said, err := c.store.Noted(ctx); c.asked(reading, err) == nil {
		n.learn(said, 0)
	}
}

// join makes s one of the Services of the Core. What any of them or the store knows of an interval that is short enough holds for s, too.
func (c *Core) join(s *Service) {
	n := &c.noting
	n.mu.Lock()
	defer n.mu.Unlock()
	n.services = append(n.services, s)
	n.adjust()
	// The time comes after the interval: a use by another configuration that was noted at a longer one still was before it.
	since, known := time.Now().UnixMilli(), false
	if n.said.Every.Milliseconds() > s.touchEvery {
		since += c.notingStill().Milliseconds()
	}
	hear := func(every, from int64) {
		if every <= 0 || every > s.touchEvery {
			return
		}
		if !known || from < since {
			since, known = from, true
		}
	}
	hear(n.said.Every.Milliseconds(), n.said.Since.UnixMilli())
	for _, o := range n.services {
		if o != s {
			hear(o.touchEvery, o.since.Load())
		}
	}
	s.since.Store(since)
	c.record()
}

// Close says that s judges no request any more. Uses may then be noted as seldom as the other Services of its Core allow.
func (s *Service) Close() {
	c := s.cfg.Core
	n := &c.noting
	n.mu.Lock()
	defer n.mu.Unlock()
	n.services = slices.DeleteFunc(n.services, func(o *Service) bool { return o == s })
	c.record()
}

// RenewNoting sees to it that the store does not say of other gates, or of this one, that they note uses more often than they do. A gate that shares its store has to call it every KeysEvery, and
// soon after an error, which wraps ErrUnavailable.
func (s *Service) RenewNoting(ctx context.Context) error {
	c := s.cfg.Core
	n := &c.noting
	n.asking.Lock()
	defer n.asking.Unlock()
	said, err := c.store.Noted(ctx)
	if c.asked(reading, err) != nil {
		return wrap("reading how often uses are noted", err)
	}
	n.learn(said, c.notingStill())
	n.mu.Lock()
	defer n.mu.Unlock()
	c.record()
	return nil
}

// notingStill is for how long other gates may go on to note uses more seldom than one that begins needs.
func (c *Core) notingStill() time.Duration {
	if c.shared == nil {
		return 0
	}
	return notingAhead
}

// learn takes in what the store says. Where that speaks of notes made more seldom than a Service needs, they may still be made for the time given.
func (n *noting) learn(said store.Noting, still time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	every := max(said.Every.Milliseconds(), 0)
	for _, s := range n.services {
		switch {
		case every == 0 && !n.known: // since it began, s itself has seen to it
		case every == 0 || every > s.touchEvery:
			s.since.Store(time.Now().Add(still).UnixMilli())
		case !n.known || every == s.touchEvery:
			s.since.Store(said.Since.UnixMilli())
		}
	}
	n.said, n.known, n.sure = said, true, true
	n.adjust()
}

// adjust sets the interval. The lock is held.
func (n *noting) adjust() {
	every := int64(math.MaxInt64)
	switch said := n.said.Every.Milliseconds(); {
	case !n.known:
		every = finestTouch.Milliseconds()
	case said > 0:
		every = said
	}
	for _, s := range n.services {
		every = min(every, s.touchEvery)
	}
	n.every.Store(every)
}

// due returns what the store is to say, and whether it has to be told. The lock is held.
func (n *noting) due() (store.Noting, bool) {
	if len(n.services) == 0 {
		return store.Noting{}, false
	}
	s := slices.MinFunc(n.services, func(a, b *Service) int { return int(a.touchEvery - b.touchEvery) })
	want := store.Noting{Every: time.Duration(s.touchEvery) * time.Millisecond, Since: time.UnixMilli(s.since.Load())}
	return want, !n.sure || want.Every != n.said.Every || !want.Since.Equal(n.said.Since)
}

// record has the store told what is new, in the background: no start waits for it. The lock is held.
func (c *Core) record() {
	n := &c.noting
	if _, due := n.due(); !due || n.telling != nil {
		return
	}
	n.telling = make(chan struct{})
	c.work.Go(c.tell)
}

// tell tells the store until there is nothing to tell.
func (c *Core) tell() {
	var settled store.Noting // what has been waiting for notingSettle
	for {
		wait, err := survive(c, func() (time.Duration, error) { return c.tellOnce(&settled) })
		switch {
		case err != nil:
			wait = notingRetry
		case wait == 0:
			return
		}
		select {
		case <-time.After(wait):
		case <-c.closing.Done():
			c.noting.stopped()
			return
		}
	}
}

// tellOnce returns after what time it is to be called again; 0 when there is nothing left to tell.
func (c *Core) tellOnce(settled *store.Noting) (time.Duration, error) {
	n := &c.noting
	n.asking.Lock()
	defer n.asking.Unlock()
	ctx, cancel := context.WithTimeout(c.closing, notingTimeout)
	defer cancel()
	for {
		want, wait, err := n.next(ctx, c, settled)
		if wait > 0 || err != nil {
			return wait, err
		}
		if want.Every == 0 {
			return 0, nil
		}
		if err := c.asked(writing, c.store.SetNoted(ctx, want)); err != nil {
			return 0, err
		}
		n.told(want)
	}
}

// next returns what the store is to be told now; the zero Noting for nothing.
func (n *noting) next(ctx context.Context, c *Core, settled *store.Noting) (want store.Noting, wait time.Duration, err error) {
	n.mu.Lock()
	known := n.known
	n.mu.Unlock()
	if !known {
		said, err := c.store.Noted(ctx)
		if c.asked(reading, err) != nil {
			return want, 0, err
		}
		n.learn(said, c.notingStill())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	want, due := n.due()
	switch longer := n.said.Every > 0 && want.Every > n.said.Every; {
	case !due:
		n.stop()
		return store.Noting{}, 0, nil
	case longer && *settled != want:
		*settled = want
		return want, notingSettle, nil
	case !longer:
		n.said = want // it may take effect and the answer get lost
	}
	n.sure = false
	return want, 0, nil
}

func (n *noting) told(said store.Noting) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said, n.sure = said, true
	n.adjust()
}

func (n *noting) stopped() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stop()
}

// stop takes note of the end of tell. The lock is held.
func (n *noting) stop() {
	close(n.telling)
	n.telling = nil
}
