package session

import (
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// A revocation that the store could not take is reported as failed to whoever asked for it, and nevertheless kept: this gate refuses from then on what it covers, and makes it durable as soon
// as the store lets it. That ends when nothing that it covers can be alive, or with the Core.

// revocation names what is to end.
type revocation struct {
	kind    revocationKind
	digest  store.Digest // ofSession
	user    store.UserID // ofUser; its appid: ofApp
	unionID string       // ofUnionID
}

type revocationKind uint8

const (
	ofSession revocationKind = iota + 1
	ofUser
	ofUnionID
	ofApp
	ofAll
)

// due is what is known of a pending revocation beside its target.
type due struct {
	before int64     // Unix milliseconds: covers sessions created until then
	until  time.Time // nothing that it covers lives longer
	again  bool      // the store has taken it once
}

type pendingSet map[revocation]due

// cover reports whether one of the revocations covers e.
func (m *pendingSet) cover(e *entry) bool {
	return m.covers(e.digest, store.UserID{AppID: e.appID, OpenID: e.openID()}, e.unionID(), e.created)
}

func (m *pendingSet) covers(d store.Digest, user store.UserID, unionID string, created int64) bool {
	if m == nil {
		return false
	}
	for _, r := range [...]revocation{
		{kind: ofSession, digest: d}, {kind: ofUser, user: user}, {kind: ofUnionID, unionID: unionID}, {kind: ofApp, user: store.UserID{AppID: user.AppID}}, {kind: ofAll},
	} {
		if p, ok := (*m)[r]; ok && created <= p.before {
			return true
		}
	}
	return false
}

// maxPending bounds the memory. What does not fit is only reported.
const maxPending = 1 << 10

// pendings are the revocations that the store has not taken yet.
type pendings struct {
	set atomic.Pointer[pendingSet] // nil: none. It is replaced, never changed, so that a check sees one state of it

	mu       sync.Mutex
	queue    []revocation  // all of them, the next to be tried first
	retrying bool          // a goroutine is at it
	longest  time.Duration // life of a session under any configuration of this process
}

// allow notes that sessions may be made that live as long as ttl.
func (p *pendings) allow(ttl time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longest = max(p.longest, ttl)
}

// edit changes a copy of the set and publishes it. The lock must be held.
func (p *pendings) edit(f func(pendingSet)) {
	next := pendingSet{}
	if old := p.set.Load(); old != nil {
		next = maps.Clone(*old)
	}
	f(next)
	if len(next) == 0 {
		p.set.Store(nil)
	} else {
		p.set.Store(&next)
	}
	p.queue = slices.DeleteFunc(p.queue, func(r revocation) bool { _, ok := next[r]; return !ok })
}

// add keeps a revocation of the sessions created until a time, if there is room. start: somebody has to begin with the retrying.
func (p *pendings) add(r revocation, before time.Time) (kept, start bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := slices.Contains(p.queue, r)
	if !known && len(p.queue) >= maxPending {
		return false, false
	}
	p.edit(func(m pendingSet) { m[r] = p.due(r, before) })
	if !known {
		p.queue = append(p.queue, r)
	}
	start, p.retrying = !p.retrying, true
	return true, start
}

// due is what is known of a revocation of the sessions created until a time. The lock must be held.
func (p *pendings) due(r revocation, before time.Time) due {
	d := due{before: before.UnixMilli(), until: before.Add(p.longest)}
	if r.kind == ofSession {
		d.before = math.MaxInt64 // there is no other by that name
	}
	return d
}

// repeat keeps revocations that the store may have lost. start: as with add.
func (p *pendings) repeat(past []pastRevocation) (start bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edit(func(m pendingSet) {
		for _, r := range past {
			d := p.due(r.revocation, r.at)
			d.again = true
			known, ok := m[r.revocation]
			if !ok {
				p.queue = append(p.queue, r.revocation)
			} else if known.before >= d.before {
				continue
			}
			m[r.revocation] = d
		}
	})
	start, p.retrying = !p.retrying, true
	return start
}

// next returns the revocation to be tried, which goes to the end of the queue. When there is none the retrying is over.
func (p *pendings) next() (r revocation, d due, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.retrying = false
		return r, d, false
	}
	r = p.queue[0]
	p.queue = append(p.queue[1:], r)
	return r, (*p.set.Load())[r], true
}

// drop forgets a revocation, unless it was asked for again in the meantime. Marks must be set before.
func (p *pendings) drop(r revocation, d due) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edit(func(m pendingSet) {
		if m[r] == d {
			delete(m, r)
		}
	})
}

// done forgets what a revocation that was carried out covers. Marks must be set before.
func (p *pendings) done(r revocation) {
	if p.set.Load() == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edit(func(m pendingSet) {
		maps.DeleteFunc(m, func(o revocation, _ due) bool {
			return o == r || r.kind == ofAll || r.kind == ofApp && o.user.AppID == r.user.AppID
		})
	})
}

// len returns how many there are.
func (p *pendings) len() int {
	if m := p.set.Load(); m != nil {
		return len(*m)
	}
	return 0
}
