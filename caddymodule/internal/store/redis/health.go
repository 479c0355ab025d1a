package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// condition is the health of the engine at one moment.
type condition struct {
	data     rueidis.Client // of requests; stays for reuse when reading fails
	reading  error          // wraps store.ErrUnavailable during an outage
	writing  error          // likewise when the engine takes no writes, or reading fails
	replicas bool
	since    time.Time // begin of the contact; zero without one
}

// unreachable is the condition without contact.
func unreachable(cause error) *condition {
	err := fmt.Errorf("%w: %w", store.ErrUnavailable, cause)
	return &condition{reading: err, writing: err}
}

// setDown makes all calls fail at once, for that cause.
func (l *link) setDown(cause error) {
	if l.ctx.Err() != nil {
		return
	}
	cause = l.addressed(cause)
	c, before := unreachable(cause), l.now.Load()
	c.data = before.data
	l.now.Store(c)
	l.noteState(before.writing, cause)
	l.log.down(cause)
	l.closeTried()
}

// addressed adds the addresses of the configuration to an error that names none.
func (l *link) addressed(cause error) error {
	if at := strings.Join(l.cfg.Addresses, ","); !strings.Contains(cause.Error(), ":") {
		return fmt.Errorf("%s: %w", at, cause)
	}
	return cause
}

// setUp publishes the result of a heartbeat.
func (l *link) setUp(c *contact, b beat) {
	before := l.now.Load()
	next := &condition{data: c.data, replicas: b.replicas, since: before.since}
	if b.refusal != nil {
		next.writing = fmt.Errorf("%w: %w", store.ErrUnavailable, b.refusal)
	}
	changed := before.since.IsZero() || (before.writing == nil) != (next.writing == nil)
	if changed {
		next.since = time.Now()
	}
	l.now.Store(next)
	l.noteState(before.writing, next.writing)
	if b.sure {
		l.heardAt.Store(&b.sent)
	}
	l.log.up(c, b.refusal)
	l.log.replicas(b.replicas)
	if failure := l.failure.Swap(nil); !changed && b.refusal == nil {
		l.log.calls(failure)
	}
	l.closeTried()
}

// recordFailure notes that a call has failed. The line about the loss of contact
// covers the calls that began before it.
func (l *link) recordFailure(began time.Time, err error) {
	if c := l.now.Load(); !c.since.IsZero() && began.After(c.since) {
		l.failure.Store(&err)
		l.lastFailed.Store(&failed{err, time.Now()})
	}
}

// transitions logs each transition once. It belongs to the goroutine of the link.
type transitions struct {
	log       *zap.Logger
	addresses []string

	isDown, isUp bool
	refusing     bool
	hadReplicas  bool // each primary had one once
	lacking      bool // and has none any more
	skewed       bool // the clocks differ
	failing      bool // calls fail although the engine answers the heartbeat
	lastFailure  time.Time
}

// clock logs when the clocks of this machine and of redis begin, or cease, to
// differ. A jump of either is one line.
func (t *transitions) clock(ahead time.Duration) {
	skewed := ahead != 0
	if skewed == t.skewed {
		return
	}
	t.skewed = skewed
	if skewed {
		t.log.Warn("clock of this machine differs from redis",
			zap.Duration("ahead", ahead.Round(time.Millisecond)),
			zap.String("cure", "set both by NTP; sessions go by the clock of redis meanwhile"))
	} else {
		t.log.Info("clock of this machine agrees with redis again")
	}
}

// callsWell is the time without a failed call after which calls count as answered
// again: where some calls fail and others do not, that is one outage.
const callsWell = 10 * time.Second

// calls logs that calls fail although the engine answers the heartbeat, as on a
// slow network or when some connections are dead.
func (t *transitions) calls(failure *error) {
	switch {
	case failure != nil:
		if t.lastFailure = time.Now(); !t.failing {
			t.failing = true
			t.error("calls to redis fail, though it answers", *failure)
		}
	case t.failing && time.Since(t.lastFailure) >= callsWell:
		t.failing = false
		t.log.Info("calls to redis succeed again")
	}
}

// error logs a failure with its kind and its cure.
func (t *transitions) error(text string, err error) {
	fields := []zap.Field{zap.Strings("addresses", t.addresses), zap.Error(err)}
	t.log.Error(text, append(fields, troubleOf(err).fields()...)...)
}

// replicas logs the loss of replicas: revocations then wait for none, and a
// failover may lose them. A gate that still writes to a replaced primary sees the
// same.
func (t *transitions) replicas(has bool) {
	t.hadReplicas = t.hadReplicas || has
	lacking := t.hadReplicas && !has
	if lacking == t.lacking {
		return
	}
	t.lacking = lacking
	if lacking {
		t.log.Warn("no replica follows redis any more: a failover may lose revocations, " +
			"unless min-replicas-to-write is set")
	} else {
		t.log.Info("a replica follows redis again")
	}
}

func (t *transitions) down(cause error) {
	if t.isDown {
		return
	}
	t.isDown, t.isUp, t.refusing, t.failing = true, false, false, false
	t.error("no contact with redis", cause)
}

func (t *transitions) up(c *contact, refusal error) {
	t.isDown = false
	if !t.isUp {
		t.isUp = true
		t.log.Info("in contact with redis", zap.Strings("primaries", c.view.addresses()))
	}
	refusing := refusal != nil
	if refusing == t.refusing {
		return
	}
	t.refusing = refusing
	if refusing {
		t.error("redis takes no writes: logins and revocations fail", refusal)
	} else {
		t.log.Info("redis takes writes again")
	}
}

// errAgain marks a loss of contact that is no outage: a connection has ended, or
// slots have moved to another node.
var errAgain = errors.New("contact must be made again")

// judge reads the answer to the heartbeat's write: taken (nil, nil), refused by a
// healthy primary, or a lost contact. After READONLY, LOADING or CLUSTERDOWN reads
// are not reliable either.
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
	}
	return nil, err
}

// checkSettings warns, once each, of settings by which a server loses sessions. A
// server that keeps its settings secret gets no warning.
func (l *link) checkSettings(ctx context.Context, t *tracker) {
	if !atLeast(t.version, 6, 2) {
		l.warn(t, "version", "this server is older than any that wxgate is tested with",
			"use Redis 6.2 or later, or Valkey", zap.String("version", t.version))
	}
	const policy = "maxmemory-policy"
	if v, ok := t.setting(ctx, policy); ok && v != "noeviction" {
		l.warn(t, policy, "this server throws away sessions when its memory is full",
			"set maxmemory-policy noeviction", zap.String(policy, v))
	}
	if v, ok := t.setting(ctx, "appendonly"); ok && v != "yes" {
		l.warn(t, "appendonly", "this server loses sessions and revocations when it restarts",
			"set appendonly yes")
	}
}

// warn logs a finding about a server once, however often the server returns.
func (l *link) warn(t *tracker, what, text, cure string, fields ...zap.Field) {
	if key := t.at.addr + " " + what; !l.warned[key] {
		l.warned[key] = true
		l.cfg.Logger.Warn(
			text, append(fields, zap.String("cure", cure), zap.String("address", t.at.addr))...,
		)
	}
}

// setting asks for one setting, which ACLs and hosted servers often forbid.
func (t *tracker) setting(ctx context.Context, name string) (string, bool) {
	m, err := t.c.Do(ctx, t.c.B().ConfigGet().Parameter(name).Build()).AsStrMap()
	value, ok := m[name]
	return value, ok && err == nil
}

// atLeast compares a version such as 7.0.15. An unreadable one counts as new.
func atLeast(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return true
	}
	x, err1 := strconv.Atoi(parts[0])
	y, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil {
		return true
	}
	return x > major || x == major && y >= minor
}
