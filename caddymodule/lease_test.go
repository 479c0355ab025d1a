package caddymodule

import (
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// TestThreat32_LeaseModel runs any order of enter, leave and close against what they promise.
func TestThreat32_LeaseModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			open     int
			closed   bool
			released int
		)
		l := lease{release: func() { released++ }}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				want := !closed || open > 0
				if got := l.enter(); got != want {
					t.Fatalf("enter: %v with %d uses, closed %v", got, open, closed)
				} else if got {
					open++
				}
			},
			"leave": func(t *rapid.T) {
				if open == 0 {
					t.Skip("nobody is in")
				}
				open--
				l.leave()
			},
			"close": func(*rapid.T) {
				closed = true
				l.close()
			},
			"": func(t *rapid.T) {
				want := 0
				if closed && open == 0 {
					want = 1
				}
				if released != want {
					t.Fatalf("released %d times with %d uses, closed %v", released, open, closed)
				}
			},
		})
	})
}

// TestThreat32_LeaseConcurrent does the same from several goroutines: never released while somebody is in, released once when all are out, and nobody gets in afterwards.
func TestThreat32_LeaseConcurrent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		uses := rapid.SliceOfN(rapid.IntRange(0, 20), 1, 6).Draw(t, "uses of each goroutine")
		depth := rapid.IntRange(1, 3).Draw(t, "uses at a time")
		closeAfter := rapid.IntRange(0, 40).Draw(t, "uses before close")

		var inside, released, entered atomic.Int64
		l := lease{release: func() {
			if n := inside.Load(); n != 0 {
				t.Errorf("released with %d inside", n)
			}
			released.Add(1)
		}}
		var wg sync.WaitGroup
		for _, n := range uses {
			wg.Go(func() {
				for range n {
					in := 0
					for range depth {
						if !l.enter() {
							break
						}
						inside.Add(1)
						in++
						if released.Load() != 0 {
							t.Error("in after release")
						}
						if entered.Add(1) == int64(closeAfter) {
							l.close()
						}
					}
					for range in {
						inside.Add(-1)
						l.leave()
					}
				}
			})
		}
		wg.Wait()
		l.close()
		if got := released.Load(); got != 1 {
			t.Errorf("released %d times", got)
		}
		if l.enter() {
			t.Error("let in after release")
		}
	})
}
