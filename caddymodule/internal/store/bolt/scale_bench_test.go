package bolt_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// The benchmarks of docs/design.md#numbers that depend on how many sessions are stored.
// They live here and not beside package session since the file is filled from
// within this package.
const (
	// scaleEnv lists the numbers of sessions to measure with, as in
	// 1000,1000000,10000000.
	scaleEnv = "WXGATE_SCALE"
	// scaleDirEnv names a directory in which filled files are kept for the next run.
	scaleDirEnv = "WXGATE_SCALE_DIR"

	scaleAppID = "wx0123456789abcdef"
	maxTokens  = 1_000_000 // sessions whose tokens are known, and which the cache can hold
)

// scales runs a benchmark for each size.
func scales(b *testing.B, f func(b *testing.B, p *population)) {
	text := os.Getenv(scaleEnv)
	if text == "" {
		text = "20000"
	}
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			b.Fatalf("%s=%q", scaleEnv, text)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) { f(b, populate(b, n)) })
	}
}

// population is a filled store that is closed, and the tokens of its first sessions.
type population struct {
	n      int
	path   string
	key    string
	tokens []string
}

// recorder is a store that takes logins down instead of making them durable.
type recorder struct {
	store.Store
	logins []store.Login
}

func (r *recorder) Health(context.Context) error { return nil }
func (r *recorder) Close() error                 { return nil }

func (r *recorder) Login(_ context.Context, l store.Login) (store.LoginResult, error) {
	r.logins = append(r.logins, l)
	return store.LoginResult{UnionID: l.UnionID}, nil
}

// wechat is WeChat as a function of the code, which is a number.
type wechat struct{}

func (wechat) Code2Session(
	_ context.Context, _ weixin.Credentials, code string,
) (weixin.Session, error) {
	return weixin.Session{
		OpenID:     fmt.Sprintf("o%027s", code),
		UnionID:    fmt.Sprintf("u%027s", code),
		SessionKey: fmt.Sprintf("%024s", code),
	}, nil
}

// service is package session over a store, with a cache of the default size or
// the one given.
func service(
	b *testing.B, s store.Store, key string, maxSessions int64, misses session.Counter,
) (*session.Service, *session.Core) {
	keys, err := keyring.Parse(key)
	must(b, err)
	core, err := session.NewCore(session.CoreConfig{
		Store: s, MaxSessions: maxSessions, Misses: misses,
	})
	must(b, err)
	return session.New(session.Config{
		Core:       core,
		WeChat:     wechat{},
		Apps:       []weixin.Credentials{{ID: scaleAppID, Secret: "secret"}},
		Keys:       keys,
		TTL:        48 * time.Hour,
		MaxPerUser: 10,
	}), core
}

func populate(b *testing.B, n int) *population {
	dir, kept := os.Getenv(scaleDirEnv), true
	if dir == "" {
		dir, kept = b.TempDir(), false
	}
	p := &population{n: n, path: filepath.Join(dir, fmt.Sprintf("sessions-%d.db", n))}
	list := p.path + ".tokens"
	if text, err := os.ReadFile(list); kept && err == nil {
		p.tokens = strings.Fields(string(text))
		p.key, p.tokens = p.tokens[0], p.tokens[1:]
		return p
	}
	start := time.Now()
	p.key = keyring.NewMasterKey()
	var r recorder
	svc, core := service(b, &r, p.key, 1, nil)
	for i := range min(n, maxTokens) {
		req := session.LoginRequest{AppID: scaleAppID, Code: fmt.Sprint(i)}
		l, err := svc.Login(context.Background(), req)
		must(b, err)
		p.tokens = append(p.tokens, l.Token)
	}
	core.Close()
	must(b, bolt.Fill(p.path, n, r.nth))
	if kept {
		must(b, os.WriteFile(list, []byte(p.key+"\n"+strings.Join(p.tokens, "\n")), 0o600))
	}
	b.Logf("%d sessions filled in in %v", n, time.Since(start).Round(time.Second))
	return p
}

// nth is the i-th login: one of those taken down, and then others like them.
func (r *recorder) nth(i int) store.Login {
	if i < len(r.logins) {
		return r.logins[i]
	}
	l := r.logins[0]
	l.User.OpenID, l.UnionID = fmt.Sprintf("o%027d", i), fmt.Sprintf("u%027d", i)
	l.Digest = digest("scale", i)
	later := time.Duration(i) * time.Millisecond
	l.Created, l.Expires = l.Created.Add(later), l.Expires.Add(later)
	return l
}

func (p *population) open(b *testing.B) *bolt.Store {
	b.Helper()
	s, err := bolt.Open(bolt.Config{Path: p.path})
	if err != nil || s.SetAside() != "" {
		b.Fatal(err, s.SetAside())
	}
	return s
}

// login is one of a user who is known. Its session outlives all others.
func (p *population) login() store.Login {
	i, now := rand.IntN(p.n), time.Now()
	return store.Login{
		User:       userOf(fmt.Sprintf("o%027d", i)),
		UnionID:    fmt.Sprintf("u%027d", i),
		Key:        store.SealedKey{Tag: [8]byte{1}, Box: make([]byte, 57)},
		Digest:     digest(rand.Uint64(), rand.Uint64()),
		Created:    now,
		Expires:    now.Add(72 * time.Hour),
		MaxPerUser: 10,
	}
}

// copy returns the path of a copy.
func (p *population) copy(b *testing.B) string {
	path := newPath(b)
	from, err := os.Open(p.path)
	must(b, err)
	defer from.Close()
	to, err := os.Create(path)
	must(b, err)
	_, err = io.Copy(to, from)
	must(b, errors.Join(err, to.Sync(), to.Close()))
	return path
}

type counter struct{ atomic.Int64 }

func (c *counter) Inc() { c.Add(1) }

// cacheAll checks the tokens until all are in the cache.
func cacheAll(b *testing.B, svc *session.Service, misses *counter, tokens []string) {
	for range 20 {
		before := misses.Load()
		for i, token := range tokens {
			if _, err := svc.Authenticate(context.Background(), token); err != nil {
				b.Fatal(err)
			}
			if i%4096 == 0 {
				time.Sleep(time.Millisecond) // or the cache would drop some
			}
		}
		if misses.Load() == before {
			return
		}
	}
	b.Fatal("the cache does not hold them all")
}

// The cost of a check of a thousand sessions in use, and of all whose token is
// known; from the cache, and from the store.
func BenchmarkScaleCheck(b *testing.B) {
	scales(b, func(b *testing.B, p *population) {
		for _, in := range []struct {
			name  string
			cache int64
		}{{"cached", maxTokens}, {"missed", 1}} {
			for _, use := range []int{1000, len(p.tokens)} {
				b.Run(fmt.Sprintf("%s/use=%d", in.name, use), func(b *testing.B) {
					s := p.open(b)
					var misses counter
					svc, core := service(b, s, p.key, in.cache, &misses)
					defer core.Close()
					tokens := slices.Clone(p.tokens)
					rand.Shuffle(len(tokens), func(i, j int) {
						tokens[i], tokens[j] = tokens[j], tokens[i]
					})
					tokens = tokens[:min(use, len(tokens))]
					if in.cache > 1 {
						cacheAll(b, svc, &misses, tokens)
					}
					for _, token := range tokens[:min(1000, len(tokens))] { // warm
						svc.Authenticate(context.Background(), token)
					}
					runtime.GC()
					before := misses.Load()
					b.ReportAllocs()
					i := 0
					for b.Loop() {
						token := tokens[i%len(tokens)]
						if _, err := svc.Authenticate(context.Background(), token); err != nil {
							b.Fatal(err)
						}
						i++
					}
					b.ReportMetric(float64(misses.Load()-before)/float64(b.N), "misses/op")
				})
			}
		}
	})
}

// The memory of a cache that holds all sessions whose token is known.
func BenchmarkScaleMemory(b *testing.B) {
	inUse := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	scales(b, func(b *testing.B, p *population) {
		for b.Loop() {
			s := p.open(b)
			var misses counter
			before := inUse()
			svc, core := service(b, s, p.key, maxTokens, &misses)
			empty := inUse() - before
			cacheAll(b, svc, &misses, p.tokens)
			full := inUse() - before
			b.ReportMetric(empty/1e6, "empty-MB")
			b.ReportMetric(full/1e6, "full-MB")
			b.ReportMetric((full-empty)/float64(len(p.tokens)), "B/session")
			core.Close()
		}
	})
}

// The time from opening the file to the first answered check, after a clean
// stop and after a kill, with the file in memory and not.
func BenchmarkScaleStart(b *testing.B) {
	scales(b, func(b *testing.B, p *population) {
		for _, name := range []string{"clean", "clean,uncached", "killed", "killed,uncached"} {
			b.Run(name, func(b *testing.B) {
				var opened time.Duration
				for b.Loop() {
					b.StopTimer()
					if strings.HasPrefix(name, "killed") {
						must(b, os.WriteFile(p.path+".dirty", nil, 0o600))
					}
					if strings.HasSuffix(name, "uncached") {
						// Tells the system to forget the file's pages.
						cmd := exec.Command("dd", "if="+p.path, "iflag=nocache", "count=0")
						if out, err := cmd.CombinedOutput(); err != nil {
							b.Fatalf("%v: %s", err, out)
						}
					}
					runtime.GC()
					b.StartTimer()
					start := time.Now()
					s := p.open(b)
					opened += time.Since(start)
					svc, core := service(b, s, p.key, maxTokens, nil)
					if _, err := svc.Authenticate(context.Background(), p.tokens[0]); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					core.Close()
					b.StartTimer()
				}
				b.ReportMetric(float64(opened.Milliseconds())/float64(b.N), "open-ms/op")
			})
		}
	})
}

// latencies calls f from 64 goroutines and reports how long one call waits.
func latencies(b *testing.B, f func(i int)) {
	var mu sync.Mutex
	var all []time.Duration
	parallel(b, func(i int) {
		start := time.Now()
		f(i)
		d := time.Since(start)
		mu.Lock()
		all = append(all, d)
		mu.Unlock()
	})
	report(b, all)
}

func report(b *testing.B, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(all[len(all)-1].Microseconds()), "max-µs")
}

// Durable logins of known users from 64 clients, beside a bare group commit of
// the same rows into the same file.
func BenchmarkScaleLogin(b *testing.B) {
	scales(b, func(b *testing.B, p *population) {
		b.Run("store", func(b *testing.B) {
			s := open(b, bolt.Config{Path: p.copy(b)})
			b.ReportAllocs()
			latencies(b, func(int) {
				if _, err := s.Login(context.Background(), p.login()); err != nil {
					b.Error(err)
				}
			})
		})
		b.Run("bare", func(b *testing.B) {
			db := openBare(b, p.copy(b))
			g := newBare(b, db)
			defer g.close()
			b.ReportAllocs()
			latencies(b, func(int) {
				l := p.login()
				h, u := l.User.Hash(), store.User{}
				u.Admit(l)
				value, _ := u.AppendBinary(nil)
				exp := binary.BigEndian.AppendUint64(nil, uint64(l.Expires.UnixMilli())^1<<63)
				row := &bareLogin{
					user:    h[:],
					session: l.Digest[:],
					expiry:  append(exp, l.Digest[:]...),
					value:   value,
					done:    make(chan error, 1),
				}
				g.queue <- row
				if err := <-row.done; err != nil {
					b.Error(err)
				}
			})
		})
	})
}

// Logins from 64 clients into a store in which every session has expired, until
// all are gone.
func BenchmarkScaleSweep(b *testing.B) {
	scales(b, func(b *testing.B, p *population) {
		var all []time.Duration
		for b.Loop() {
			b.StopTimer()
			path := newPath(b)
			past := time.Now().Add(-30 * 24 * time.Hour)
			err := bolt.Fill(path, p.n, func(i int) store.Login {
				l := store.Login{
					User:    userOf(fmt.Sprintf("o%027d", i)),
					UnionID: fmt.Sprintf("u%027d", i),
					Digest:  digest("scale", i),
					Key:     store.SealedKey{Tag: [8]byte{1}, Box: make([]byte, 57)},
				}
				l.Created = past.Add(time.Duration(i) * time.Millisecond)
				l.Expires = l.Created.Add(time.Hour)
				return l
			})
			must(b, err)
			b.StartTimer()
			s := open(b, bolt.Config{Path: path})
			// A login takes the expired session of its user away, too: one alone tells
			// nothing.
			first, next := digest("scale", 0), max(0, p.n-20)
			var mu sync.Mutex
			var wg sync.WaitGroup
			done := make(chan struct{})
			for range 64 {
				wg.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						if _, err := s.Lookup(context.Background(), first); err == nil {
							time.Sleep(time.Millisecond) // it has not begun
							continue
						}
						start := time.Now()
						if _, err := s.Login(context.Background(), p.login()); err != nil {
							b.Error(err)
							return
						}
						d := time.Since(start)
						mu.Lock()
						all = append(all, d)
						mu.Unlock()
					}
				})
			}
			for next < p.n {
				_, err := s.Lookup(context.Background(), digest("scale", next))
				if errors.Is(err, store.ErrNotFound) {
					next++
				} else {
					time.Sleep(10 * time.Millisecond)
				}
			}
			close(done)
			wg.Wait()
			if st, err := s.Stats(context.Background()); err != nil ||
				st.Sessions > int64(len(all)) {
				b.Fatalf("%d sessions are left after %d logins, %v", st.Sessions, len(all), err)
			}
			s.Close()
		}
		report(b, all)
		b.ReportMetric(float64(p.n)*float64(b.N)/b.Elapsed().Seconds(), "swept/s")
		b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "logins/s")
	})
}

// What operators do to a store, and its size.
func BenchmarkScaleOperate(b *testing.B) {
	scales(b, func(b *testing.B, p *population) {
		b.Run("Check", func(b *testing.B) {
			for b.Loop() {
				r, err := bolt.Check(p.path)
				if err != nil || r.Damaged != 0 || r.Stats.Sessions < int64(p.n) {
					b.Fatal(r, err)
				}
				b.ReportMetric(float64(r.Stats.Bytes)/float64(r.Stats.Sessions), "B/session")
			}
		})
		b.Run("Backup", func(b *testing.B) {
			s := p.open(b)
			defer s.Close()
			b.SetBytes(size(b, p.path))
			for b.Loop() {
				if _, err := s.Backup(context.Background(), io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("Stats", func(b *testing.B) {
			s := p.open(b)
			defer s.Close()
			for b.Loop() {
				if _, err := s.Stats(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
