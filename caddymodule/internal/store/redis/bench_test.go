package redis_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// fill logs each of n users in once.
func fill(b *testing.B, s store.Store, n int) []store.Login {
	b.Helper()
	made := make([]store.Login, n)
	parallel(n, func(i int) {
		made[i] = newLogin(userOf(fmt.Sprint("o", i)), maxPerUser(10))
		if _, err := s.Login(context.Background(), made[i]); err != nil {
			b.Error(err)
		}
	})
	return made
}

// parallel runs f for each number below n, from 64 goroutines.
func parallel(n int, f func(i int)) {
	var next atomic.Int64
	done := make(chan struct{})
	for range 64 {
		go func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
			done <- struct{}{}
		}()
	}
	for range 64 {
		<-done
	}
}

func BenchmarkLookup(b *testing.B) {
	srv := redistest.Start(b)
	s := mustOpen(b, config(srv.Addr))
	made := fill(b, s, 20_000)
	ctx := context.Background()
	for _, bb := range []struct {
		name        string
		parallelism int
	}{{"1", 0}, {"64", 32}} {
		b.Run("hit/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			if bb.parallelism == 0 {
				for b.Loop() {
					if _, err := s.Lookup(ctx, made[rand.IntN(len(made))].Digest); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.SetParallelism(bb.parallelism) // times 2 processors
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := s.Lookup(ctx, made[rand.IntN(len(made))].Digest); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkLogin compares logins from 64 goroutines with the same number of
// bare writes of a session, pipelined over the same kind of connection.
func BenchmarkLogin(b *testing.B) {
	const n = 20_000
	srv := redistest.Start(
		b,
		redistest.With("appendonly yes"),
		redistest.With("appendfsync everysec"),
	)
	cfg := config(srv.Addr)
	s, c := mustOpen(b, cfg), raw(b, srv.Addr)
	fill(b, s, n)
	ctx := context.Background()
	b.Run("store", func(b *testing.B) {
		b.ReportAllocs()
		parallel(b.N, func(int) {
			if _, err := s.Login(ctx, newLogin(userOf(fmt.Sprint("o", rand.IntN(n))), maxPerUser(10))); err != nil {
				b.Error(err)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
	})
	b.Run("bare", func(b *testing.B) {
		value := string(make([]byte, 101))
		b.ReportAllocs()
		parallel(b.N, func(int) {
			l := newLogin(userOf("o"))
			if err := c.Do(ctx, c.B().Set().Key("bare:{"+hexOf(l.Digest[:])+"}").Value(value).PxatMillisecondsTimestamp(l.Expires.UnixMilli()).Build()).Error(); err != nil {
				b.Error(err)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sets/s")
	})
}

func BenchmarkSpend(b *testing.B) {
	srv := redistest.Start(b)
	s := mustOpen(b, config(srv.Addr))
	b.ReportAllocs()
	parallel(b.N, func(i int) {
		if _, err := s.Spend(context.Background(), fmt.Sprint(i%1000), store.Rate{Every: 1, Burst: 1000}); err != nil {
			b.Error(err)
		}
	})
}
