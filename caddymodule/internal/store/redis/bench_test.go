package redis

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
	parallel(b, n, func(i int) (err error) {
		made[i] = newLogin(userOf(fmt.Sprint("o", i)), maxPerUser(10))
		_, err = s.Login(context.Background(), made[i])
		return err
	})
	return made
}

// parallel calls f for each number below n, from 64 goroutines.
func parallel(b *testing.B, n int, f func(i int) error) {
	var next atomic.Int64
	_ = inParallel(64, func(int) error {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			if err := f(i); err != nil {
				b.Error(err)
			}
		}
		return nil
	})
}

func BenchmarkLookup(b *testing.B) {
	f := newFixture(b)
	made := fill(b, f, 20_000)
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint("hit/", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(max(1, n/2)) // times 2 processors
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					d := made[rand.IntN(len(made))].Digest
					if _, err := f.Lookup(b.Context(), d); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkLogin compares logins from 64 goroutines with as many bare writes of a
// session, pipelined over the same kind of connection.
func BenchmarkLogin(b *testing.B) {
	const n = 20_000
	f := fixtureAt(b, redistest.Start(b,
		redistest.With("appendonly yes"), redistest.With("appendfsync everysec")))
	fill(b, f, n)
	b.Run("store", func(b *testing.B) {
		b.ReportAllocs()
		parallel(b, b.N, func(int) error {
			l := newLogin(userOf(fmt.Sprint("o", rand.IntN(n))), maxPerUser(10))
			l.UsedUntil = l.Created.Add(store.MaxTouchInterval) // the default, without a note
			_, err := f.Login(b.Context(), l)
			return err
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
	})
	b.Run("bare", func(b *testing.B) {
		value := string(make([]byte, 101))
		b.ReportAllocs()
		parallel(b, b.N, func(int) error {
			l := newLogin(userOf("o"))
			set := f.c.B().Set().Key("bare:{" + hexOf(l.Digest[:]) + "}").Value(value)
			expires := l.Expires.UnixMilli()
			return f.c.Do(b.Context(), set.PxatMillisecondsTimestamp(expires).Build()).Error()
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sets/s")
	})
}

func BenchmarkSpend(b *testing.B) {
	f := newFixture(b)
	rate := store.Rate{Every: 1, Burst: 1000}
	b.ReportAllocs()
	parallel(b, b.N, func(i int) error {
		_, err := f.Spend(b.Context(), fmt.Sprint(i%1000), rate)
		return err
	})
}
