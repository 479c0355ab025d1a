package redis

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// condition is what is known of the engine at one moment.
type condition struct {
	data     rueidis.Client // what requests use; kept for reuse when reading has failed
	reading  error          // wraps store.ErrUnavailable when nothing can be asked
	writing  error          // the same when nothing can be written; never nil when reading is not
	replicas bool
	since    time.Time // when the contact was made, or found again; zero when there is none
}

// unreachable is the condition when there is no contact.
func unreachable(cause error) *condition {
	err := fmt.Errorf("%w: %w", store.ErrUnavailable, cause)
	return &condition{reading: err, writing: err}
}

// down makes all calls fail at once, for that cause.
func (l *link) down(cause error) {
	if l.ctx.Err() != nil {
		return
	}
	c := unreachable(cause)
	c.data = l.now.Load().data
	l.now.Store(c)
	l.told.down(cause)
	l.triedOnce()
}

// up publishes what a heartbeat has found.
func (l *link) up(c *contact, p pulse) {
	before := l.now.Load()
	next := &condition{data: c.data, replicas: p.replicas, since: before.since}
	if p.refusal != nil {
		next.writing = fmt.Errorf("%w: %w", store.ErrUnavailable, p.refusal)
	}
	changed := before.since.IsZero() || (before.writing == nil) != (next.writing == nil)
	if changed {
		next.since = time.Now()
	}
	l.now.Store(next)
	if p.sure {
		l.beat.Store(&p.sent)
	}
	l.told.up(c, p.refusal)
	l.told.copies(p.replicas)
	if failure := l.failure.Swap(nil); !changed && p.refusal == nil {
		l.told.calls(failure)
	}
	l.triedOnce()
}

// failed notes that a call has failed which began at a time. What was under way when the contact was lost is told of by that.
func (l *link) failed(began time.Time, err error) {
	if c := l.now.Load(); !c.since.IsZero() && began.After(c.since) {
		l.failure.Store(&err)
	}
}

// teller logs each transition once. It belongs to the goroutine of the link.
type teller struct {
	log      *zap.Logger
	place    []string // addresses of the configuration
	isDown   bool
	isUp     bool
	refusing bool
	copied   bool // a replica follows every primary
	lacking  bool // and did once, but no longer
	failing  bool // calls fail, though the heartbeat is answered
	lastFail time.Time
}

// callsWell is how long no call may have failed before calls are said to be answered again: where some fail and others do not, that is one outage.
const callsWell = 10 * time.Second

// calls tells when calls fail that the heartbeat knows no reason for, as on a way that has become slow or when some of the connections are dead.
func (t *teller) calls(failure *error) {
	switch {
	case failure != nil:
		if t.lastFail = time.Now(); !t.failing {
			t.failing = true
			t.log.Error("calls to redis fail, though it answers", zap.Strings("addresses", t.place), zap.Error(*failure))
		}
	case t.failing && time.Since(t.lastFail) >= callsWell:
		t.failing = false
		t.log.Info("calls to redis succeed again")
	}
}

// copies tells when replicas that once were there are not: a revocation then waits for none, and a failover may lose it. It is what a gate sees, too, that still writes to a primary which has
// been replaced.
func (t *teller) copies(replicas bool) {
	t.copied = t.copied || replicas
	if lacking := t.copied && !replicas; lacking != t.lacking {
		t.lacking = lacking
		if lacking {
			t.log.Warn("no replica follows redis any more: a failover may lose revocations, unless min-replicas-to-write is set")
		} else {
			t.log.Info("a replica follows redis again")
		}
	}
}

func (t *teller) down(cause error) {
	if t.isDown {
		return
	}
	t.isDown, t.isUp, t.refusing, t.failing = true, false, false, false
	t.log.Error("no contact with redis", zap.Strings("addresses", t.place), zap.Error(cause))
}

func (t *teller) up(c *contact, refusal error) {
	if !t.isUp {
		t.isDown, t.isUp = false, true
		t.log.Info("in contact with redis", zap.Strings("primaries", c.view.addresses()))
	}
	if refusing := refusal != nil; refusing != t.refusing {
		t.refusing = refusing
		if refusing {
			t.log.Error("redis takes no writes: logins and revocations fail", zap.Strings("addresses", t.place), zap.Error(refusal))
		} else {
			t.log.Info("redis takes writes again")
		}
	}
}

// errAgain marks the loss of a contact that says nothing against the engine: a connection has ended, or slots have moved to another node.
var errAgain = errors.New("contact must be made again")

// judge tells what the answer to a probing write means: taken (nil, nil), refused by a primary that is otherwise well, or a contact that is of no use.
func judge(err error) (refusal, lost error) {
	if err == nil {
		return nil, nil
	}
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		return nil, fmt.Errorf("%w: %w", errAgain, err)
	}
	code, _, _ := strings.Cut(answer.Error(), " ")
	switch code {
	case "OOM", "MISCONF", "NOREPLICAS", "NOPERM":
		return err, nil
	case "MOVED", "ASK", "TRYAGAIN":
		return nil, fmt.Errorf("%w: %w", errAgain, err)
	default: // READONLY, LOADING, CLUSTERDOWN, MASTERDOWN, BUSY, ...: what is read there cannot be relied on either
		return nil, err
	}
}
