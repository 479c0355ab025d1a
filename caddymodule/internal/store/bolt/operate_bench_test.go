package bolt_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// BenchmarkOperator asks of 100,000 sessions what operators ask.
func BenchmarkOperator(b *testing.B) {
	const n = 100_000
	path := newPath(b)
	s := open(b, bolt.Config{Path: path})
	fill(b, s, n)
	ctx := context.Background()
	one := login(b, s, "o1", n+1, time.Hour)
	one.UnionID, one.Digest = "one", digest("one")
	if _, err := s.Login(ctx, one); err != nil {
		b.Fatal(err)
	}
	b.Run("Stats", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Stats(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ByUnionID", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ids, err := s.ByUnionID(ctx, "one"); err != nil || len(ids) != 1 {
				b.Fatal(ids, err)
			}
		}
	})
	b.Run("Backup", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(size(b, path))
		for b.Loop() {
			if _, err := s.Backup(ctx, io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Check", func(b *testing.B) {
		copied := newPath(b)
		restoreCopy(b, s, copied)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := bolt.Check(copied); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("LoginWhileIdle", func(b *testing.B) { benchLatency(b, s, n) })
	b.Run("LoginWhileBackup", func(b *testing.B) {
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				s.Backup(ctx, io.Discard)
			}
		})
		benchLatency(b, s, n)
		cancel()
		wg.Wait()
	})
}

func restoreCopy(b *testing.B, s *bolt.Store, path string) {
	r, w := io.Pipe()
	go func() {
		_, err := s.Backup(context.Background(), w)
		w.CloseWithError(err)
	}()
	if _, err := bolt.Restore(r, path); err != nil {
		b.Fatal(err)
	}
}

// benchLatency logs in from 64 goroutines and reports how long one waits.
func benchLatency(b *testing.B, s *bolt.Store, n int) {
	var mu sync.Mutex
	var all []time.Duration
	parallel(b, func(i int) {
		start := time.Now()
		login(b, s, fmt.Sprint("o", rand.IntN(n)), rand.Int(), time.Hour)
		d := time.Since(start)
		mu.Lock()
		all = append(all, d)
		mu.Unlock()
	})
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(all[len(all)-1].Microseconds()), "max-µs")
}
