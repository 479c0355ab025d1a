package redis

import (
	"context"
	"crypto/rand"
	"errors"
	rand2 "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// link is the connection to the engine. One goroutine finds the primaries, makes a contact with all of them and keeps it by a heartbeat; when anything of it is lost, all of it is made
// anew. So there is one state to reason about, and what the data connections see is never another topology than what the invalidations come from.
type link struct {
	cfg  Config
	id   string // tells this gate's heartbeat keys from those of others
	find finder

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	now    atomic.Pointer[condition]
	beat   atomic.Pointer[time.Time] // what heard returns
	report atomic.Pointer[func(store.Change)]

	failure atomic.Pointer[error] // why a call has failed since the last heartbeat

	tried     chan struct{} // closed when the first attempt to make a contact has ended, well or not
	triedOnce func()

	told   teller
	warned map[string]bool // of the settings that checkSettings has warned of
}

// Delays between attempts to make a contact. The longest is well under the two seconds in which the gate is to be back (DESIGN.md P4).
const (
	shortestPause = 50 * time.Millisecond
	longestPause  = 500 * time.Millisecond
)

// newLink returns at once, whether or not the engine can be reached.
func newLink(cfg Config) *link {
	l := &link{cfg: cfg, id: rand.Text()[:8], told: teller{log: cfg.Logger, place: cfg.Addresses}, warned: make(map[string]bool)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.tried = make(chan struct{})
	l.triedOnce = sync.OnceFunc(func() { close(l.tried) })
	l.now.Store(unreachable(errors.New("not connected yet")))
	l.wg.Go(l.run)
	return l
}

// await waits for the outcome of the first attempt to make a contact, but not for long.
func (l *link) await(atMost time.Duration) {
	select {
	case <-l.tried:
	case <-time.After(atMost):
	}
}

// client returns what commands are sent with, or an error wrapping store.ErrUnavailable while the engine is known to be away. Commands need a context with a deadline: without one the
// library repeats a failed reading command for ever.
func (l *link) client() (rueidis.Client, error) {
	c := l.now.Load()
	return c.data, c.reading
}

// health returns nil while a write would be taken, else an error wrapping store.ErrUnavailable.
func (l *link) health() error { return l.now.Load().writing }

// replicas reports whether every primary has a replica that follows it.
func (l *link) replicas() bool { return l.now.Load().replicas }

// heard is Shared.Heard.
func (l *link) heard() time.Time {
	if t := l.beat.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// watch is Shared.Watch.
func (l *link) watch(report func(store.Change)) { l.report.Store(&report) }

// changed tells the watcher, if there is one already: before, nobody has looked anything up.
func (l *link) changed(c store.Change) {
	if report := l.report.Load(); report != nil {
		(*report)(c)
	}
}

// close ends the heartbeat and all connections.
func (l *link) close() {
	l.cancel()
	l.wg.Wait()
}

// run makes contact and keeps it until close.
func (l *link) run() {
	l.find = newFinder(l)
	defer l.find.close()
	pause := shortestPause
	for l.ctx.Err() == nil {
		c, first, err := l.reach()
		if err != nil {
			l.down(l.hint(err))
			l.rest(&pause)
			continue
		}
		since := time.Now()
		l.replace(c.data)
		l.changed(store.Change{What: store.ContactMade}) // before Heard moves on: nobody knows what was pushed while nobody listened
		err = l.keep(c, first)
		c.close()
		if !errors.Is(err, errAgain) {
			l.down(err)
		}
		if time.Since(since) > longestPause {
			pause = shortestPause // what has held is made again at once: requests need not notice
		} else {
			l.rest(&pause)
		}
	}
	l.replace(nil)
}

// rest waits, and for longer the next time. Gates that have lost the same engine do not come back in step.
func (l *link) rest(pause *time.Duration) {
	select {
	case <-l.ctx.Done():
	case <-time.After(*pause/2 + rand2.N(*pause/2)):
	}
	*pause = min(2**pause, longestPause)
}

// replace makes data what requests use. Those that use the one before may finish.
func (l *link) replace(data rueidis.Client) {
	old, now := l.now.Load().data, &condition{data: data}
	if data == nil {
		now = unreachable(errors.New("closed"))
	}
	l.now.Store(now)
	if old == nil {
		return
	}
	l.wg.Go(func() {
		select {
		case <-l.ctx.Done():
		case <-time.After(l.patience()):
		}
		old.Close()
	})
}
