package limit_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
)

func TestBuckets_Empty_RefillAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[string](perMinute(3))
		for range 3 {
			if wait, ok := b.Take("ada"); !ok || wait != 0 {
				t.Fatalf("Take: %v, %v", wait, ok)
			}
		}
		for range 5 {
			if wait, ok := b.Take("ada"); ok || wait != 20*time.Second {
				t.Fatalf("empty, Take: %v, %v", wait, ok)
			}
		}
		if _, ok := b.Take("bob"); !ok {
			t.Error("one key empties the bucket of another")
		}
		time.Sleep(20 * time.Second)
		if _, ok := b.Take("ada"); !ok {
			t.Error("no refill")
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

func TestThreat41_Give_ReturnsWhatTakeTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[string](perMinute(3))
		taken := func() (n int) {
			for range 10 {
				if _, ok := b.Take("ada"); ok {
					n++
				}
			}
			return n
		}
		for range 20 { // a success costs nothing
			if _, ok := b.Take("ada"); !ok {
				t.Fatal("refused")
			}
			b.Give("ada")
		}
		if n := taken(); n != 3 {
			t.Errorf("%d taken of a full bucket", n)
		}
		b.Give("ada")
		if n := taken(); n != 1 {
			t.Errorf("%d taken after one was given back", n)
		}
		time.Sleep(time.Hour)
		for range 5 {
			b.Give("ada")
		}
		if n := taken(); n != 3 {
			t.Errorf("%d taken of a bucket that was given too much", n)
		}
	})
}

// TestThreat41_TakenAtOnce_NoMoreThanTheRate: there is no look before the take.
func TestThreat41_TakenAtOnce_NoMoreThanTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[string](perMinute(6))
		var in atomic.Int32
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, ok := b.Take("ada"); ok {
					in.Add(1)
				}
			})
		}
		wg.Wait()
		if n := in.Load(); n != 6 {
			t.Errorf("%d taken at once, want 6", n)
		}
	})
}

func TestThreat26_Buckets_MillionKeys_MemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it counts to a million")
	}
	synctest.Test(t, func(t *testing.T) {
		b := limit.NewBuckets[int](perMinute(1))
		for i := range 1_000_000 {
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
