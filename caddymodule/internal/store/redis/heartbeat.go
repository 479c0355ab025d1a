package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// pace holds the times of the heartbeat. After overdue without an answer calls
// fail at once. Only after hopeless the link closes the connection, so that a
// pause of the server, for a fork or a slow disk, costs no gate its cache.
type pace struct {
	interval, overdue, hopeless time.Duration
}

var defaultPace = pace{
	interval: 250 * time.Millisecond,
	overdue:  500 * time.Millisecond,
	hopeless: 1500 * time.Millisecond,
}

// silence limits the time that a data connection may take to answer a ping: the
// heartbeat does not notice when a firewall forgets only that connection. Two
// intervals and the silence are as long as the heartbeat waits.
func (p pace) silence() time.Duration { return p.hopeless - 2*p.interval }

// noAnswer is the reason why calls fail while a heartbeat waits for its answer.
func noAnswer(waited time.Duration) error { return fmt.Errorf("no answer for %v", waited) }

// contact is a set of live connections: a tracker to each primary, and the client
// for requests. The client outlives the contact: it serves while the link makes a
// new one.
type contact struct {
	view     view
	trackers []*tracker
	data     rueidis.Client
	gone     chan struct{} // closed when a tracker has lost its connection
	end      sync.Once
}

func (c *contact) lost() { c.end.Do(func() { close(c.gone) }) }

func (c *contact) close() {
	for _, t := range c.trackers {
		if t != nil {
			t.close()
		}
	}
}

// beat is the result of one heartbeat.
type beat struct {
	sent     time.Time // before the link asked anything
	sure     bool      // no primary outside of the contact can have taken a write
	refusal  error     // why the engine takes no writes
	replicas bool      // every primary has one
}

// connect finds the primaries and connects to all of them. It returns after their
// answers to a first heartbeat.
func (l *link) connect() (*contact, beat, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.DialTimeout+l.cfg.pace.overdue)
	defer cancel()
	v, err := l.find.primaries(ctx)
	if err != nil {
		return nil, beat{}, err
	}
	c := &contact{view: v, trackers: make([]*tracker, len(v)), gone: make(chan struct{})}
	first, err := l.connectTo(ctx, c)
	if err != nil {
		c.close()
		return nil, beat{}, err
	}
	for _, t := range c.trackers {
		l.checkSettings(ctx, t)
	}
	return c, first, nil
}

func (l *link) connectTo(ctx context.Context, c *contact) (beat, error) {
	err := inParallel(len(c.view), func(i int) (err error) {
		c.trackers[i], err = l.track(c.view[i], c.lost)
		return err
	})
	if err != nil {
		return beat{}, err
	}
	b, err := l.beat(ctx, c)
	if err == nil && !b.sure {
		err = errors.New("it is not agreed which servers are the primaries")
	}
	if err == nil {
		c.data, err = l.dataClient(c.view)
	}
	return b, err
}

// beatUntilLost beats until the contact is lost, and returns why.
func (l *link) beatUntilLost(c *contact, first beat) error {
	l.setUp(c, first)
	tick := time.NewTicker(l.cfg.pace.interval)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-c.gone:
			return fmt.Errorf("%w: connection lost", errAgain)
		case <-tick.C:
		}
		b, err := l.patientBeat(c)
		if err != nil {
			return err
		}
		l.setUp(c, b)
	}
}

// patientBeat makes calls fail at once as soon as the answer is overdue, and waits
// on.
func (l *link) patientBeat(c *contact) (beat, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.pace.hopeless)
	defer cancel()
	var (
		b    beat
		err  error
		done = make(chan struct{})
	)
	l.wg.Go(func() {
		defer close(done)
		b, err = l.beat(ctx, c)
	})
	select {
	case <-done:
	case <-time.After(l.cfg.pace.overdue):
		l.setDown(noAnswer(l.cfg.pace.overdue))
		<-done
	}
	if err != nil && ctx.Err() != nil {
		err = noAnswer(l.cfg.pace.hopeless)
	}
	return b, err
}

// beat asks every primary once, on the connection that its invalidations come by.
// Redis pushes the invalidations of one turn of its event loop before that turn's
// answers, so all that writers were told before beat.sent is handled when the
// answer is here (docs/stores.md#redis-tracking).
func (l *link) beat(ctx context.Context, c *contact) (beat, error) {
	b := beat{sent: time.Now(), replicas: true}
	answers := make([]answer, len(c.trackers))
	err := inParallel(len(c.trackers)+1, func(i int) (err error) {
		if i == len(c.trackers) {
			b.sure, err = l.find.confirms(ctx, c.view)
			return err
		}
		answers[i], err = c.trackers[i].ask(ctx)
		return err
	})
	if err != nil {
		return beat{}, err
	}
	for _, a := range answers {
		b.replicas = b.replicas && a.replicas > 0
		if a.refusal != nil {
			b.refusal = a.refusal
		}
	}
	agreed, err := agree(c.view, answers)
	b.sure = b.sure && agreed
	return b, err
}

// inParallel calls f for all numbers below n and returns the first error.
func inParallel(n int, f func(int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
