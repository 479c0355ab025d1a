package redistest

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards TCP connections to a server until it is told to do worse.
type Proxy struct {
	Addr string // host:port that it listens on

	target string
	ln     net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	wake  chan struct{} // closed when hole changes
	hole  bool          // nothing is forwarded
	cut   bool          // new connections are closed at once
	delay time.Duration // of all that is forwarded
	pairs map[*pair]struct{}
}

// pair is one connection and the one that it is forwarded to.
type pair struct {
	in, out net.Conn
	lost    bool // forwards nothing, for ever
	tracks  bool // CLIENT TRACKING was asked for on it
}

// StartProxy forwards to addr until the test ends.
func StartProxy(tb testing.TB, addr string) *Proxy {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{Addr: ln.Addr().String(), target: addr, ln: ln, wake: make(chan struct{}), pairs: make(map[*pair]struct{})}
	p.wg.Go(p.accept)
	tb.Cleanup(func() {
		ln.Close()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Cut closes all connections, and new ones as soon as they come.
func (p *Proxy) Cut() {
	p.set(func() {
		p.cut, p.hole = true, false
		for c := range p.pairs {
			c.close()
		}
	})
}

// Blackhole forwards nothing any more and closes nothing: neither side is told.
func (p *Proxy) Blackhole() { p.set(func() { p.hole = true }) }

// Forget forwards nothing any more on the connections that there are, as when a firewall has lost its state; new ones are forwarded.
func (p *Proxy) Forget() {
	p.set(func() {
		for c := range p.pairs {
			c.lost = true
		}
	})
}

// ForgetData is Forget for the connections by which no invalidations come. It returns how many.
func (p *Proxy) ForgetData() (n int) {
	p.set(func() {
		for c := range p.pairs {
			if !c.tracks && !c.lost {
				c.lost = true
				n++
			}
		}
	})
	return n
}

// Delay holds up all that is forwarded by d.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

// Restore forwards as in the beginning: what Blackhole has held up, too.
func (p *Proxy) Restore() { p.set(func() { p.cut, p.hole, p.delay = false, false, 0 }) }

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.wake)
	p.wake = make(chan struct{})
}

func (p *Proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(in) })
	}
}

func (p *Proxy) serve(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	c := &pair{in: in, out: out}
	defer c.close()
	p.mu.Lock()
	cut := p.cut
	p.pairs[c] = struct{}{}
	p.mu.Unlock()
	if !cut {
		var both sync.WaitGroup
		both.Go(func() { p.pump(c, in, out) })
		both.Go(func() { p.pump(c, out, in) })
		both.Wait()
	}
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

// pump forwards one direction; when it ends, so does the other.
func (p *Proxy) pump(c *pair, from, to net.Conn) {
	defer c.close()
	buf := make([]byte, 1<<15)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if from == c.in && bytes.Contains(buf[:n], []byte("TRACKING")) {
				p.mu.Lock()
				c.tracks = true
				p.mu.Unlock()
			}
			p.hold(c)
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err != io.EOF {
				return
			}
			p.hold(c)
			return
		}
	}
}

// hold returns when what was read may be forwarded.
func (p *Proxy) hold(c *pair) {
	for {
		p.mu.Lock()
		held, delay, wake := (p.hole || c.lost) && !p.cut, p.delay, p.wake
		p.mu.Unlock()
		if !held {
			time.Sleep(delay)
			return
		}
		<-wake
	}
}

func (c *pair) close() {
	c.in.Close()
	c.out.Close()
}
