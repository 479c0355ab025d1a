// Package limit decides how many logins are let in: a token bucket per client address, one for everybody, and a cap on logins under way.
//
// It owns no knowledge of HTTP or of what a login is. A refusal costs nobody anything: it is decided before a byte of the request's body is read (THREATS.md 26). Memory is bounded for
// any number of addresses.
package limit

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is a number of events in a time. The zero Rate means no limit. A bucket holds Events, so that all of them may come at once.
type Rate struct {
	Events int
	Per    time.Duration
}

// Above reports whether r lets in more than o.
func (r Rate) Above(o Rate) bool { return r.limit() > o.limit() }

func (r Rate) limit() rate.Limit {
	if r.Events <= 0 {
		return rate.Inf
	}
	return rate.Limit(float64(r.Events) / r.Per.Seconds())
}

// Config is how much is let in.
type Config struct {
	PerClient Rate // one IPv4 address, one IPv6 /64
	// PerPrivateClient is for addresses that are loopback, private or shared (RFC 1918, 4193, 6598): mostly those of a load balancer, behind which everybody is one client.
	PerPrivateClient Rate
	Total            Rate
	InFlight         int // 0: no cap
}

// maxBuckets is how many addresses have a bucket of their own at a time, in each of two generations. An address that is forgotten starts with a full bucket; the total still holds.
const maxBuckets = 1 << 14

// Limiter lets logins in. It is safe for concurrent use and outlives configurations.
type Limiter struct {
	mu       sync.Mutex
	cfg      Config
	total    *rate.Limiter
	young    map[netip.Prefix]*rate.Limiter
	old      map[netip.Prefix]*rate.Limiter
	inFlight int
}

// New returns a Limiter with full buckets.
func New(cfg Config) *Limiter {
	return &Limiter{cfg: cfg, total: rate.NewLimiter(cfg.Total.limit(), cfg.Total.Events), young: make(map[netip.Prefix]*rate.Limiter)}
}

// Set changes the limits. Buckets keep what is in them, so that a reload lets nobody in a second time (THREATS.md 32).
func (l *Limiter) Set(cfg Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cfg.Total != l.cfg.Total {
		l.total = adjust(l.total, cfg.Total)
	}
	if cfg.PerClient != l.cfg.PerClient || cfg.PerPrivateClient != l.cfg.PerPrivateClient {
		for _, generation := range []map[netip.Prefix]*rate.Limiter{l.young, l.old} {
			for p, b := range generation {
				generation[p] = adjust(b, cfg.rateOf(p.Addr()))
			}
		}
	}
	l.cfg = cfg
}

// adjust changes the rate of a bucket. One that had no limit never counted what was taken, so it starts full.
func adjust(b *rate.Limiter, r Rate) *rate.Limiter {
	if b.Limit() == rate.Inf {
		return rate.NewLimiter(r.limit(), r.Events)
	}
	b.SetLimit(r.limit())
	b.SetBurst(r.Events)
	return b
}

// Allow asks whether a login of a client may be looked at. If not, wait is how long the client should stay away, at least a second, and the spent part of its buckets stays spent. It reserves
// nothing: what is let in here may still find no room in Begin.
func (l *Limiter) Allow(client netip.Addr) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full() {
		return time.Second, false
	}
	now := time.Now()
	if wait, ok := take(l.bucket(client), now); !ok {
		return wait, false
	}
	return take(l.total, now)
}

// Begin takes room for one exchange. When ok, end must be called when the exchange is over, whoever still waits for it.
func (l *Limiter) Begin() (end func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full() {
		return nil, false
	}
	l.inFlight++
	return sync.OnceFunc(l.end), true
}

func (l *Limiter) full() bool { return l.cfg.InFlight > 0 && l.inFlight >= l.cfg.InFlight }

func (l *Limiter) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
}

// take takes one from a bucket or tells how long until there is one.
func take(b *rate.Limiter, now time.Time) (time.Duration, bool) {
	if b.AllowN(now, 1) {
		return 0, true
	}
	r := b.ReserveN(now, 1)
	defer r.CancelAt(now)
	return max(r.DelayFrom(now), time.Second), false
}

// bucket returns the bucket of a client. Two generations stand in for a list by age: when the young one is full it becomes the old one, and whoever still comes is carried over.
func (l *Limiter) bucket(client netip.Addr) *rate.Limiter {
	client = client.Unmap()
	bits := client.BitLen()
	if client.Is6() {
		bits = 64 // one subscriber's network
	}
	p, _ := client.Prefix(bits) // of an invalid address: the zero Prefix, one bucket for all of them
	if b := l.young[p]; b != nil {
		return b
	}
	b := l.old[p]
	if b == nil {
		r := l.cfg.rateOf(client)
		b = rate.NewLimiter(r.limit(), r.Events)
	}
	if len(l.young) >= maxBuckets {
		l.old, l.young = l.young, make(map[netip.Prefix]*rate.Limiter)
	}
	l.young[p] = b
	return b
}

// sharedSpace is what carriers and load balancers use between private and public (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

func (c Config) rateOf(client netip.Addr) Rate {
	if !IsPublic(client) {
		return c.PerPrivateClient
	}
	return c.PerClient
}

// IsPublic reports whether an address can be one client's own as seen from the internet.
func IsPublic(a netip.Addr) bool {
	a = a.Unmap()
	// The unspecified address is also what is left of ::1 in its /64.
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsPrivate() && !a.IsLinkLocalUnicast() && !sharedSpace.Contains(a)
}
