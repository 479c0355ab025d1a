package redis_test

import (
	"bytes"
	"slices"
	"sync"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// lossy is a proxy that loses one chunk of requests, or the answer to it.
type lossy struct {
	*redistest.Proxy

	mu   sync.Mutex
	plan loss
	hit  bool
}

// loss is one loss.
type loss struct {
	words  []string // one of them is in the chunk; none: nothing gets lost
	nth    int      // of the chunks with such a word
	answer bool     // loses the answer, not the request
	outage bool     // and forwards nothing more, until disarm
	then   func()   // runs while the client does not know yet; may be nil
	keep   bool     // loses nothing: the request comes after then
}

func newLossy(t testing.TB, target string) *lossy {
	p := &lossy{Proxy: redistest.StartProxy(t, target)}
	p.LoseWhen(p.lossOf)
	return p
}

func (p *lossy) arm(l loss) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.hit = l, false
}

// disarm reports whether anything was lost.
func (p *lossy) disarm() bool {
	p.Restore()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = loss{}
	return p.hit
}

func (p *lossy) lossOf(request []byte) *redistest.Loss {
	p.mu.Lock()
	defer p.mu.Unlock()
	named := func(word string) bool { return bytes.Contains(request, []byte(word)) }
	if p.hit || !slices.ContainsFunc(p.plan.words, named) {
		return nil
	}
	if p.plan.nth > 0 {
		p.plan.nth--
		return nil
	}
	p.hit = true
	plan := p.plan
	return &redistest.Loss{Answer: plan.answer, Keep: plan.keep, Then: func() {
		if plan.then != nil {
			plan.then()
		}
		if plan.outage {
			p.Cut()
		}
	}}
}
