package redis

import (
	"context"
	"encoding/binary"
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

// revocation is a change by another gate: the engine's time of it, and the time of the
// answer.
type revocation struct{ made, acknowledged time.Time }

// witness checks the promise of Heard (P3) while another gate revokes without pause: for
// each change acknowledged before the time that Heard returns there was a report, or a
// later one about everything.
type witness struct {
	t         *testing.T
	revoking  *gate
	listening *gate
	stop      context.CancelFunc
	wg        sync.WaitGroup

	mu       sync.Mutex
	made     []revocation
	reported map[int]bool
	all      time.Time // of the last report about everything
	pending  []int     // without a report so far
	broken   map[int]string
	promised int // moves of Heard
	longest  time.Duration
}

// watchOver makes one gate revoke, and checks the other, until the test ends.
func watchOver(t *testing.T, revoking, listening *gate) *witness {
	t.Helper()
	revoking.awaitUp(t)
	listening.awaitUp(t)
	ctx, stop := context.WithCancel(t.Context())
	w := &witness{
		t: t, revoking: revoking, listening: listening, stop: stop,
		reported: make(map[int]bool), broken: make(map[int]string),
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
	w.t.Logf("%d revocations, %d heartbeats, longest time between two: %v",
		len(w.made), w.promised, w.longest)
}

// revoke writes invalidations, each of another session, and records the answers.
func (w *witness) revoke(ctx context.Context) {
	for n := 0; ctx.Err() == nil; {
		r, err := w.one(ctx, n)
		if err != nil {
			time.Sleep(time.Millisecond) // an error acknowledges nothing
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

// one makes one revocation. The script returns the engine's time, which is that of this
// machine.
func (w *witness) one(ctx context.Context, n int) (revocation, error) {
	c, err := w.revoking.client()
	if err != nil {
		return revocation{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	const script = `redis.call('SET', KEYS[1], '', 'PX', 5000)
		redis.call('SET', KEYS[2], '')
		return redis.call('TIME')`
	eval := c.B().Eval().Script(script).Numkeys(2)
	now, err := c.Do(ctx, eval.Key(w.key("i:s:", n), w.key("kept:", n)).Build()).AsStrSlice()
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
	return w.revoking.cfg.Prefix + kind + "{" + hexOf(d[:]) + "}"
}

// kept reports whether the engine still has the second key of a revocation. A failover
// undoes the last writes of the old primary, and then there was nothing to report.
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

// check reads Heard again and again, each time before the reports.
func (w *witness) check(ctx context.Context) {
	var last time.Time
	for ctx.Err() == nil {
		heard := w.listening.heard()
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

// hold records revocations that were acknowledged before heard, and not reported.
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
			w.broken[n] = fmt.Sprintf("revocation %d, made at %v, acknowledged at %v, has no "+
				"report, but Heard returns %v", n, r.made, r.acknowledged, heard)
			return true
		}
		return false
	})
}

// heals waits until the listening gate hears again, and of more revocations.
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
	must(t, err)
	for line := range strings.Lines(list) {
		_, flags, _ := strings.Cut(line, " flags=")
		if flags, _, _ = strings.Cut(flags, " "); strings.Contains(flags, "t") {
			id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
			s.Try("CLIENT", "KILL", "ID", id)
		}
	}
}

// Faults on the way of the listening gate; the other one goes on where it can.
func TestP3_Fault_NothingIsMissed(t *testing.T) {
	t.Parallel()
	type world struct {
		*witness
		s *redistest.Server
		p *redistest.Proxy
	}
	pace := defaultPace
	repeat := func(n int, f func(w world)) func(w world) {
		return func(w world) {
			for range n {
				f(w)
				w.heals()
			}
		}
	}
	for name, happens := range map[string]func(world){
		"nothing":                 func(world) { time.Sleep(time.Second) },
		"the connection is ended": repeat(rounds(10, 2), func(w world) { killTrackers(w.t, w.s) }),
		"all connections are ended": repeat(10, func(w world) {
			w.s.Do("CLIENT", "KILL", "TYPE", "normal")
		}),
		"kill -9": repeat(rounds(3, 1), func(w world) {
			w.s.Kill()
			w.stalls(pace.overdue)
			w.s.Restart()
		}),
		"a cut": func(w world) {
			w.p.Cut()
			w.stalls(time.Second)
			w.p.Restore()
		},
		"a black hole that gives all back": func(w world) {
			w.p.Blackhole()
			w.stalls(pace.overdue + pace.interval)
			w.p.Restore()
		},
		"a long black hole": func(w world) {
			w.p.Blackhole()
			w.stalls(pace.hopeless + time.Second)
			w.p.Restore()
		},
		"a firewall forgets": func(w world) {
			w.p.Forget()
			w.stalls(pace.overdue)
		},
		"a slow network": func(w world) {
			w.p.Delay(50 * time.Millisecond)
			time.Sleep(2 * time.Second)
			w.p.Restore()
		},
		"a pause": func(w world) {
			w.s.Pause()
			w.stalls(pace.overdue)
			w.s.Resume()
		},
		"a long pause": func(w world) {
			w.s.Pause()
			w.stalls(3 * time.Second)
			w.s.Resume()
		},
		"a full memory": func(w world) {
			w.s.Do("CONFIG", "SET", "maxmemory", "1")
			await(w.t, "writes are refused", func() bool { return w.listening.health() != nil })
			time.Sleep(time.Second)
			w.s.Do("CONFIG", "SET", "maxmemory", "0")
		},
		"a slow script": func(w world) {
			w.s.Do("CONFIG", "SET", "busy-reply-threshold", "100")
			w.s.Do("EVAL", `
				local function us()
					local t = redis.call('TIME')
					return t[1] * 1000000 + t[2]
				end
				local from = us()
				repeat until us() - from > 1500000`, "0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "the connection is ended" && name != "a cut" && name != "kill -9" {
				notShort(t)
			}
			t.Parallel()
			s := redistest.Start(t, redistest.With("appendonly yes"))
			p := redistest.StartProxy(t, s.Addr)
			revoking := openLink(t, Config{Addresses: []string{s.Addr}, pace: pace})
			listening := openLink(t, Config{Addresses: []string{p.Addr}, pace: pace})
			w := world{watchOver(t, revoking, listening), s, p}
			happens(w)
			w.heals()
		})
	}
}

// The cache of a gate must not outlive the data of an engine that was emptied.
func TestP3_EngineEmptied_IsReported(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	g := upLink(t, s.Addr)
	check := func(when string, want int) {
		t.Helper()
		if n := g.reports(store.AllChanged, store.ContactMade); n != want {
			t.Errorf("%s: %d reports about everything, want %d", when, n, want)
		}
	}
	check("after the first contact", 1)
	s.Do("FLUSHALL")
	await(t, "the emptying is reported", func() bool { return g.reports(store.AllChanged) == 1 })
	s.Kill()
	g.awaitDown(t)
	check("in an outage, which the cache survives", 2)
	s.Restart()
	g.awaitUp(t)
	check("after an outage", 3)
}

// A login writes keys without the invalidation prefix.
func TestLink_OtherKeys_AreNotReported(t *testing.T) {
	t.Parallel()
	g := upLink(t, redistest.Shared(t).Addr)
	for _, key := range []string{"s:{01}", "u:{01}", "t:{01}", "k", "ii:"} {
		must(t, g.set(t, g.cfg.Prefix+key))
	}
	g.awaitUp(t)
	if n := g.reports(); n != 1 {
		t.Errorf("%d reports, want only that of the contact", n)
	}
}

func TestParseChange_Unknown_IsAboutEverything(t *testing.T) {
	d, u := digestOf(7), [16]byte{1, 2}
	hexD, hexU := hexOf(d[:]), hexOf(u[:])
	session := store.Change{What: store.SessionChanged, Digest: d}
	user := store.Change{What: store.UserChanged, User: u}
	all := store.Change{What: store.AllChanged}
	keys := layout("p:")
	for key, want := range map[string]store.Change{
		keys.changed(keys.session(d)): session,
		keys.changed(keys.user(u)):    user,
		"p:i:s:{" + hexD + "}":        session,
		"p:i:u:{" + hexU + "}":        user,
		"p:i:e:{all}":                 all,
		"p:i:e:{app:wx1}":             all,
		"p:i:s:{" + hexU + "}":        all,
		"p:i:u:{" + hexD + "}":        all,
		"p:i:s:{" + hexD + "0}":       all,
		"p:i:s:{" + hexD + "}x":       all,
		"p:i:s:{x" + hexD[1:] + "}":   all,
		"q:i:s:{" + hexD + "}":        all,
		"p:i:s:{}":                    all,
		"p:i:s:}":                     all,
		"p:i:":                        all,
		"":                            all,
	} {
		if got := parseChange("p:", key); got != want {
			t.Errorf("%q: %+v", key, got)
		}
	}
}

func FuzzParseChange(f *testing.F) {
	d := digestOf(7)
	f.Add("p:i:s:{" + hexOf(d[:]) + "}")
	f.Add("p:i:u:{" + hexOf(d[:16]) + "}")
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
			again = "p:i:s:{" + hexOf(c.Digest[:]) + "}"
		case store.UserChanged:
			again = "p:i:u:{" + hexOf(c.User[:]) + "}"
		}
		if !strings.EqualFold(again, key) {
			t.Errorf("%q is read as %q", key, again)
		}
	})
}

// BenchmarkPush measures the time from the call for a revocation to its report at
// another gate.
func BenchmarkPush(b *testing.B) {
	s := redistest.Start(b)
	revoking, listening := upLink(b, s.Addr), upLink(b, s.Addr)
	seen := make(chan store.Digest, 1)
	listening.watch(func(c store.Change) {
		if c.What == store.SessionChanged {
			seen <- c.Digest
		}
	})
	c, err := revoking.client()
	must(b, err)
	var took []time.Duration
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		d := digestOf(n)
		key := revoking.cfg.Prefix + "i:s:{" + hexOf(d[:]) + "}"
		start := time.Now()
		err := c.Do(b.Context(), c.B().Set().Key(key).Value("").Px(time.Minute).Build()).Error()
		if err != nil || <-seen != d {
			b.Fatal(err, "or another one")
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
