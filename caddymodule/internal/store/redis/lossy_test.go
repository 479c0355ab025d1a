package redis_test

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// lossy forwards connections, and ends the one on which the nth chunk of requests comes that contains one of words: before the server sees it, or before the client sees the answer.
type lossy struct {
	addr string
	ln   net.Listener
	wg   sync.WaitGroup

	mu    sync.Mutex
	plan  loss
	hit   bool
	conns []net.Conn
}

// loss is what is to be lost.
type loss struct {
	words  []string // none: nothing
	nth    int
	answer bool   // the answer, not the request
	outage bool   // and all else, until disarm
	then   func() // is called while the client does not know yet; may be nil
	keep   bool   // nothing is lost: the request comes after then
}

func newLossy(t testing.TB, target string) *lossy {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &lossy{addr: ln.Addr().String(), ln: ln}
	p.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			if out, err := net.Dial("tcp", target); err != nil || !p.forward(in, out) {
				in.Close()
			}
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.closeAll()
		p.wg.Wait()
	})
	return p
}

func (p *lossy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *lossy) arm(l loss) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.hit = l, false
}

// disarm returns whether anything was lost.
func (p *lossy) disarm() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = loss{}
	return p.hit
}

// out reports whether nothing is forwarded.
func (p *lossy) out() bool { return p.hit && p.plan.outage }

// look returns what is to be lost of a chunk of requests, if anything.
func (p *lossy) look(chunk []byte) (loss, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hit || !slices.ContainsFunc(p.plan.words, func(w string) bool { return bytes.Contains(chunk, []byte(w)) }) {
		return loss{}, p.out()
	}
	if p.plan.nth > 0 {
		p.plan.nth--
		return loss{}, false
	}
	p.hit = true
	return p.plan, true
}

// forward copies both ways until one of them ends. It reports false when nothing is forwarded.
func (p *lossy) forward(in, out net.Conn) bool {
	end := func() { in.Close(); out.Close() }
	p.mu.Lock()
	p.conns = append(p.conns, in, out)
	refused := p.out()
	p.mu.Unlock()
	if refused {
		end()
		return false
	}
	var lost atomic.Pointer[loss]
	lose := func(l *loss) {
		if l.then != nil {
			l.then()
		}
		end()
		if l.outage {
			p.closeAll()
		}
	}
	p.wg.Go(func() {
		defer end()
		buf := make([]byte, 1<<16)
		for {
			n, err := in.Read(buf)
			if err != nil {
				return
			}
			l, now := p.look(buf[:n])
			switch {
			case now && l.keep:
				l.then()
			case now && l.answer:
				lost.Store(&l)
			case now:
				lose(&l)
				return
			}
			if _, err := out.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	p.wg.Go(func() {
		defer end()
		buf := make([]byte, 1<<16)
		for {
			n, err := out.Read(buf)
			if l := lost.Load(); l != nil {
				lose(l)
				return
			}
			if err != nil {
				return
			}
			if _, err := in.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	return true
}
