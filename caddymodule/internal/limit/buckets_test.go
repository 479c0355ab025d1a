package limit_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
)

func TestBuckets_Empty_RefillAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[string](perMinute(3))
		for range 3 {
			for range 5 {
				if wait, ok := b.Peek("ada"); !ok || wait != 0 {
					t.Fatalf("Peek: %v, %v", wait, ok)
				}
			}
			if wait, ok := b.Take("ada"); !ok || wait != 0 {
				t.Fatalf("Take: %v, %v", wait, ok)
			}
		}
		for range 5 {
			if wait, ok := b.Peek("ada"); ok || wait != 20*time.Second {
				t.Fatalf("empty, Peek: %v, %v", wait, ok)
			}
			if wait, ok := b.Take("ada"); ok || wait != 20*time.Second {
				t.Fatalf("empty, Take: %v, %v", wait, ok)
			}
		}
		if _, ok := b.Take("bob"); !ok {
			t.Error("one key empties the bucket of another")
		}
		time.Sleep(20 * time.Second)
		if _, ok := b.Peek("ada"); !ok {
			t.Error("no refill, says Peek")
		}
		if _, ok := b.Take("ada"); !ok {
			t.Error("no refill, says Take")
		}
		if _, ok := b.Take("ada"); ok {
			t.Error("refilled above the rate")
		}
		time.Sleep(20*time.Second - 100*time.Millisecond)
		if wait, ok := b.Take("ada"); ok || wait != time.Second {
			t.Errorf("a wait of %v", wait)
		}
	})
}

// TestBuckets_SpentOnCredit_WaitIsLonger: threat 26, calls at the same time.
func TestBuckets_SpentOnCredit_WaitIsLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[string](perMinute(6))
		var wg sync.WaitGroup
		for range 9 {
			wg.Go(func() { b.Spend("ada") })
		}
		wg.Wait()
		if wait, ok := b.Peek("ada"); ok || wait != 40*time.Second {
			t.Errorf("with three on credit: %v, %v", wait, ok)
		}
		time.Sleep(40 * time.Second)
		if _, ok := b.Take("ada"); !ok {
			t.Error("refused after the wait")
		}
	})
}

func TestThreat26_Buckets_MillionKeys_MemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[int](perMinute(1))
		for i := range 1_000_000 {
			before := b.Len()
			if _, ok := b.Peek(i); !ok || b.Len() != before {
				t.Fatalf("%d, Peek: %v, %d buckets more", i, ok, b.Len()-before)
			}
			if _, ok := b.Take(i); !ok {
				t.Fatalf("%d: refused", i)
			}
			if i%(limit.MaxBuckets/2) == 0 {
				if _, ok := b.Take(0); ok {
					t.Fatalf("an active key is evicted after %d others", i)
				}
			}
		}
		if n := b.Len(); n > 2*limit.MaxBuckets {
			t.Errorf("%d buckets", n)
		}
	})
}
