package redis

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// revocation is a change that another gate has made: when the engine has made
// it and when that gate was told so.
type revocation struct{ made, acknowledged time.Time }

// witness checks what Heard promises while another gate revokes without pause:
// of each change that was acknowledged before the time that Heard returns there
// has been a report, or one of everything which came after the change.
type witness struct {
	t         *testing.T
	revoking  *gate
	listening *gate
	stop      context.CancelFunc
	wg        sync.WaitGroup

	mu       sync.Mutex
	made     []revocation
	reported map[int]bool
	all      time.Time // when everything was reported last
	pending  []int     // not yet known to be reported
	broken   map[int]string
	promised int // how often Heard was seen to move on
	longest  time.Duration
}

// watchOver makes revoking revoke, and holds listening to its promise, until
// the test ends.
func watchOver(t *testing.T, revoking, listening *gate) *witness {
	t.Helper()
	revoking.awaitUp(t)
	listening.awaitUp(t)
	ctx, stop := context.WithCancel(t.Context())
	w := &witness{
		t:         t,
		revoking:  revoking,
		listening: listening,
		stop:      stop,
		reported:  make(map[int]bool),
		broken:    make(map[int]string),
	}
	w.wg.Go(func() { w.revoke(ctx) })
	w.wg.Go(func() { w.check(ctx) })
	t.Cleanup(w.end)
	w.heals()
	return w
}

func (w *witness) end() {
	w.stop()
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for n, text := range w.broken {
		if w.kept(n) {
			w.t.Error(text)
		} else {
			w.t.Log("lost by the engine:", text)
		}
	}
	w.t.Logf(
		"%d revocations, %d heartbeats, longest time between two: %v",
		len(w.made),
		w.promised,
		w.longest,
	)
}

// revoke writes invalidations, each of another session, and notes when the
// engine says to have done so.
func (w *witness) revoke(ctx context.Context) {
	for n := 0; ctx.Err() == nil; {
		r, err := w.one(ctx, n)
		if err != nil {
			time.Sleep(time.Millisecond) // perhaps it was made, but nobody was told
			continue
		}
		w.mu.Lock()
		w.made = append(w.made, r)
		w.pending = append(w.pending, n)
		w.mu.Unlock()
		n++
		time.Sleep(500 * time.Microsecond)
	}
}

// one makes one revocation. The script tells the engine's time, which is that
// of this machine.
func (w *witness) one(ctx context.Context, n int) (revocation, error) {
	c, err := w.revoking.client()
	if err != nil {
		return revocation{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	const script = `redis.call('SET', KEYS[1], '', 'PX', 5000) redis.call('SET', KEYS[2], '') return redis.call('TIME')`
	now, err := c.Do(ctx, c.B().Eval().Script(script).Numkeys(2).Key(w.key("i:s:", n), w.key("kept:", n)).Build()).
		AsStrSlice()
	if err != nil {
		return revocation{}, err
	}
	acknowledged := time.Now()
	s, err1 := strconv.ParseInt(now[0], 10, 64)
	us, err2 := strconv.ParseInt(now[1], 10, 64)
	if err1 != nil || err2 != nil {
		return revocation{}, fmt.Errorf("%v", now)
	}
	return revocation{made: time.Unix(s, us*1000), acknowledged: acknowledged}, nil
}

func (w *witness) key(kind string, n int) string {
	d := digestOf(n)
	return w.revoking.cfg.Prefix + kind + "{" + hex.EncodeToString(d[:]) + "}"
}

// kept reports whether the engine still has what went with a revocation.
// Replication is asynchronous: what a primary has acknowledged after another
// one was promoted is undone, and then there is nothing that a gate could have
// heard of.
func (w *witness) kept(n int) bool {
	c, err := w.revoking.client()
	if err != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := c.Do(ctx, c.B().Exists().Key(w.key("kept:", n)).Build()).AsInt64()
	return err != nil || found > 0
}

func digestOf(n int) (d store.Digest) {
	binary.BigEndian.PutUint64(d[:], uint64(n))
	return d
}

// check looks at Heard again and again.
func (w *witness) check(ctx context.Context) {
	var last time.Time
	for ctx.Err() == nil {
		heard := w.listening.heard() // before what has been reported is looked at
		if heard != last {
			w.hold(heard)
			if !last.IsZero() {
				w.longest = max(w.longest, heard.Sub(last))
			}
			if heard.Before(last) {
				w.t.Errorf("Heard went back from %v to %v", last, heard)
			}
			last = heard
			w.mu.Lock()
			w.promised++
			w.mu.Unlock()
		}
		time.Sleep(time.Millisecond)
	}
}

// hold fails the test when a revocation that was acknowledged before heard has
// not been reported.
func (w *witness) hold(heard time.Time) {
	w.listening.mu.Lock()
	changes := slices.Clone(w.listening.changes)
	w.listening.changes = w.listening.changes[:0]
	w.listening.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		switch c.What {
		case store.SessionChanged:
			w.reported[int(binary.BigEndian.Uint64(c.Digest[:]))] = true
		case store.AllChanged, store.ContactMade:
			w.all = c.at
		}
	}
	w.pending = slices.DeleteFunc(w.pending, func(n int) bool {
		r := w.made[n]
		if w.reported[n] || r.made.Before(w.all) {
			return true
		}
		if r.acknowledged.Before(heard) {
			w.broken[n] = fmt.Sprintf(
				"revocation %d, made at %v and acknowledged at %v, is not reported, but Heard returns %v",
				n,
				r.made,
				r.acknowledged,
				heard,
			)
			return true
		}
		return false
	})
}

// heals waits until the listening gate hears again, and of something.
func (w *witness) heals() {
	w.t.Helper()
	w.listening.awaitUp(w.t)
	count := func() (int, int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.made), w.promised
	}
	made, promised := count()
	await(w.t, "there are further revocations and heartbeats", func() bool {
		m, p := count()
		return m > made+50 && p > promised+2
	})
}

// stalls waits until Heard has not moved on for d.
func (w *witness) stalls(d time.Duration) {
	w.t.Helper()
	await(w.t, "Heard stands still", func() bool { return time.Since(w.listening.heard()) > d })
}

// killTrackers ends the connections that invalidations come by.
func killTrackers(t *testing.T, s *redistest.Server) {
	t.Helper()
	m := s.Do("CLIENT", "LIST")
	list, err := m.ToString()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(list) {
		if _, flags, ok := strings.Cut(line, " flags="); ok &&
			strings.Contains(strings.SplitN(flags, " ", 2)[0], "t") {
			id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
			s.Try("CLIENT", "KILL", "ID", id)
		}
	}
}

// What happens to the connection of the gate that listens; the other one goes
// on revoking where it can.
func TestP3_NothingIsMissedWhateverHappens(t *testing.T) {
	t.Parallel()
	for name, happens := range map[string]func(*witness, *redistest.Server, *redistest.Proxy){
		"nothing": func(_ *witness, _ *redistest.Server, _ *redistest.Proxy) { time.Sleep(time.Second) },
		"the connection is ended": func(w *witness, s *redistest.Server, _ *redistest.Proxy) {
			for range 10 {
				killTrackers(w.t, s)
				w.heals()
			}
		},
		"all connections are ended": func(w *witness, s *redistest.Server, _ *redistest.Proxy) {
			for range 10 {
				s.Do("CLIENT", "KILL", "TYPE", "normal")
				w.heals()
			}
		},
		"a cut": func(w *witness, _ *redistest.Server, p *redistest.Proxy) {
			p.Cut()
			w.stalls(time.Second)
			p.Restore()
		},
		"a black hole that gives all back": func(w *witness, _ *redistest.Server, p *redistest.Proxy) {
			p.Blackhole()
			w.stalls(defaultPace.overdue + defaultPace.interval)
			p.Restore()
		},
		"a long black hole": func(w *witness, _ *redistest.Server, p *redistest.Proxy) {
			p.Blackhole()
			w.stalls(defaultPace.hopeless + time.Second)
			p.Restore()
		},
		"a connection that is forgotten": func(w *witness, _ *redistest.Server, p *redistest.Proxy) {
			p.Forget()
			w.stalls(defaultPace.overdue)
		},
		"a slow network": func(w *witness, _ *redistest.Server, p *redistest.Proxy) {
			p.Delay(50 * time.Millisecond)
			time.Sleep(2 * time.Second)
			p.Restore()
		},
		"a pause": func(w *witness, s *redistest.Server, _ *redistest.Proxy) {
			s.Pause()
			w.stalls(defaultPace.overdue)
			s.Resume()
		},
		"a long pause": func(w *witness, s *redistest.Server, _ *redistest.Proxy) {
			s.Pause()
			w.stalls(3 * time.Second)
			s.Resume()
		},
		"kill -9": func(w *witness, s *redistest.Server, _ *redistest.Proxy) {
			for range 3 {
				s.Kill()
				w.stalls(defaultPace.overdue)
				s.Restart()
				w.heals()
			}
		},
		"a full memory": func(w *witness, s *redistest.Server, _ *redistest.Proxy) {
			s.Do("CONFIG", "SET", "maxmemory", "1")
			await(w.t, "writes are refused", func() bool { return w.listening.health() != nil })
			time.Sleep(time.Second)
			s.Do("CONFIG", "SET", "maxmemory", "0")
		},
		"a slow script": func(w *witness, s *redistest.Server, _ *redistest.Proxy) {
			s.Do("CONFIG", "SET", "busy-reply-threshold", "100")
			s.Do("EVAL", "local t = redis.call('TIME') repeat local n = redis.call('TIME') until (n[1] - t[1]) * 1000000 + n[2] - t[2] > 1500000", "0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "the connection is ended" && name != "a cut" && name != "kill -9" {
				NotShort(t)
			}
			t.Parallel()
			s := redistest.Start(t, redistest.With("appendonly yes"))
			p := redistest.StartProxy(t, s.Addr)
			w := watchOver(
				t,
				open(t, Config{Addresses: []string{s.Addr}}),
				open(t, Config{Addresses: []string{p.Addr}}),
			)
			happens(w, s, p)
			w.heals()
		})
	}
}

// A gate whose cache was filled from an engine that somebody has emptied must
// not go on from it.
func TestP3_AnEmptiedEngineIsReported(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	g := open(t, Config{Addresses: []string{s.Addr}})
	g.awaitUp(t)
	all := func() int {
		g.mu.Lock()
		defer g.mu.Unlock()
		n := 0
		for _, c := range g.changes {
			if c.What == store.AllChanged || c.What == store.ContactMade {
				n++
			}
		}
		return n
	}
	if n := all(); n != 1 {
		t.Fatalf(
			"everything was reported to have changed %d times, not once, for the first contact",
			n,
		)
	}
	s.Do("FLUSHALL")
	await(t, "everything is reported to have changed", func() bool { return all() == 2 })

	s.Kill()
	g.awaitDown(t)
	if n := all(); n != 2 {
		t.Error("an outage alone has emptied the cache, which was to go on through it")
	}
	s.Restart()
	g.awaitUp(t)
	if n := all(); n != 3 {
		t.Errorf(
			"everything was reported to have changed %d times, not once more, after an outage",
			n,
		)
	}
}

// A login, whose records have other keys, is nobody's invalidation.
func TestOnlyInvalidationsAreReported(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	g := open(t, Config{Addresses: []string{s.Addr}})
	g.awaitUp(t)
	for _, key := range []string{"s:{01}", "u:{01}", "t:{01}", "k", "ii:"} {
		if err := g.set(t.Context(), g.cfg.Prefix+key); err != nil {
			t.Fatal(err)
		}
	}
	g.awaitUp(t)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.changes) != 1 {
		t.Errorf("reported: %v", g.changes)
	}
}

func TestParseChange(t *testing.T) {
	d, u := digestOf(7), [16]byte{1, 2}
	hexD, hexU := hex.EncodeToString(d[:]), hex.EncodeToString(u[:])
	all := store.Change{What: store.AllChanged}
	for key, want := range map[string]store.Change{
		"p:i:s:{" + hexD + "}":      {What: store.SessionChanged, Digest: d},
		"p:i:u:{" + hexU + "}":      {What: store.UserChanged, User: u},
		"p:i:e:{all}":               all,
		"p:i:e:{app:wx1}":           all,
		"p:i:s:{" + hexU + "}":      all,
		"p:i:u:{" + hexD + "}":      all,
		"p:i:s:{" + hexD + "0}":     all,
		"p:i:s:{" + hexD + "}x":     all,
		"p:i:s:{x" + hexD[1:] + "}": all,
		"q:i:s:{" + hexD + "}":      all,
		"p:i:s:{}":                  all,
		"p:i:s:}":                   all,
		"p:i:":                      all,
		"":                          all,
	} {
		if got := parseChange("p:", key); got != want {
			t.Errorf("%q: %+v", key, got)
		}
	}
	keys := layout("p:")
	if got := parseChange("p:", keys.changed(keys.session(d))); got.Digest != d ||
		got.What != store.SessionChanged {
		t.Errorf("what the store writes for a session is read as %+v", got)
	}
	if got := parseChange("p:", keys.changed(keys.user(u))); got.User != u ||
		got.What != store.UserChanged {
		t.Errorf("what the store writes for a user is read as %+v", got)
	}
}

func FuzzParseChange(f *testing.F) {
	d := digestOf(7)
	f.Add("p:i:s:{" + hex.EncodeToString(d[:]) + "}")
	f.Add("p:i:u:{" + hex.EncodeToString(d[:16]) + "}")
	f.Add("p:i:e:{all}")
	f.Add("p:i:s:{\xff}")
	f.Fuzz(func(t *testing.T, key string) {
		c := parseChange("p:", key)
		var again string
		switch c.What {
		case store.AllChanged:
			if c.Digest != (store.Digest{}) || c.User != [16]byte{} {
				t.Errorf("%q: about everything, but names something: %+v", key, c)
			}
			return
		case store.SessionChanged:
			again = "p:i:s:{" + hex.EncodeToString(c.Digest[:]) + "}"
		case store.UserChanged:
			again = "p:i:u:{" + hex.EncodeToString(c.User[:]) + "}"
		}
		if !strings.EqualFold(again, key) {
			t.Errorf("%q is read as %q", key, again)
		}
	})
}

// BenchmarkPush measures the time from before a revocation is sent until
// another gate has reported it.
func BenchmarkPush(b *testing.B) {
	s := redistest.Start(b)
	revoking, listening := open(
		b,
		Config{Addresses: []string{s.Addr}},
	), open(
		b,
		Config{Addresses: []string{s.Addr}},
	)
	revoking.awaitUp(b)
	listening.awaitUp(b)
	seen := make(chan store.Digest, 1)
	listening.watch(func(c store.Change) {
		if c.What == store.SessionChanged {
			seen <- c.Digest
		}
	})
	c, err := revoking.client()
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		d := digestOf(n)
		start := time.Now()
		err := c.Do(b.Context(), c.B().Set().Key(revoking.cfg.Prefix+"i:s:{"+hex.EncodeToString(d[:])+"}").Value("").Px(time.Minute).Build()).
			Error()
		if err != nil || <-seen != d {
			b.Fatal(err, "or another one")
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
