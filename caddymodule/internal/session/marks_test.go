package session

import (
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// exactMarks is marks without bounds: the time of every mark, for ever.
type exactMarks struct {
	floor uint64
	at    map[uint64]uint64
}

func (x *exactMarks) holds(a, b, t uint64) bool {
	return t >= x.floor && t >= x.at[a] && t >= x.at[b]
}

// markKey draws from few keys that fall into few shards.
func markKey(t *rapid.T) uint64 {
	return rapid.Uint64Range(0, 3).Draw(t, "shard")<<58 | rapid.Uint64Range(0, 5).Draw(t, "key")
}

// TestMarks_Model: bounded marks forget, but no stale entry holds. Without an
// overflow they are exact.
func TestMarks_Model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, x := new(marks), &exactMarks{at: make(map[uint64]uint64)}
		reads := []uint64{m.now()}
		overflowed := false
		t.Repeat(map[string]func(*rapid.T){
			"read": func(*rapid.T) { reads = append(reads, m.now()) },
			"void": func(t *rapid.T) {
				keys := rapid.SliceOfN(rapid.Custom(markKey), 0, 3).Draw(t, "keys")
				m.void(keys...)
				for _, k := range keys {
					x.at[k] = m.now()
				}
			},
			"void all": func(t *rapid.T) {
				m.voidAll()
				x.floor = m.now()
			},
			"overflow": func(t *rapid.T) {
				shard := rapid.Uint64Range(0, 3).Draw(t, "shard") << 58
				for i := range uint64(rapid.IntRange(1, 2*marksInShard).Draw(t, "marks")) {
					m.void(shard | 1<<32 | i)
				}
				overflowed = true
			},
			"": func(t *rapid.T) {
				a, b := markKey(t), markKey(t)
				for _, r := range append(reads[max(0, len(reads)-8):], m.now()) {
					got, want := m.holds(a, b, r), x.holds(a, b, r)
					if got && !want {
						t.Fatalf("an entry about %x and %x of %d holds at %d", a, b, r, m.now())
					}
					if !got && want && !overflowed {
						t.Fatalf("an entry about %x and %x of %d is stale at %d", a, b, r, m.now())
					}
				}
				if !m.holds(a, b, m.now()) {
					t.Fatal("what is read now does not hold")
				}
			},
		})
	})
}

// TestMarks_Overflow_DropsItsOwnShard: and its memory stays bounded.
func TestMarks_Overflow_DropsItsOwnShard(t *testing.T) {
	m := new(marks)
	const other = 7 << 58
	early := m.now()
	m.void(42)
	for k := range uint64(10 * marksInShard) {
		if k%100 == 0 && m.holds(42, other, early) {
			t.Fatalf("after %d marks more, a voided entry holds", k)
		}
		m.void(1<<40 | k)
		if n := len(m.shards[0].at); n > marksInShard {
			t.Fatalf("%d marks in a shard", n)
		}
	}
	if m.holds(43, other, early) {
		t.Error("the full shard forgot its marks and kept believing")
	}
	if !m.holds(other, other|1, early) {
		t.Error("another shard's entries were dropped too")
	}
	if !m.holds(43, other, m.now()) {
		t.Error("what is read after the overflow does not hold")
	}
	for i := range m.shards[1:] {
		if n := len(m.shards[i+1].at); n != 0 {
			t.Errorf("%d marks in shard %d", n, i+1)
		}
	}
}

// TestMarks_LateMarkInFullShard_KeepsTheFloor: a mark with an early time that
// arrives late must not lower what the forgotten marks have said.
func TestMarks_LateMarkInFullShard_KeepsTheFloor(t *testing.T) {
	m := new(marks)
	late := m.clock.Add(1) // its owner was held up here
	for k := range uint64(marksInShard - 1) {
		m.void(1<<40 | k)
	}
	before := m.now()
	m.void(42) // fills the shard
	m.shard(42).mark(43, late, &m.clock)
	if m.holds(42, 42, before) {
		t.Error("a forgotten mark took its time with it")
	}
}

func TestMarks_WrongOrder_LaterTimeCounts(t *testing.T) {
	m := new(marks)
	first := m.clock.Add(1)
	between := m.now()
	m.void(42)
	m.shard(42).mark(42, first, &m.clock)
	if m.holds(42, 42, between) {
		t.Error("an earlier mark undid a later one")
	}
}

// TestMarks_Concurrent: whatever marks come in beside, an entry read before a
// void that has returned is stale, and one read after it is not, unless another
// void concerns it.
func TestMarks_Concurrent(t *testing.T) {
	m := new(marks)
	var wg sync.WaitGroup
	var stop atomic.Bool
	for w := range uint64(2) {
		wg.Go(func() {
			for i := uint64(0); !stop.Load(); i++ {
				switch {
				case i%5000 == 0:
					m.voidAll()
				default:
					m.void((i%64)<<58|w<<40|i, i)
				}
			}
		})
	}
	var own sync.WaitGroup
	for w := range uint64(4) {
		own.Go(func() {
			for i := range uint64(5000) {
				k := (i%64)<<58 | (w+10)<<40 | i
				early := m.now()
				m.void(k)
				if m.holds(k, k, early) || m.holds(0, k, early) || m.holds(k, 0, early) {
					t.Errorf("read at %d, voided, and holds", early)
					return
				}
			}
		})
	}
	for range 2 {
		own.Go(func() {
			for range 100_000 {
				early := m.now()
				m.voidAll()
				if m.holds(0, 0, early) {
					t.Errorf("read at %d, everything voided, and holds", early)
					return
				}
			}
		})
	}
	own.Wait()
	stop.Store(true)
	wg.Wait()
	if !m.holds(1, 2, m.now()) {
		t.Error("nothing holds any more")
	}
}
