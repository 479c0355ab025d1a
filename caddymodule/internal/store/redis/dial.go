package redis

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

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

// options are what all connections to the engine have in common.
func (l *link) options() rueidis.ClientOption {
	return rueidis.ClientOption{
		Username: l.cfg.Username, Password: l.cfg.Password, SelectDB: l.cfg.DB, TLSConfig: l.cfg.TLS,
		ClientName: "wxgate", ClientSetInfo: rueidis.DisableClientSetInfo, // an ACL that forbids it would log each attempt
		Dialer:           net.Dialer{Timeout: l.cfg.DialTimeout, KeepAlive: keepAlive},
		ConnWriteTimeout: l.patience(),
		DialCtxFn: func(ctx context.Context, addr string, _ *net.Dialer, tc *tls.Config) (net.Conn, error) {
			raw, err := l.dial(ctx, addr, tc)
			return l.bind(raw, func() {}), err
		},
		DisableCache:      true,
		RingScaleEachConn: smallQueue, ReadBufferEachConn: bufferSize, WriteBufferEachConn: bufferSize,
	}
}

// patience is longer than any request waits.
func (l *link) patience() time.Duration {
	return max(l.cfg.ReadTimeout, l.cfg.WriteTimeout, time.Second)
}

// dataClient returns what requests use. Its connections end with it: the library takes one that ends by itself for a loss, and a client of a cluster then asks for the slots once more.
func (l *link) dataClient(v view) (rueidis.Client, error) {
	o := l.options()
	o.InitAddress = v.addresses()
	o.ForceSingleClient = !l.cfg.Cluster
	o.Dialer.KeepAlive, o.ConnWriteTimeout = l.cfg.pace.interval, l.cfg.pace.silence()
	o.RingScaleEachConn = dataQueue
	o.AlwaysPipelining = true // otherwise a request that is out of time takes its connection with it, and those of others
	var connected atomic.Bool
	connecting, done := context.WithCancel(l.ctx)
	defer done()
	o.DialCtxFn = func(ctx context.Context, addr string, _ *net.Dialer, tc *tls.Config) (net.Conn, error) {
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

// connect returns a client that is connected, or none.
func connect(o rueidis.ClientOption) (rueidis.Client, error) {
	c, err := rueidis.NewClient(o)
	if err != nil && c != nil {
		c.Close()
		c = nil
	}
	return c, err
}

// dial connects to host:port or to a unix socket.
func (l *link) dial(ctx context.Context, addr string, tc *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	d := &net.Dialer{Timeout: l.cfg.DialTimeout, KeepAlive: keepAlive} // the library means its own pings by that
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	if tc != nil {
		return (&tls.Dialer{NetDialer: d, Config: tc}).DialContext(ctx, network, addr)
	}
	return d.DialContext(ctx, network, addr)
}

// bind makes a connection end with the link. closed is called once, when it has ended for whatever reason.
func (l *link) bind(raw net.Conn, closed func()) net.Conn {
	if raw == nil {
		return nil
	}
	stop := context.AfterFunc(l.ctx, func() { raw.Close() })
	return &liveConn{Conn: raw, closed: sync.OnceFunc(func() { stop(); closed() })}
}

// liveConn tells when it is closed.
type liveConn struct {
	net.Conn
	closed func()
}

func (c *liveConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
