package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
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
func noAnswer(waited time.Duration) error { return overdue(waited) }

type overdue time.Duration

func (o overdue) Error() string { return fmt.Sprintf("no answer for %v", time.Duration(o)) }

// Timeout tells troubleOf the kind, also where the error is wrapped.
func (overdue) Timeout() bool { return true }

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
func (l *link) connect() (c *contact, first beat, err error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.DialTimeout+l.cfg.pace.overdue)
	defer cancel()
	v, err := l.find.primaries(ctx)
	if err != nil {
		return nil, beat{}, err
	}
	c = &contact{view: v, trackers: make([]*tracker, len(v)), gone: make(chan struct{})}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	err = inParallel(len(v), func(i int) (err error) {
		c.trackers[i], err = l.track(v[i], c.lost)
		return err
	})
	if err == nil {
		first, err = l.beat(ctx, c)
	}
	if err == nil && !first.sure {
		err = errors.New("it is not agreed which servers are the primaries")
	}
	if err == nil {
		c.data, err = l.dataClient(v)
	}
	if err != nil {
		return c, first, err
	}
	l.openAll(ctx, c.data)
	for _, t := range c.trackers {
		l.checkSettings(ctx, t)
	}
	return c, first, nil
}

// beatUntilLost beats until the contact is lost, and returns why.
func (l *link) beatUntilLost(c *contact, first beat) error {
	l.setUp(c, first)
	tick := time.NewTicker(l.cfg.pace.interval)
	defer tick.Stop()
	sure := l.checkIdentity(c)
	for n := 1; ; n++ {
		if l.emptied.Swap(false) || !sure || n%identityEvery == 0 {
			sure = l.checkIdentity(c)
		}
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
	l.measure(c)
	if clock := answers[0].clock; clock != nil {
		l.clock.Store(clock)
		now := time.Now()
		l.log.clock(now.Round(0).Sub(clock.At(now).Round(0)))
	}
	agreed, err := agree(c.view, answers)
	b.sure = b.sure && agreed
	return b, err
}

// tracker is the one connection to a primary that invalidations and the answers to
// the heartbeat come by. It never connects twice: a second connection would have
// missed the pushes between the two.
type tracker struct {
	at      primary
	cluster bool
	version string
	probe   string // the key that the heartbeat writes
	trips   roundTrips
	c       rueidis.Client
	conn    net.Conn
	gone    chan struct{} // closed with the connection
}

// probeTTL is the life of a heartbeat key after its gate has gone.
const probeTTL = 5 * time.Second

// errSpent is the reason why a tracker connects only once.
var errSpent = errors.New("the connection has ended")

// track connects to a primary and begins to report its invalidations. It calls
// lost when the connection has ended.
func (l *link) track(p primary, lost func()) (*tracker, error) {
	t := &tracker{at: p, cluster: l.cfg.Cluster, probe: l.probeKey(p), gone: make(chan struct{})}
	o := l.options()
	o.InitAddress, o.ForceSingleClient = []string{p.addr}, true
	o.PipelineMultiplex, o.DisableRetry = -1, true
	o.DisableCache, o.CacheSizeEachConn = false, 1
	o.ClientTrackingOptions = []string{"BCAST", "PREFIX", l.cfg.Prefix + invalidations}
	o.OnInvalidations = func(keys []rueidis.RedisMessage) { l.invalidated(t, keys) }
	o.DialCtxFn = func(
		ctx context.Context, addr string, _ *net.Dialer, tc *tls.Config,
	) (net.Conn, error) {
		if t.conn != nil {
			return nil, errSpent
		}
		raw, err := l.dial(ctx, addr, tc)
		t.conn = l.bind(raw, func() { close(t.gone); lost() })
		return t.conn, err
	}
	c, err := rueidis.NewClient(o)
	t.c = c
	if err == nil {
		err = t.greet(l.cfg.pace.overdue)
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("%s: %w", p.addr, trackingError(err))
	}
	return t, nil
}

// trackingError says in one line what the library says in several.
func trackingError(err error) error {
	if !errors.Is(err, rueidis.ErrNoCache) {
		return err
	}
	said, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("CLIENT TRACKING was refused, which needs Redis 6.2 or later and, "+
		"with an ACL, +client|tracking: %s", said)
}

// greet asks which kind of server this is, for a hint when it is not the
// configured kind.
func (t *tracker) greet(wait time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	m, err := t.c.Do(ctx, t.c.B().Arbitrary("HELLO", "3").Build()).AsMap()
	if err != nil {
		return err
	}
	version, mode := m["version"], m["mode"]
	t.version, _ = version.ToString()
	switch mode, _ := mode.ToString(); {
	case mode == "sentinel":
		return errors.New("this is a sentinel, and the configuration does not say so")
	case mode == "cluster" && !t.cluster:
		return errors.New("this is a node of a cluster, and the configuration does not say so")
	case mode == "standalone" && t.cluster:
		return errors.New("this is not a node of a cluster")
	}
	return nil
}

// answer is the answer of one primary to the heartbeat.
type answer struct {
	clock    *store.Clock // nil where an ACL forbids TIME
	refusal  error
	replicas int
	view     view     // of a cluster, as that node sees it
	moving   []string // ids of the nodes that it gives slots to
}

// ask probes with a write, so that the gate notices a primary that takes none
// before a login needs it.
func (t *tracker) ask(ctx context.Context) (a answer, err error) {
	b := t.c.B()
	multi := rueidis.Commands{
		b.Set().Key(t.probe).Value("").Px(probeTTL).Build(), b.Role().Build(), b.Time().Build(),
	}
	if t.cluster {
		multi = append(multi, b.ClusterSlots().Build(), b.ClusterNodes().Build())
	}
	sent := time.Now()
	replies := t.c.DoMulti(ctx, multi...)
	t.trips.add(time.Since(sent))
	a.clock = clockOf(replies[2], sent)
	if a.refusal, err = judge(replies[0].Error()); err != nil {
		return a, fmt.Errorf("%s: %w", t.at.addr, err)
	}
	if a.replicas, err = replicasOf(replies[1]); err != nil {
		return a, fmt.Errorf("%s: %w", t.at.addr, err)
	}
	if !t.cluster {
		return a, nil
	}
	nodes, err := replies[4].ToString()
	if err != nil {
		return a, fmt.Errorf("%s: asking for the nodes: %w", t.at.addr, err)
	}
	a.moving = movingTo(nodes)
	a.view, err = viewOf(replies[3], t.at.addr)
	return a, err
}

// replicasOf reads the answer to ROLE. Where an ACL forbids ROLE, it counts none; a
// replica then still gives itself away by refusing the write.
func replicasOf(r rueidis.RedisResult) (int, error) {
	role, err := r.ToArray()
	answer, ok := rueidis.IsRedisErr(err)
	switch {
	case ok && strings.HasPrefix(answer.Error(), "NOPERM"):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("%w: asking for the role: %w", errAgain, err)
	case len(role) < 3:
		return 0, fmt.Errorf("asking for the role: %w", errFormat)
	}
	if name, _ := role[0].ToString(); name != "master" {
		return 0, errors.New("this is a replica, not a primary")
	}
	replicas, err := role[2].ToArray()
	return len(replicas), err
}

// close ends the connection first: the library waits for the last answers, also of
// a server that gives none.
func (t *tracker) close() {
	if t.conn != nil {
		t.conn.Close()
	}
	if t.c != nil {
		t.c.Close()
	}
}

// ended reports whether the connection is gone.
func (t *tracker) ended() bool {
	select {
	case <-t.gone:
		return true
	default:
		return false
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
