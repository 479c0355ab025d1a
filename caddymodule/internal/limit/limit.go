// Package limit decides how many logins are let in: a token bucket per client address, one for everybody, and a cap on logins under way. Buckets does the first of it for other keys and calls.
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

// Limiter lets logins in. It is safe for concurrent use and outlives configurations. For an address that it has forgotten among too many others the total still holds.
type Limiter struct {
	mu       sync.Mutex
	cfg      Config
	total    *rate.Limiter
	clients  generations[netip.Prefix]
	inFlight int
}

// New returns a Limiter with full buckets.
func New(cfg Config) *Limiter {
	return &Limiter{cfg: cfg, total: rate.NewLimiter(cfg.Total.limit(), cfg.Total.Events)}
}

// Set changes the limits. Buckets keep what is in them, so that a reload lets nobody in a second time (THREATS.md 32).
func (l *Limiter) Set(cfg Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cfg.Total != l.cfg.Total {
		l.total = adjust(l.total, cfg.Total)
	}
	if cfg.PerClient != l.cfg.PerClient || cfg.PerPrivateClient != l.cfg.PerPrivateClient {
		for _, generation := range []map[netip.Prefix]*rate.Limiter{l.clients.young, l.clients.old} {
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

// Bucket names the bucket of a client and its rate, for those who count it in another place as well. The zero Rate means that this client has no limit.
func (l *Limiter) Bucket(client netip.Addr) (name string, r Rate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bucketOf(client).String(), l.cfg.rateOf(client.Unmap())
}

// bucketOf returns what a client shares a bucket with. All invalid addresses share the zero Prefix.
func bucketOf(client netip.Addr) netip.Prefix {
	client = client.Unmap()
	bits := client.BitLen()
	if client.Is6() {
		bits = 64 // one subscriber's network
	}
	p, _ := client.Prefix(bits)
	return p
}

// bucket returns the bucket of a client.
func (l *Limiter) bucket(client netip.Addr) *rate.Limiter {
	return l.clients.get(bucketOf(client), l.cfg.rateOf(client))
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
