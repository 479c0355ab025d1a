// Package limit is the rate limit of logins: a token bucket for each client
// address, one for all clients, and a cap on logins in flight. Buckets is the
// rate limit for other keys.
//
// The package knows nothing of HTTP. The gate asks it before it reads a byte of
// the request's body (docs/threats.md#t26). Its memory has a bound for any
// number of addresses.
package limit

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is a number of events in a time. The zero Rate means no limit. A bucket
// holds Events, so all of them may come at once.
type Rate struct {
	Events int
	Per    time.Duration
}

// Above reports whether r allows more than o.
func (r Rate) Above(o Rate) bool { return r.limit() > o.limit() }

func (r Rate) limit() rate.Limit {
	if r.Events <= 0 {
		return rate.Inf
	}
	return rate.Limit(float64(r.Events) / r.Per.Seconds())
}

// Config holds the limits of a Limiter.
type Config struct {
	PerClient Rate // one IPv4 address, one IPv6 /64
	// PerPrivateClient is for loopback, private and shared addresses (RFC 1918,
	// 4193, 6598). Such an address is mostly a load balancer's and stands for
	// many clients.
	PerPrivateClient Rate
	Total            Rate
	InFlight         int // 0: no cap
}

// Limiter is the rate limit of logins. It outlives configurations and is safe
// for concurrent use. The total counts evicted addresses, too.
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

// Set changes the limits. Buckets keep their contents, so a reload refills none
// (docs/threats.md#t32).
func (l *Limiter) Set(cfg Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cfg.Total != l.cfg.Total {
		l.total = adjust(l.total, cfg.Total)
	}
	if cfg.PerClient != l.cfg.PerClient || cfg.PerPrivateClient != l.cfg.PerPrivateClient {
		l.clients.update(func(p netip.Prefix, b *rate.Limiter) *rate.Limiter {
			return adjust(b, cfg.rateOf(p.Addr()))
		})
	}
	l.cfg = cfg
}

// adjust changes the rate of a bucket. A bucket without limit has not counted,
// so it starts full.
func adjust(b *rate.Limiter, r Rate) *rate.Limiter {
	if b.Limit() == rate.Inf {
		return rate.NewLimiter(r.limit(), r.Events)
	}
	b.SetLimit(r.limit())
	b.SetBurst(r.Events)
	return b
}

// Allow takes a login of a client from the buckets. If ok is false, the client
// should wait, at least a second. Allow reserves no room in flight: Begin may
// still refuse the login.
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

// Begin counts one login as in flight. If ok is true, the caller calls end when
// the exchange with WeChat is over, even when the client has gone.
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

// Bucket returns the name and rate of a client's bucket, for a count that a
// fleet shares. The zero Rate means no limit.
func (l *Limiter) Bucket(client netip.Addr) (name string, r Rate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bucketOf(client).String(), l.cfg.rateOf(client.Unmap())
}

// bucketOf returns the addresses that share a bucket with a client. All invalid
// addresses share the zero Prefix.
func bucketOf(client netip.Addr) netip.Prefix {
	client = client.Unmap()
	bits := client.BitLen()
	if client.Is6() {
		bits = 64 // the network of one subscriber
	}
	p, _ := client.Prefix(bits)
	return p
}

func (l *Limiter) bucket(client netip.Addr) *rate.Limiter {
	return l.clients.get(bucketOf(client), l.cfg.rateOf(client))
}

// sharedSpace is the address space of carriers and load balancers (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

func (c Config) rateOf(client netip.Addr) Rate {
	if !IsPublic(client) {
		return c.PerPrivateClient
	}
	return c.PerClient
}

// IsPublic reports whether an address is one client's own on the internet.
func IsPublic(a netip.Addr) bool {
	a = a.Unmap()
	// The unspecified address is also the /64 of ::1.
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsPrivate() &&
		!a.IsLinkLocalUnicast() && !sharedSpace.Contains(a)
}
