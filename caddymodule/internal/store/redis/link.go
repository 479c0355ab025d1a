package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	rand2 "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// link keeps the connections to the engine. One goroutine finds the primaries,
// connects to all of them and keeps that contact by a heartbeat. When any part of
// it fails, the goroutine makes all of it anew, so requests never see another
// topology than the one that invalidations come from.
type link struct {
	cfg  Config
	id   string // in this gate's heartbeat keys
	find finder

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	now     atomic.Pointer[condition]
	heardAt atomic.Pointer[time.Time] // what heard returns
	watcher atomic.Pointer[func(store.Change)]
	failure atomic.Pointer[error] // of a call since the last heartbeat
	rtt     atomic.Int64          // what roundTrip returns

	clock atomic.Pointer[store.Clock]

	changedAt  atomic.Pointer[time.Time] // when the engine began or ceased to take writes
	lastFailed atomic.Pointer[failed]

	staleTLS atomic.Bool // the last reading of the TLS files failed

	tried      chan struct{} // closed after the first attempt to make contact
	closeTried func()

	log    transitions
	warned map[string]bool // settings that checkSettings has warned of

	records *atomic.Pointer[knownRecords] // never nil inside; a link hands it to the next
	emptied atomic.Bool                   // a primary has pushed that it was emptied

	before *link // whose contact this one takes over; nil when none, or after that
}

// Delays between attempts to make contact. The longest is well under the two
// seconds in which a gate recovers (docs/design.md#p4).
const (
	shortestPause = 50 * time.Millisecond
	longestPause  = 500 * time.Millisecond
)

// newLink returns at once, whether or not the engine can be reached.
func newLink(cfg Config) *link {
	l := makeLink(cfg)
	l.wg.Go(l.run)
	return l
}

// makeLink returns a link that does not run yet.
func makeLink(cfg Config) *link {
	l := &link{
		cfg:    cfg,
		id:     rand.Text()[:8],
		tried:  make(chan struct{}),
		log:    transitions{log: cfg.Logger, addresses: cfg.Addresses},
		warned: make(map[string]bool),
	}
	l.records = new(atomic.Pointer[knownRecords])
	l.records.Store(new(knownRecords))
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.closeTried = sync.OnceFunc(func() { close(l.tried) })
	l.now.Store(unreachable(errors.New("not connected yet")))
	return l
}

// awaitAttempt waits for the first attempt to make contact, but not for long.
func (l *link) awaitAttempt(atMost time.Duration) {
	select {
	case <-l.tried:
	case <-time.After(atMost):
	}
}

// client returns the client for requests, or an error that wraps
// store.ErrUnavailable during an outage. Commands need a context with a deadline:
// without one the library retries a reading command for ever.
func (l *link) client() (rueidis.Client, error) {
	c := l.now.Load()
	return c.data, c.reading
}

// health returns nil while the engine takes writes, else an error that wraps
// store.ErrUnavailable.
func (l *link) health() error { return l.now.Load().writing }

// replicas reports whether every primary has a replica.
func (l *link) replicas() bool { return l.now.Load().replicas }

// heard implements Shared.Heard.
func (l *link) heard() time.Time {
	if t := l.heardAt.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// watch implements Shared.Watch.
func (l *link) watch(report func(store.Change)) { l.watcher.Store(&report) }

// report passes a change on. Before there is a watcher, nothing is cached.
func (l *link) report(c store.Change) {
	if report := l.watcher.Load(); report != nil {
		(*report)(c)
	}
}

// close ends the heartbeat and all connections.
func (l *link) close() {
	l.cancel()
	l.wg.Wait()
}

// run makes contact and keeps it until close. It reports ContactMade before heard
// moves on, since invalidations that came without a listener are lost. A contact
// that lasted is made again at once, so requests need not notice its loss.
func (l *link) run() {
	l.find = newFinder(l)
	defer l.find.close()
	pause := shortestPause
	for l.ctx.Err() == nil {
		c, first, err := l.connect()
		if err != nil {
			l.setDown(l.withHint(err))
			l.backOff(&pause)
			continue
		}
		since := time.Now()
		l.replaceClient(c.data)
		if !l.takesOver(first) {
			l.report(store.Change{What: store.ContactMade})
		}
		err = l.beatUntilLost(c, first)
		c.close()
		if !errors.Is(err, errAgain) {
			l.setDown(err)
		}
		if time.Since(since) > longestPause {
			pause = shortestPause
		} else {
			l.backOff(&pause)
		}
	}
	l.replaceClient(nil)
}

// backOff waits, longer each time, and at random: gates that lost the same engine
// must not return in step.
func (l *link) backOff(pause *time.Duration) {
	select {
	case <-l.ctx.Done():
	case <-time.After(*pause/2 + rand2.N(*pause/2)):
	}
	*pause = min(2**pause, longestPause)
}

// withHint adds a cause that the server may hide: one that asks for a certificate
// in vain may close the connection without a word.
func (l *link) withHint(err error) error {
	tc := l.cfg.TLS
	if tc == nil || len(tc.Certificates) > 0 || tc.GetClientCertificate != nil {
		return err
	}
	closed := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
	if closed && l.heard().IsZero() {
		return fmt.Errorf("%w (perhaps the server asks for a certificate of the gate, "+
			"and none is configured: tls cert and key)", err)
	}
	return err
}

// replaceClient gives requests another client. Requests on the old one may finish.
func (l *link) replaceClient(data rueidis.Client) {
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
		case <-time.After(l.cfg.patience()):
		}
		old.Close()
	})
}

// invalidations begins, after the prefix, the keys that every gate tracks.
const invalidations = "i:"

// invalidated reports what a primary has pushed. The keys are nil when the server
// was emptied. The library passes nil for a lost connection, too: that changes no
// record, and ContactMade covers the pushes that the gate misses from then on.
func (l *link) invalidated(t *tracker, keys []rueidis.RedisMessage) {
	if keys == nil {
		if !t.ended() {
			l.emptied.Store(true)
			l.report(store.Change{What: store.AllChanged})
		}
		return
	}
	for i := range keys {
		key, _ := keys[i].ToString()
		l.report(parseChange(l.cfg.Prefix, key))
	}
}

// parseChange reads the name of an invalidation. A name that it does not know is
// about everything: a later version may report changes that this one never saw.
func parseChange(prefix, key string) store.Change {
	c := store.Change{What: store.AllChanged}
	name, ok := strings.CutPrefix(key, prefix+invalidations)
	if !ok || len(name) < len("s:{}") || name[1:3] != ":{" || name[len(name)-1] != '}' {
		return c
	}
	name, kind := name[3:len(name)-1], name[0]
	switch {
	case kind == 's' && unhex(c.Digest[:], name):
		c.What = store.SessionChanged
	case kind == 'u' && unhex(c.User[:], name):
		c.What = store.UserChanged
	default:
		return store.Change{What: store.AllChanged}
	}
	return c
}
