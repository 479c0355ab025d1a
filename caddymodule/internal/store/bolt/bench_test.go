package bolt_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// fill logs each of n users in once, from many goroutines so that it is quick.
func fill(t testing.TB, s store.Store, n int) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				login(t, s, fmt.Sprint("o", i), i, time.Hour)
			}
		})
	}
	wg.Wait()
}

func checkFilled(t testing.TB, s store.Store, n int) {
	t.Helper()
	for i := 1; i <= n; i++ {
		if _, err := s.Lookup(context.Background(), digest(fmt.Sprint("o", i), i)); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	const n = 100_000
	s := open(b, bolt.Config{Path: newPath(b)})
	fill(b, s, n)
	all := make([]store.Digest, n)
	for i := range all {
		all[i] = digest(fmt.Sprint("o", i+1), i+1)
	}
	ctx := context.Background()
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Lookup(ctx, all[rand.IntN(n)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("unknown", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Lookup(ctx, store.Digest{1, byte(rand.Uint32())}); err == nil {
					b.Fatal("found")
				}
			}
		})
	})
}

// Durable logins from 64 goroutines, beside a bare group commit of the same
// rows (docs/design.md#numbers: at least 0.7 of it).
func BenchmarkLogin(b *testing.B) {
	const n = 20_000
	b.Run("store", func(b *testing.B) {
		s := open(b, bolt.Config{Path: newPath(b)})
		fill(b, s, n)
		b.ReportAllocs()
		parallel(b, func(i int) {
			login(b, s, fmt.Sprint("o", rand.IntN(n)), n+i, time.Hour)
		})
	})
	b.Run("bare", func(b *testing.B) {
		db := openBare(b, newPath(b))
		g := newBare(b, db)
		defer g.close()
		var wg sync.WaitGroup
		for w := range 256 {
			wg.Go(func() {
				for i := w; i < n; i += 256 {
					g.put(fmt.Sprint("o", i), i)
				}
			})
		}
		wg.Wait()
		b.ReportAllocs()
		parallel(b, func(i int) { g.put(fmt.Sprint("o", rand.IntN(n)), n+i) })
	})
}

func parallel(b *testing.B, f func(i int)) {
	var next atomic.Int64
	b.SetParallelism(32) // times 2 processors
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			f(int(next.Add(1)))
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
}

// openBare opens a file with the settings of the store.
func openBare(b *testing.B, path string) *bbolt.DB {
	b.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 1 << 30,
		NoStatistics:    true,
	})
	must(b, err)
	return db
}

// bare is the least that writes a login's three rows durably: a queue, a
// transaction, an fsync.
type bare struct {
	queue chan *bareLogin
	ended chan struct{}
	db    *bbolt.DB
}

type bareLogin struct {
	user, session, expiry []byte
	value                 []byte
	done                  chan error
}

func newBare(b *testing.B, db *bbolt.DB) *bare {
	g := &bare{queue: make(chan *bareLogin, 1024), ended: make(chan struct{}), db: db}
	names := [][]byte{[]byte("user"), []byte("sess"), []byte("exp")}
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, n := range names {
			if _, err := tx.CreateBucketIfNotExists(n); err != nil {
				return err
			}
		}
		return nil
	})
	must(b, err)
	go func() {
		defer close(g.ended)
		for first := range g.queue {
			batch := []*bareLogin{first}
			for more := true; more && len(batch) < 512; {
				select {
				case l := <-g.queue:
					batch = append(batch, l)
				default:
					more = false
				}
			}
			err := db.Update(func(tx *bbolt.Tx) error {
				user, sess, exp := tx.Bucket(names[0]), tx.Bucket(names[1]), tx.Bucket(names[2])
				for _, l := range batch {
					if err := user.Put(l.user, l.value); err != nil {
						return err
					}
					if err := sess.Put(l.session, l.value[:101]); err != nil {
						return err
					}
					if err := exp.Put(l.expiry, nil); err != nil {
						return err
					}
				}
				return nil
			})
			for _, l := range batch {
				l.done <- err
			}
		}
	}()
	return g
}

func (g *bare) put(openID string, n int) {
	u, s := digest(openID), digest(openID, n)
	exp := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
	l := &bareLogin{
		user:    u[:16],
		session: s[:],
		expiry:  append(exp, s[:]...),
		value:   make([]byte, 230),
		done:    make(chan error, 1),
	}
	g.queue <- l
	if err := <-l.done; err != nil {
		panic(err)
	}
}

func (g *bare) close() {
	close(g.queue)
	<-g.ended
	g.db.Close()
}
