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

// contact is a set of live connections: one that invalidations come by to each primary, and the client that requests use.
type contact struct {
	view     view
	trackers []*tracker
	data     rueidis.Client
	gone     chan struct{} // closed when one of the trackers has lost its connection
	end      sync.Once
}

// pulse is what one heartbeat has found.
type pulse struct {
	sent     time.Time // before anything was asked
	sure     bool      // that nothing can have been acknowledged before by a primary that is not in the contact
	refusal  error     // why writes are not taken; nil when they are
	replicas bool      // every primary has one
}

// reach finds the primaries, connects to all of them and returns when they have answered a first heartbeat.
func (l *link) reach() (*contact, pulse, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.DialTimeout+l.cfg.pace.overdue)
	defer cancel()
	v, err := l.find.primaries(ctx)
	if err != nil {
		return nil, pulse{}, err
	}
	c := &contact{view: v, gone: make(chan struct{})}
	if err := l.connect(c); err != nil {
		c.close()
		return nil, pulse{}, err
	}
	p, err := l.pulse(ctx, c)
	if err == nil && !p.sure {
		err = errors.New("it is not agreed which servers are the primaries")
	}
	if err == nil {
		c.data, err = l.dataClient(v)
	}
	if err != nil {
		c.close()
		return nil, pulse{}, err
	}
	for _, t := range c.trackers {
		l.checkSettings(ctx, t)
	}
	return c, p, nil
}

// connect makes the trackers.
func (l *link) connect(c *contact) error {
	c.trackers = make([]*tracker, len(c.view))
	return inParallel(len(c.view), func(i int) (err error) {
		c.trackers[i], err = l.track(c.view[i], c.lost)
		return err
	})
}

// keep beats until the contact is lost, and returns why.
func (l *link) keep(c *contact, first pulse) error {
	l.up(c, first)
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
		p, err := l.patientPulse(c)
		if err != nil {
			return err
		}
		l.up(c, p)
	}
}

// patientPulse is pulse that makes calls fail at once as soon as the answer is overdue, and goes on waiting.
func (l *link) patientPulse(c *contact) (pulse, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.pace.hopeless)
	defer cancel()
	var (
		p    pulse
		err  error
		done = make(chan struct{})
	)
	l.wg.Go(func() {
		defer close(done)
		p, err = l.pulse(ctx, c)
	})
	select {
	case <-done:
	case <-time.After(l.cfg.pace.overdue):
		l.down(noAnswer(l.cfg.pace.overdue))
		<-done
	}
	if err != nil && ctx.Err() != nil {
		err = noAnswer(l.cfg.pace.hopeless)
	}
	return p, err
}

// pulse asks every primary once, on the connection that invalidations come by: all that were pushed before the answer have then been handled. Redis pushes the invalidations of one turn of
// its event loop before it sends that turn's answers to the writers, so what was acknowledged before the question is among them.
func (l *link) pulse(ctx context.Context, c *contact) (pulse, error) {
	p := pulse{sent: time.Now(), replicas: true}
	answers := make([]answer, len(c.trackers))
	err := inParallel(len(c.trackers)+1, func(i int) (err error) {
		if i == len(c.trackers) {
			p.sure, err = l.find.confirms(ctx, c.view)
			return err
		}
		answers[i], err = c.trackers[i].ask(ctx)
		return err
	})
	if err != nil {
		return pulse{}, err
	}
	for _, a := range answers {
		p.replicas = p.replicas && a.replicas > 0
		if a.refusal != nil {
			p.refusal = a.refusal
		}
	}
	agreed, err := agree(c.view, answers)
	p.sure = p.sure && agreed
	return p, err
}

// lost tells keep that a tracker has no connection any more.
func (c *contact) lost() { c.end.Do(func() { close(c.gone) }) }

// close ends the trackers. The client of the requests outlives the contact: it serves while a new contact is made.
func (c *contact) close() {
	for _, t := range c.trackers {
		if t != nil {
			t.close()
		}
	}
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
