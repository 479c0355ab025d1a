package session

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	// maxPending bounds the memory. The caller still hears that a revocation
	// failed for which there is no room.
	maxPending = 1 << 10

	// maxRecent bounds how many revocations are repeated after a loss of
	// contact.
	maxRecent = 1 << 13

	// recentFor is longer than a failover takes, and than a server waits before
	// it writes to its disk.
	recentFor = 15 * time.Second

	// recentOnWay is longer than a revocation takes.
	recentOnWay = 5 * time.Second

	// clockSkew is how far apart the clocks of gates may be: a session of
	// another gate may seem to be that much younger than it is.
	clockSkew = time.Second

	retryFirst = 100 * time.Millisecond
	retryMost  = time.Second
)

// revocation names what ends.
type revocation struct {
	kind   revocationKind
	digest store.Digest // ofSession
	user   User         // ofUser; its appid: ofApp
	person Person       // ofUnionID
}

type revocationKind uint8

const (
	ofSession revocationKind = iota + 1
	ofUser
	ofUnionID
	ofApp
	ofAll
)

// pendingState is what is known of a pending revocation beside its target.
type pendingState struct {
	before int64     // Unix milliseconds: covers sessions created until then
	until  time.Time // no session that it covers lives longer
	again  bool      // the store has taken it once
	why    Reason
	groups *Groups // those in which a person was meant
}

type pendingSet map[revocation]pendingState

// covers reports whether one of the revocations ends the session with digest d at
// the time now. A session from the future was made by a clock that is ahead: nothing
// tells whether that was before the revocation, so it counts as before.
func (m *pendingSet) covers(
	d store.Digest, u User, person Person, created, now int64,
) bool {
	if m == nil {
		return false
	}
	for _, r := range [...]revocation{
		{kind: ofSession, digest: d},
		{kind: ofUser, user: u},
		{kind: ofUnionID, person: person},
		{kind: ofApp, user: User{AppID: u.AppID}},
		{kind: ofAll},
	} {
		if p, ok := (*m)[r]; ok && (created <= p.before || ahead(created, now)) {
			return true
		}
	}
	return false
}

// ahead reports whether a session was made by a clock that is ahead.
func ahead(created, now int64) bool { return created > now+clockSkew.Milliseconds() }

// revocations keeps the revocations that the store must still take: those that
// failed for want of the store, and, after a loss of contact, those that it
// took last. A server that crashes or fails over may lose what it acknowledged,
// and a lost revocation would bring a session back. This gate refuses what a
// pending one covers and retries it until the store takes it or no session that
// it covers can be alive.
type revocations struct {
	core *Core

	// pending is nil when there are none. It is replaced, never changed, so
	// that a check sees one state of it.
	pending atomic.Pointer[pendingSet]

	mu       sync.Mutex
	queue    []revocation      // all that are pending, the next to retry first
	recent   []takenRevocation // taken by a shared store, oldest first
	longest  time.Duration     // life of a session under any configuration of this process
	retrying bool              // retry runs
}

type takenRevocation struct {
	revocation
	groups *Groups
	why    Reason
	at     time.Time // by this process
	before time.Time // by the clock of the store: covers sessions created until then
}

// allow notes that sessions may live as long as ttl.
func (o *revocations) allow(ttl time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.longest = max(o.longest, ttl)
}

// record takes the outcome of a revocation. One that the store took is marked
// in the cache. One that failed for want of the store becomes pending, which
// covers all that a mark would and leaves the other sessions in the cache,
// where an outage needs them.
func (o *revocations) record(r revocation, groups *Groups, why Reason, err error) {
	now := time.Now()
	taken := takenRevocation{
		revocation: r, groups: groups, why: why, at: now, before: o.core.clock(now),
	}
	if errors.Is(err, ErrUnavailable) {
		late := taken
		if o.core.shared != nil {
			late.before = late.before.Add(clockSkew)
		}
		if o.add(false, late) {
			return
		}
	}
	o.core.mark(r)
	if err == nil {
		o.settle(r)
		o.remember(taken)
	}
}

// mark makes the cache forget the sessions that a revocation ended.
func (c *Core) mark(r revocation) {
	switch r.kind {
	case ofSession:
		c.cache.void(digestKey(r.digest))
	case ofUser:
		c.cache.void(userKey(r.user))
	default:
		c.cache.voidAll()
	}
}

// add makes revocations pending that cover sessions created until their times,
// and reports whether there was room. again: the store has taken them once.
func (o *revocations) add(again bool, list ...takenRevocation) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := true
	o.edit(func(m pendingSet) {
		for _, r := range list {
			p := pendingState{
				before: r.before.UnixMilli(), until: r.at.Add(o.longest), again: again,
				why: r.why, groups: r.groups,
			}
			if r.kind == ofSession {
				p.before = math.MaxInt64 // its name is never used again
			}
			old, known := m[r.revocation]
			switch {
			case !known && !again && len(o.queue) >= maxPending:
				kept = false
				continue
			case !known:
				o.queue = append(o.queue, r.revocation)
			case again && old.before >= p.before:
				continue
			}
			m[r.revocation] = p
		}
	})
	if !o.retrying && len(o.queue) > 0 {
		o.retrying = o.core.background(o.retry)
	}
	return kept
}

// edit changes a copy of the pending set and publishes it. The caller holds the
// lock.
func (o *revocations) edit(f func(pendingSet)) {
	next := pendingSet{}
	if old := o.pending.Load(); old != nil {
		next = maps.Clone(*old)
	}
	f(next)
	o.queue = slices.DeleteFunc(o.queue, func(r revocation) bool {
		_, pending := next[r]
		return !pending
	})
	if len(next) == 0 {
		o.pending.Store(nil)
		return
	}
	o.pending.Store(&next)
}

// settle drops the pending revocations that one which the store took includes.
// The caller sets their marks before.
func (o *revocations) settle(r revocation) {
	if o.pending.Load() == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.edit(func(m pendingSet) {
		maps.DeleteFunc(m, func(p revocation, _ pendingState) bool {
			return p == r || r.kind == ofAll || r.kind == ofApp && p.user.AppID == r.user.AppID
		})
	})
}

// len returns how many are pending.
func (o *revocations) len() int {
	if m := o.pending.Load(); m != nil {
		return len(*m)
	}
	return 0
}

// remember keeps a revocation that a shared store took, for repeatRecent.
func (o *revocations) remember(r takenRevocation) {
	if o.core.shared == nil {
		return
	}
	at := r.at
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.recent) >= maxRecent || len(o.recent) > 0 && at.Sub(o.recent[0].at) > 2*recentFor {
		o.recent = slices.DeleteFunc(
			o.recent,
			func(t takenRevocation) bool { return at.Sub(t.at) > recentFor },
		)
	}
	if len(o.recent) >= maxRecent {
		o.recent = o.recent[1:]
	}
	o.recent = append(o.recent, r)
}

// repeatRecent makes the last revocations pending again after a loss of
// contact, and a moment later those that were on their way to the old server
// when contact with the new one was made. It repeats Forget as a revocation.
// The revocation of a mini program or of all sessions also ends the sessions
// that were made in between.
func (o *revocations) repeatRecent() {
	contact := time.Now()
	lost := o.core.shared.Heard() // does not move on before the contact was reported
	if recent := o.since(lost.Add(-recentFor)); len(recent) > 0 {
		o.core.log.Info(
			"repeating revocations after a loss of contact",
			zap.Int("revocations", len(recent)),
		)
		o.add(true, recent...)
	}
	o.core.background(func() {
		select {
		case <-time.After(recentOnWay):
			o.add(true, o.since(contact)...)
		case <-o.core.closing.Done():
		}
	})
}

// since returns the revocations that the store has taken since a time.
func (o *revocations) since(from time.Time) []takenRevocation {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.recent, func(t takenRevocation) bool { return !t.at.Before(from) })
	if i < 0 {
		return nil
	}
	return slices.Clone(o.recent[i:])
}

// retry carries out the pending revocations one at a time, until there are none.
func (o *revocations) retry() {
	c, log := o.core, o.core.log
	for wait := retryFirst; ; {
		select {
		case <-time.After(wait):
		case <-c.closing.Done():
		}
		r, p, ok := o.next()
		if !ok {
			return
		}
		err := c.closing.Err()
		if err == nil {
			_, err = survive(
				c,
				func() (struct{}, error) { return struct{}{}, o.carryOut(r, p) },
			)
		}
		expired := !time.Now().Before(p.until)
		switch {
		case err == nil && p.again:
		case err == nil:
			log.Info("revocation carried out after all", r.fields()...)
			o.remember(takenRevocation{
				revocation: r, groups: p.groups, why: p.why, at: time.Now(),
				before: time.UnixMilli(p.before),
			})
		case expired || c.closing.Err() != nil || !errors.Is(err, ErrUnavailable):
			log.Error("revocation given up",
				append(r.fields(), zap.Bool("expired", expired), zap.Error(err))...)
		default:
			wait = min(max(2*wait, retryFirst), retryMost)
			continue
		}
		c.mark(r)
		o.drop(r, p)
		wait = 0
	}
}

// next returns the revocation to try and moves it to the end of the queue. When
// there is none the caller stops retrying.
func (o *revocations) next() (r revocation, p pendingState, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		o.retrying = false
		return r, p, false
	}
	r = o.queue[0]
	o.queue = append(o.queue[1:], r)
	return r, (*o.pending.Load())[r], true
}

// drop forgets a pending revocation, unless it was asked for again in the
// meantime. The caller sets its mark before.
func (o *revocations) drop(r revocation, p pendingState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.edit(func(m pendingSet) {
		if m[r] == p {
			delete(m, r)
		}
	})
}

// carryOut makes a pending revocation durable. It spares sessions created after
// p.before, except where the epoch of a mini program or of all sessions has to
// move on.
func (o *revocations) carryOut(r revocation, p pendingState) error {
	c := o.core
	ctx, cancel := context.WithTimeout(c.closing, storeTimeout)
	defer cancel()
	switch r.kind {
	case ofSession:
		return c.asked(writing, c.store.End(ctx, r.digest, p.why))
	case ofUser:
		return o.endUser(ctx, r.user, p)
	case ofUnionID:
		ids, err := c.usersOf(ctx, r.person, p.groups)
		if err != nil {
			return err
		}
		for _, id := range ids {
			err = errors.Join(err, o.endUser(ctx, id, p))
		}
		return err
	case ofApp:
		return c.asked(writing, c.store.RevokeApp(ctx, r.user.AppID))
	}
	return c.asked(writing, c.store.RevokeAll(ctx))
}

// endUser ends the sessions of a user that were created until p.before.
func (o *revocations) endUser(ctx context.Context, id User, p pendingState) error {
	c := o.core
	u, err := c.store.User(ctx, id)
	if errors.Is(c.asked(reading, err), ErrUnavailable) {
		return err
	}
	now := c.clock(time.Now()).UnixMilli()
	later := func(ref store.SessionRef) bool {
		created := ref.Created.UnixMilli()
		return created > p.before && !ahead(created, now)
	}
	if !slices.ContainsFunc(u.Sessions, later) {
		// Not by the list, which does not judge sessions.
		return c.asked(writing, c.store.RevokeUser(ctx, id, p.why))
	}
	err = nil
	for _, ref := range slices.DeleteFunc(u.Sessions, later) {
		err = errors.Join(err, c.asked(writing, c.store.End(ctx, ref.Digest, p.why)))
	}
	return err
}

// fields names the target for the log, as the line of the failed call does.
func (r revocation) fields() []zap.Field {
	app := zap.String("appid", r.user.AppID)
	switch r.kind {
	case ofSession:
		return []zap.Field{
			zap.String("target", "session"),
			zap.String("session", sessionID(r.digest)),
		}
	case ofUser:
		return []zap.Field{zap.String("target", "user"), app, zap.String("openid", r.user.OpenID)}
	case ofUnionID:
		fields := []zap.Field{
			zap.String("target", "unionid"), zap.String("unionid", r.person.UnionID),
		}
		if r.person.OpenPlatform != "" {
			fields = append(fields, zap.String("open_platform", r.person.OpenPlatform))
		}
		return fields
	case ofApp:
		return []zap.Field{zap.String("target", "app"), app}
	}
	return []zap.Field{zap.String("target", "all")}
}
