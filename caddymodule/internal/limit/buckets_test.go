package limit_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
)

// TestBucketsRefill: each key has its own, Look takes nothing, and whoever waits as long as told is let in.
func TestBucketsRefill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[string](perMinute(3))
		for range 3 {
			for range 5 {
				if wait, ok := b.Look("ada"); !ok || wait != 0 {
					t.Fatalf("looked at: %v, %v", wait, ok)
				}
			}
			if wait, ok := b.Take("ada"); !ok || wait != 0 {
				t.Fatalf("taken: %v, %v", wait, ok)
			}
		}
		for range 5 {
			if wait, ok := b.Look("ada"); ok || wait != 20*time.Second {
				t.Fatalf("empty, looked at: %v, %v", wait, ok)
			}
			if wait, ok := b.Take("ada"); ok || wait != 20*time.Second {
				t.Fatalf("empty, taken: %v, %v", wait, ok)
			}
		}
		if _, ok := b.Take("bob"); !ok {
			t.Error("one key empties the bucket of another")
		}
		time.Sleep(20 * time.Second)
		if _, ok := b.Look("ada"); !ok {
			t.Error("nothing came in, by Look")
		}
		if _, ok := b.Take("ada"); !ok {
			t.Error("nothing came in, by Take")
		}
		if _, ok := b.Take("ada"); ok {
			t.Error("more came in than the rate gives")
		}
		time.Sleep(20*time.Second - 100*time.Millisecond)
		if wait, ok := b.Take("ada"); ok || wait != time.Second {
			t.Errorf("a wait of %v", wait)
		}
	})
}

// TestBucketsSpend: what was spent on credit has to come in first.
func TestBucketsSpend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[string](perMinute(6))
		var wg sync.WaitGroup
		for range 9 {
			wg.Go(func() { b.Spend("ada") })
		}
		wg.Wait()
		if wait, ok := b.Look("ada"); ok || wait != 40*time.Second {
			t.Errorf("three are owed: %v, %v", wait, ok)
		}
		time.Sleep(40 * time.Second)
		if _, ok := b.Take("ada"); !ok {
			t.Error("not let in once the debt is paid")
		}
	})
}

// TestBucketsMemory: a million keys have no more than two generations of buckets, and looking makes none.
func TestBucketsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[int](perMinute(1))
		for i := range 1_000_000 {
			before := b.Len()
			if _, ok := b.Look(i); !ok || b.Len() != before {
				t.Fatalf("%d, looked at: %v, %d buckets more", i, ok, b.Len()-before)
			}
			if _, ok := b.Take(i); !ok {
				t.Fatalf("%d is refused", i)
			}
			if i%(limit.MaxBuckets/2) == 0 {
				if _, ok := b.Take(0); ok {
					t.Fatalf("whoever keeps coming is forgotten after %d others", i)
				}
			}
		}
		if n := b.Len(); n > 2*limit.MaxBuckets {
			t.Errorf("%d buckets", n)
		}
	})
}
