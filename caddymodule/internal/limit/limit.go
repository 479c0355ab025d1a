// Package limit is the rate limit of logins: token buckets for the logins of each
// client address and for its codes that WeChat refuses, one for all clients, and a
// cap on logins in flight. Buckets is the rate limit for other keys.
//
// The package knows nothing of HTTP. The gate asks it before it reads a byte of
// the request's body (docs/threats.md#t26). Its memory has a bound for any
// number of addresses.
package limit

import (
	"context"
	"math"
	"math/rand/v2"
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
	// PerClient bounds the logins of one IPv4 address or one IPv6 /64. An address
	// may stand for a class or an office, so it is generous.
	PerClient Rate

	// Refused bounds the codes of such a client that WeChat refuses
	// (docs/threats.md#t42).
	Refused Rate

	// PerPrivateClient and PrivateRefused are for loopback, private and shared
	// addresses (RFC 1918, 4193, 6598). Such an address is mostly a load balancer's
	// and stands for many clients.
	PerPrivateClient, PrivateRefused Rate

	Total    Rate
	InFlight int // 0: no cap
}

// wide is how much more than a /64 its IPv6 /48 may do. A /48 is one customer of
// many providers, and a crowd of telephones of others.
const wide = 10

// Limit names what refuses a login; empty: nothing does. It labels metric and log.
type Limit string

// The limits.
const (
	OfClient   Limit = "client"        // logins of one address
	OfRefused  Limit = "refused_codes" // codes of one address that WeChat refuses
	OfAll      Limit = "global"        // logins of all clients
	OfInFlight Limit = "in_flight"     // exchanges under way
	OfMerchant Limit = "merchant"      // logins of one mini program of a third-party platform
)

// Limiter is the rate limit of logins. It outlives configurations and is safe
// for concurrent use. The total counts evicted addresses, too.
type Limiter struct {
	mu       sync.Mutex
	cfg      Config
	total    *rate.Limiter
	clients  generations[netip.Prefix]
	refused  generations[netip.Prefix]
	pending  map[netip.Prefix]*exchanges // by the widest prefix of the client
	inFlight int
}

// exchanges are the logins of one client that WeChat has not answered.
type exchanges struct {
	n       int
	settled chan struct{} // closed when one of them ends
}

// New returns a Limiter with full buckets.
func New(cfg Config) *Limiter {
	return &Limiter{
		cfg: cfg, total: rate.NewLimiter(cfg.Total.limit(), cfg.Total.Events),
		pending: make(map[netip.Prefix]*exchanges),
	}
}

// Set changes the limits. Buckets keep their contents, so a reload refills none
// (docs/threats.md#t32).
func (l *Limiter) Set(cfg Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cfg.Total != l.cfg.Total {
		l.total = adjust(l.total, cfg.Total)
	}
	if cfg == l.cfg {
		return
	}
	l.cfg = cfg
	l.clients.update(func(p netip.Prefix, b *rate.Limiter) *rate.Limiter {
		return adjust(b, cfg.rateOf(p))
	})
	l.refused.update(func(p netip.Prefix, b *rate.Limiter) *rate.Limiter {
		return adjust(b, cfg.refusedOf(p))
	})
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

// Allow takes a login of a client from the buckets. When a limit refuses it, the
// client should wait, at least a second. Allow takes nothing for the exchange: Begin
// may still refuse the login.
func (l *Limiter) Allow(client netip.Addr) (wait time.Duration, by Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full() {
		return time.Second, OfInFlight
	}
	now, nets := time.Now(), networks(client)
	if wait, yes := l.guessed(nets, now); yes {
		return wait, OfRefused
	}
	if wait, ok := l.takeAll(&l.clients, nets, l.cfg.rateOf, now); !ok {
		return wait, OfClient
	}
	if wait, ok := take(l.total, now); !ok {
		return wait, OfAll
	}
	return 0, ""
}

// guessed reports whether WeChat has refused too many codes of a client. It takes
// nothing: it only spares the gate the body of a login that Begin would refuse.
func (l *Limiter) guessed(nets []netip.Prefix, now time.Time) (wait time.Duration, yes bool) {
	if l.pending[nets[len(nets)-1]] != nil {
		return 0, false // may be given back
	}
	for _, p := range nets {
		if b := l.refused.find(p); b != nil {
			wait = max(wait, delay(b, now))
		}
	}
	return max(wait, time.Second), wait > 0
}

// patience bounds the wait of Begin for exchanges under way. WeChat mostly answers
// within a tenth of it.
const patience = 5 * time.Second

// Begin counts one exchange of a client as in flight, and its code as refused until
// end says otherwise. So codes that arrive at once count in full. While the bucket
// is empty because of exchanges that may be given back, Begin waits for them: a
// class logs in at once, a guesser does not.
//
// The caller calls end when the exchange with WeChat is over, even when the client has
// gone. When a limit refuses the exchange, end is nil and the client should wait.
func (l *Limiter) Begin(
	ctx context.Context, client netip.Addr,
) (end func(refused bool), wait time.Duration, by Limit) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	nets := networks(client)
	for {
		end, wait, by, settled := l.tryBegin(nets)
		if settled == nil {
			return end, wait, by
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return nil, wait, by
		}
	}
}

// tryBegin is Begin without the wait. A channel means that an exchange under way
// may make room.
func (l *Limiter) tryBegin(
	nets []netip.Prefix,
) (end func(bool), wait time.Duration, by Limit, settled <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full() {
		return nil, time.Second, OfInFlight, nil
	}
	under := nets[len(nets)-1]
	x := l.pending[under]
	if wait, ok := l.takeAll(&l.refused, nets, l.cfg.refusedOf, time.Now()); !ok {
		if x != nil {
			settled = x.settled
		}
		return nil, wait, OfRefused, settled
	}
	if x == nil {
		x = &exchanges{settled: make(chan struct{})}
		l.pending[under] = x
	}
	x.n++
	l.inFlight++
	var once sync.Once
	return func(refused bool) { once.Do(func() { l.end(nets, refused) }) }, 0, "", nil
}

// Full reports whether InFlight exchanges are under way.
func (l *Limiter) Full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full()
}

func (l *Limiter) full() bool { return l.cfg.InFlight > 0 && l.inFlight >= l.cfg.InFlight }

// end ends an exchange and wakes the logins that wait for it.
func (l *Limiter) end(nets []netip.Prefix, refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	if !refused {
		for _, p := range nets {
			give(l.refused.get(p, l.cfg.refusedOf(p)), time.Now())
		}
	}
	under := nets[len(nets)-1]
	x := l.pending[under]
	x.n--
	close(x.settled)
	x.settled = make(chan struct{})
	if x.n == 0 {
		delete(l.pending, under)
	}
}

// takeAll takes an event from the bucket of each network, or from none.
func (*Limiter) takeAll(
	g *generations[netip.Prefix], nets []netip.Prefix, rateOf func(netip.Prefix) Rate,
	now time.Time,
) (time.Duration, bool) {
	for i, p := range nets {
		if wait, ok := take(g.get(p, rateOf(p)), now); !ok {
			for _, q := range nets[:i] {
				give(g.get(q, rateOf(q)), now)
			}
			return wait, false
		}
	}
	return 0, true
}

// Bucket returns the name and rate of a client's bucket, for a count that a
// fleet shares. The zero Rate means no limit.
func (l *Limiter) Bucket(client netip.Addr) (name string, r Rate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := networks(client)[0]
	return p.String(), l.cfg.rateOf(p)
}

// networks returns the networks that count a client, the narrowest first: one IPv4
// address, or an IPv6 /64 and its /48. All invalid addresses share the zero Prefix.
func networks(client netip.Addr) []netip.Prefix {
	client = client.Unmap()
	if !client.Is6() || !IsPublic(client) {
		bits := client.BitLen()
		if client.Is6() {
			bits = 64
		}
		p, _ := client.Prefix(bits)
		return []netip.Prefix{p}
	}
	narrow, _ := client.Prefix(64)
	broad, _ := client.Prefix(48)
	return []netip.Prefix{narrow, broad}
}

// sharedSpace is the address space of carriers and load balancers (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

func (c Config) rateOf(p netip.Prefix) Rate {
	return widened(p, c.PerClient, c.PerPrivateClient)
}

func (c Config) refusedOf(p netip.Prefix) Rate { return widened(p, c.Refused, c.PrivateRefused) }

// widened returns the rate of a network.
func widened(p netip.Prefix, public, private Rate) Rate {
	switch {
	case !IsPublic(p.Addr()):
		return private
	case p.Addr().Is6() && p.Bits() < 64:
		public.Events = min(public.Events, math.MaxInt/wide) * wide
	}
	return public
}

// Spread returns a wait that is up to 5 seconds longer, at random, so that clients
// which were refused together do not come back together. It leaves a wait of a
// minute or more alone.
func Spread(wait time.Duration) time.Duration {
	if wait <= 0 || wait >= time.Minute {
		return wait
	}
	return wait + rand.N(min(wait, 5*time.Second)+1)
}

// IsPublic reports whether an address is one client's own on the internet.
func IsPublic(a netip.Addr) bool {
	a = a.Unmap()
	// The unspecified address is also the /64 of ::1.
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsPrivate() &&
		!a.IsLinkLocalUnicast() && !sharedSpace.Contains(a)
}
