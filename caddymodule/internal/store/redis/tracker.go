package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// tracker is the one connection to a primary that invalidations and the answers to
// the heartbeat come by. It never connects twice: a second connection would have
// missed the pushes between the two.
type tracker struct {
	at      primary
	cluster bool
	version string
	probe   string // the key that the heartbeat writes
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
	refusal  error
	replicas int
	view     view     // of a cluster, as that node sees it
	moving   []string // ids of the nodes that it gives slots to
}

// ask probes with a write, so that the gate notices a primary that takes none
// before a login needs it.
func (t *tracker) ask(ctx context.Context) (a answer, err error) {
	b := t.c.B()
	multi := rueidis.Commands{b.Set().Key(t.probe).Value("").Px(probeTTL).Build(), b.Role().Build()}
	if t.cluster {
		multi = append(multi, b.ClusterSlots().Build(), b.ClusterNodes().Build())
	}
	replies := t.c.DoMulti(ctx, multi...)
	if a.refusal, err = judge(replies[0].Error()); err != nil {
		return a, fmt.Errorf("%s: %w", t.at.addr, err)
	}
	if a.replicas, err = replicasOf(replies[1]); err != nil {
		return a, fmt.Errorf("%s: %w", t.at.addr, err)
	}
	if !t.cluster {
		return a, nil
	}
	nodes, err := replies[3].ToString()
	if err != nil {
		return a, fmt.Errorf("%s: asking for the nodes: %w", t.at.addr, err)
	}
	a.moving = movingTo(nodes)
	a.view, err = viewOf(replies[2], t.at.addr)
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
