package redistest

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards TCP connections to a server until a test makes it do worse.
type Proxy struct {
	Addr string // host:port that it listens on

	target string
	ln     net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	wake  chan struct{} // closed with each change of the fields below
	hole  bool          // forwards nothing
	cut   bool          // closes new connections at once
	delay time.Duration // of each chunk
	lose  func(request []byte) *Loss
	pairs map[*pair]struct{}
}

// Loss is what LoseWhen may do to a connection.
type Loss struct {
	Answer bool   // loses the answer, not the request
	Keep   bool   // loses nothing, but delays the request until Then returns
	Then   func() // runs while the client waits; may be nil
}

// pair is one connection and the one that it is forwarded to.
type pair struct {
	in, out   net.Conn
	forgotten bool  // forwards nothing, for ever
	tracks    bool  // has sent CLIENT TRACKING
	answer    *Loss // of the next answer
}

// StartProxy forwards to addr until the test ends.
func StartProxy(tb testing.TB, addr string) *Proxy {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{
		Addr: ln.Addr().String(), target: addr, ln: ln,
		wake: make(chan struct{}), pairs: make(map[*pair]struct{}),
	}
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

// Blackhole forwards nothing any more and closes nothing, so neither side knows.
func (p *Proxy) Blackhole() { p.set(func() { p.hole = true }) }

// Forget forwards nothing any more on the present connections, as when a firewall
// has lost its state. It forwards new ones.
func (p *Proxy) Forget() { p.forget(func(*pair) bool { return true }) }

// ForgetData is Forget for connections without CLIENT TRACKING. It returns their
// number.
func (p *Proxy) ForgetData() int { return p.forget(func(c *pair) bool { return !c.tracks }) }

func (p *Proxy) forget(which func(*pair) bool) (n int) {
	p.set(func() {
		for c := range p.pairs {
			if !c.forgotten && which(c) {
				c.forgotten = true
				n++
			}
		}
	})
	return n
}

// Delay holds up each chunk by d.
func (p *Proxy) Delay(d time.Duration) { p.set(func() { p.delay = d }) }

// LoseWhen asks f about each chunk of requests. A loss ends the connection: before
// the server sees the request, or before the client sees the answer.
func (p *Proxy) LoseWhen(f func(request []byte) *Loss) { p.set(func() { p.lose = f }) }

// Restore forwards again, also the chunks that Blackhole has held up.
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
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if n > 0 && p.loses(c, from, buf[:n]) {
			return
		}
		p.hold(c)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// loses reports whether a chunk, and the connection with it, gets lost.
func (p *Proxy) loses(c *pair, from net.Conn, chunk []byte) bool {
	p.mu.Lock()
	lose, l := p.lose, c.answer
	c.tracks = c.tracks || from == c.in && bytes.Contains(chunk, []byte("TRACKING"))
	p.mu.Unlock()
	if from == c.in {
		if l = nil; lose != nil {
			l = lose(chunk)
		}
		if l != nil && l.Answer && !l.Keep {
			p.set(func() { c.answer = l })
			return false
		}
	}
	if l == nil {
		return false
	}
	if l.Then != nil {
		l.Then()
	}
	return !l.Keep
}

// hold returns when a chunk may go on.
func (p *Proxy) hold(c *pair) {
	for {
		p.mu.Lock()
		held, delay, wake := (p.hole || c.forgotten) && !p.cut, p.delay, p.wake
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
