package redis

import (
	"errors"
	"fmt"
	"strings"

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
	next := &condition{data: c.data, replicas: p.replicas}
	if p.refusal != nil {
		next.writing = fmt.Errorf("%w: %w", store.ErrUnavailable, p.refusal)
	}
	l.now.Store(next)
	if p.sure {
		l.beat.Store(&p.sent)
	}
	l.told.up(c, p.refusal)
	l.told.copies(p.replicas)
	l.triedOnce()
}

// teller logs each transition once. It belongs to the goroutine of the link.
type teller struct {
	log      *zap.Logger
	isDown   bool
	isUp     bool
	refusing bool
	copied   bool // a replica follows every primary
	lacking  bool // and did once, but no longer
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
	t.isDown, t.isUp, t.refusing = true, false, false
	t.log.Warn("no contact with redis", zap.Error(cause))
}

func (t *teller) up(c *contact, refusal error) {
	if !t.isUp {
		t.isDown, t.isUp = false, true
		t.log.Info("in contact with redis", zap.Strings("primaries", c.view.addresses()))
	}
	if refusing := refusal != nil; refusing != t.refusing {
		t.refusing = refusing
		if refusing {
			t.log.Warn("redis takes no writes: logins and revocations fail", zap.Error(refusal))
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
