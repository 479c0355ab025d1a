package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

// Defaults of a Config.
const (
	DefaultPrefix       = "wxgate:"
	DefaultDialTimeout  = time.Second
	DefaultReadTimeout  = 80 * time.Millisecond // of the 100 ms of docs/design.md#p4
	DefaultWriteTimeout = 2 * time.Second
)

// Config says where the engine is and how the gate talks to it. Only Addresses is
// required.
type Config struct {
	// Addresses are host:port each, of the server, of some nodes of the cluster, or
	// of the sentinels. A path that begins with / is a unix socket.
	Addresses []string
	Username  string // ACL user; empty for the default user
	Password  string
	DB        int         // 0 with Cluster
	TLS       *tls.Config // nil: plain TCP

	// ReadTLS returns TLS with the files as they are now; nil: TLS names none. Each
	// connection asks it, so that a renewed certificate needs no reload.
	ReadTLS func() (*tls.Config, error)

	// TLSDigest changes with the words and files of TLS.
	TLSDigest string

	Sentinel *Sentinel // not nil: Addresses are sentinels
	Cluster  bool      // Addresses are nodes of a cluster

	Prefix string // of every key; fleets that share a server have different ones

	DialTimeout  time.Duration // of one connection
	ReadTimeout  time.Duration // of one look-up; a request is answered 503 after it
	WriteTimeout time.Duration // of one login or revocation

	Logger *zap.Logger // nil means no log

	pace  pace // of the heartbeat; only tests set it
	queue int  // of one data connection, as a power of two; only tests set it
}

// Sentinel says how to ask the sentinels for the primary.
type Sentinel struct {
	Master   string
	Username string
	Password string
}

// complete returns the configuration with its defaults, or its mistake.
func (c Config) complete() (Config, error) {
	switch {
	case len(c.Addresses) == 0:
		return c, errors.New("no address given")
	case strings.ContainsAny(c.Prefix, "{}"):
		return c, fmt.Errorf("the prefix %q contains a brace, "+
			"which would decide where a cluster puts the keys", c.Prefix)
	case c.Cluster && c.DB != 0:
		return c, fmt.Errorf("a cluster has only database 0, not %d", c.DB)
	case c.Cluster && c.Sentinel != nil:
		return c, errors.New("a cluster has no sentinels")
	case c.Sentinel != nil && c.Sentinel.Master == "":
		return c, errors.New("the name of the primary is missing, which the sentinels know it by")
	}
	setDefault(&c.Prefix, DefaultPrefix)
	setDefault(&c.DialTimeout, DefaultDialTimeout)
	setDefault(&c.ReadTimeout, DefaultReadTimeout)
	setDefault(&c.WriteTimeout, DefaultWriteTimeout)
	setDefault(&c.pace, defaultPace)
	setDefault(&c.queue, dataQueue)
	setDefault(&c.Logger, zap.NewNop())
	return c, nil
}

func setDefault[T comparable](v *T, to T) {
	if *v == *new(T) {
		*v = to
	}
}

// patience is longer than any request waits.
func (c Config) patience() time.Duration {
	return max(c.ReadTimeout, c.WriteTimeout, time.Second)
}

// Sizes of one connection, the queues as powers of two. A request that finds the
// queue full waits for room however short its deadline is, so the queue holds
// the requests that come in until the gate notices a silence. The library
// allocates each queue at once, about 300 bytes an entry.
const (
	dataQueue  = 12
	smallQueue = 4 // of connections on which only the link speaks
	bufferSize = 1 << 16
	keepAlive  = 15 * time.Second
)

// options returns what all connections to the engine have in common. The library
// does not send its name, since an ACL that forbids it logs each attempt.
func (l *link) options() rueidis.ClientOption {
	return rueidis.ClientOption{
		Username:           l.cfg.Username,
		Password:           l.cfg.Password,
		SelectDB:           l.cfg.DB,
		TLSConfig:          l.cfg.TLS,
		ClientName:         "wxgate",
		ClientSetInfo:      rueidis.DisableClientSetInfo,
		DisableCache:       true,
		RingScaleEachConn:  smallQueue,
		ReadBufferEachConn: bufferSize, WriteBufferEachConn: bufferSize,
		ConnWriteTimeout: l.cfg.patience(),
		Dialer:           net.Dialer{Timeout: l.cfg.DialTimeout, KeepAlive: keepAlive},
		DialCtxFn: func(
			ctx context.Context, addr string, _ *net.Dialer, tc *tls.Config,
		) (net.Conn, error) {
			raw, err := l.dial(ctx, addr, tc)
			return l.bind(raw, func() {}), err
		},
	}
}

// dataClient returns the client for requests. It pipelines all commands, since
// otherwise a request that runs out of time closes a connection that others use.
// Its connections end with the client, not with the link: the library takes one
// that ends by itself for a loss, and asks a cluster for the slots once more.
func (l *link) dataClient(v view) (rueidis.Client, error) {
	o := l.options()
	o.InitAddress = v.addresses()
	o.ForceSingleClient = !l.cfg.Cluster
	o.Dialer.KeepAlive, o.ConnWriteTimeout = l.cfg.pace.interval, l.cfg.pace.silence()
	o.RingScaleEachConn = l.cfg.queue
	o.AlwaysPipelining = true
	var connected atomic.Bool
	connecting, done := context.WithCancel(l.ctx)
	defer done()
	o.DialCtxFn = func(
		ctx context.Context, addr string, _ *net.Dialer, tc *tls.Config,
	) (net.Conn, error) {
		raw, err := l.dial(ctx, addr, tc)
		if err == nil && !connected.Load() {
			context.AfterFunc(connecting, func() {
				if !connected.Load() {
					raw.Close()
				}
			})
		}
		return raw, err
	}
	c, err := connect(o)
	connected.Store(true)
	return c, err
}

// openAll makes the library open the connections of a client, most likely all four,
// that it opens at their first use otherwise: by then the password may be another.
func (l *link) openAll(ctx context.Context, c rueidis.Client) {
	_ = inParallel(16, func(int) error { return c.Do(ctx, c.B().Ping().Build()).Error() })
}

// connect returns a client that is connected, or none.
func connect(o rueidis.ClientOption) (rueidis.Client, error) {
	c, err := rueidis.NewClient(o)
	if err != nil && c != nil {
		c.Close()
		c = nil
	}
	return c, err
}

// dial connects to host:port or to a unix socket. It ignores the library's dialer,
// whose KeepAlive is the interval of the library's own pings.
func (l *link) dial(ctx context.Context, addr string, tc *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	d := &net.Dialer{Timeout: l.cfg.DialTimeout, KeepAlive: keepAlive}
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	if tc != nil {
		tc = l.freshTLS(tc)
		return (&tls.Dialer{NetDialer: d, Config: tc}).DialContext(ctx, network, addr)
	}
	return d.DialContext(ctx, network, addr)
}

// freshTLS returns the TLS configuration with its files as they are now. While they
// cannot be read, as in the middle of a renewal, the last ones serve.
func (l *link) freshTLS(tc *tls.Config) *tls.Config {
	if l.cfg.ReadTLS == nil {
		return tc
	}
	fresh, err := l.cfg.ReadTLS()
	if err != nil {
		if !l.staleTLS.Swap(true) {
			l.cfg.Logger.Warn("tls files of redis cannot be read; the last ones serve",
				zap.Error(err))
		}
		return tc
	}
	l.staleTLS.Store(false)
	return fresh
}

// bind makes a connection end with the link. It calls closed once, when the
// connection has ended for whatever reason.
func (l *link) bind(raw net.Conn, closed func()) net.Conn {
	if raw == nil {
		return nil
	}
	stop := context.AfterFunc(l.ctx, func() { raw.Close() })
	return &boundConn{Conn: raw, closed: sync.OnceFunc(func() { stop(); closed() })}
}

type boundConn struct {
	net.Conn
	closed func()
}

func (c *boundConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
