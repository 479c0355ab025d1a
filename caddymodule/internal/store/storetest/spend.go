package storetest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func testSpend(t *testing.T, p *pair) {
	r := store.Rate{Every: time.Hour, Burst: 4}
	for _, key := range []string{"", "k", "K", "k\x00"} {
		for i := range 6 {
			g := p.a
			if i%2 == 1 {
				g = p.b
			}
			wait, err := g.Spend(t.Context(), key, r)
			g.must(err)
			if i < r.Burst && wait != 0 || i >= r.Burst && (wait <= 0 || wait > r.Every) {
				t.Errorf("key %q, %d spent of %d: wait %v", key, i, r.Burst, wait)
			}
		}
	}
	// A smaller bucket is never more than empty: what was spent of the larger one does not count against it for longer.
	r = store.Rate{Every: time.Minute, Burst: 1}
	wait, err := p.a.Spend(t.Context(), "k", r)
	p.a.must(err)
	if wait <= 0 || wait > r.Every {
		t.Errorf("after a change of the rate: wait %v", wait)
	}
}

func testSpendParallel(t *testing.T, p *pair) {
	const burst = 20
	var spent atomic.Int64
	var wg sync.WaitGroup
	for i := range workers {
		g := p.a
		if i%2 == 1 {
			g = p.b
		}
		wg.Go(func() {
			wait, err := g.Spend(t.Context(), "k", store.Rate{Every: time.Hour, Burst: burst})
			if err != nil {
				t.Error(err)
			}
			if wait == 0 {
				spent.Add(1)
			}
		})
	}
	wg.Wait()
	if spent.Load() != burst {
		t.Errorf("%d spent of a bucket of %d", spent.Load(), burst)
	}
}

// testSpendRefill: an empty bucket has one again after the time that it gave.
func testSpendRefill(t *testing.T, p *pair) {
	r := store.Rate{Every: 5 * time.Millisecond, Burst: 2}
	for range 20 {
		wait, err := p.a.Spend(t.Context(), "k", r)
		p.a.must(err)
		if wait > r.Every {
			t.Errorf("wait %v, but there is one each %v", wait, r.Every)
		}
		if wait == 0 {
			continue
		}
		<-time.After(wait)
		wait, err = p.b.Spend(t.Context(), "k", r)
		p.b.must(err)
		if wait != 0 {
			t.Errorf("after the time that was given: wait another %v", wait)
		}
	}
}
