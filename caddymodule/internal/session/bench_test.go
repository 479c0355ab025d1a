package session_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
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

func boltGate(b *testing.B) *gate {
	s, err := bolt.Open(bolt.Config{Path: filepath.Join(b.TempDir(), "sessions.db")})
	if err != nil {
		b.Fatal(err)
	}
	return newGate(b, func(cc *session.CoreConfig, c *session.Config) { cc.Store, c.Replay = s, 0 })
}

func BenchmarkMissOnBolt(b *testing.B) {
	g := boltGate(b)
	g.core.SetEntries(forgetful{})
	tokens := make([]string, 1<<10)
	var wg sync.WaitGroup
	for i := range tokens {
		wg.Go(func() { tokens[i] = g.login(fmt.Sprintf("o%027d/u%027d", i, i)).Token })
	}
	wg.Wait()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := g.Authenticate(context.Background(), tokens[i&(len(tokens)-1)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func benchmarkRefused(b *testing.B, g *gate, tokens []string, want error) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		_, err := g.Authenticate(context.Background(), tokens[i%len(tokens)])
		if !errors.Is(err, want) {
			b.Fatal(err)
		}
		i++
	}
}

func mint(keys *keyring.Ring, n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = keys.Mint(nobody)
	}
	return tokens
}

// BenchmarkForged: tokens of the right shape that bear the id of our key.
func BenchmarkForged(b *testing.B) {
	g := boltGate(b)
	tokens := mint(g.keys, 1<<10)
	for i, token := range tokens {
		last := "A"
		if token[44] == 'A' {
			last = "B"
		}
		tokens[i] = token[:44] + last
	}
	benchmarkRefused(b, g, tokens, session.ErrForged)
}

func BenchmarkUnknownOnBolt(b *testing.B) {
	g := boltGate(b)
	g.login("alice")
	benchmarkRefused(b, g, mint(g.keys, 1<<10), session.ErrUnknown)
}

func BenchmarkMalformed(b *testing.B) {
	tokens := []string{"", "wxs_", "eyJhbGciOiJIUzI1NiJ9.e30.abcdefghijklmnopqrst"}
	benchmarkRefused(b, newGate(b), tokens, session.ErrMalformed)
}

func BenchmarkLoginOnBolt(b *testing.B) {
	g := boltGate(b)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			n := codes.Add(1)
			req := request(fmt.Sprintf("o%d#%d", n%5000, n), phone)
			if _, err := g.Login(context.Background(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkRevokeUser measures a revocation beside the store, with shards that
// overflow now and then.
func BenchmarkRevokeUser(b *testing.B) {
	g := newGate(b)
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		id := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, i))
		who := store.UserID{AppID: appA, OpenID: string(id[:8])}
		_ = g.RevokeUser(context.Background(), who, endRevoked)
		i++
	}
}
