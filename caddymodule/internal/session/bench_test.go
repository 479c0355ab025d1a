package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

// cachedTokens fills the cache with n sessions and returns their tokens.
func cachedTokens(b *testing.B, g *gate, n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = g.login(fmt.Sprintf("o%027d/u%027d", i, i)).Token
		g.accept(tokens[i])
		if i%1024 == 0 {
			g.settle()
		}
	}
	g.settle()
	rand.Shuffle(n, func(i, j int) { tokens[i], tokens[j] = tokens[j], tokens[i] })
	if n := g.asks(func() {
		for _, token := range tokens {
			g.accept(token)
		}
	}); n != 0 {
		b.Fatalf("%d of %d sessions are not in the cache", n, len(tokens))
	}
	return tokens
}

// beating is a shared store that answers Heard as one with a server does, from
// the word that its last heartbeat left.
type beating struct {
	*memstore.Shared
	base time.Time
	beat atomic.Int64 // since base
}

func (s *beating) Heard() time.Time { return s.base.Add(time.Duration(s.beat.Load())) }

func BenchmarkP8_CachedCheck(b *testing.B) {
	benchmarkCached(b, func() *gate {
		return newGate(b, func(cc *session.CoreConfig, c *session.Config) {
			cc.MaxSessions, c.Replay = 1<<19, 0
		})
	})
}

// BenchmarkP8_CachedCheckShared is the same in front of a store that gates
// share.
func BenchmarkP8_CachedCheckShared(b *testing.B) {
	benchmarkCached(b, func() *gate {
		s := &beating{Shared: memstore.NewShared(memstore.NewData()), base: time.Now()}
		g := newGate(b, func(cc *session.CoreConfig, c *session.Config) {
			cc.Store, cc.MaxSessions, c.Replay, c.MaxStaleness = s, 1<<19, 0, time.Hour
		})
		g.store = s.Store
		return g
	})
}

func benchmarkCached(b *testing.B, newGate func() *gate) {
	for _, n := range []int{1 << 10, 1 << 18} {
		g := newGate()
		tokens := cachedTokens(b, g, n)
		ctx := context.Background()
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := g.Authenticate(ctx, tokens[i&(n-1)]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
		b.Run(fmt.Sprintf("tokens=%d/parallel", n), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for i := rand.IntN(n); p.Next(); i++ {
					if _, err := g.Authenticate(ctx, tokens[i&(n-1)]); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
