package pushbox_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/pushbox"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

var noon = time.Date(2026, time.December, 1, 12, 0, 0, 0, time.UTC)

// box is the queue of two gates that share a store.
type box struct {
	t *testing.T
	pushbox.Queue
	st *memstore.Store
}

func newBox(t *testing.T) *box {
	t.Helper()
	ring, err := keyring.Parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		t.Fatal(err)
	}
	st := memstore.New(memstore.NewData())
	return &box{t, pushbox.Queue{Facts: st, Ring: ring}, st}
}

func due(id, from string) pushbox.Due {
	return pushbox.Due{ID: id, AppID: "wx0", From: from, Body: []byte(`{"secret":"` + id + `"}`)}
}

func (b *box) add(id, from string, at time.Time) (first bool) {
	b.t.Helper()
	first, err := b.Add(b.t.Context(), due(id, from), at)
	if err != nil {
		b.t.Fatal(err)
	}
	return first
}

// claim returns the ids of the pushes whose turn it is.
func (b *box) claim(at time.Time) (ids, dropped string) {
	b.t.Helper()
	for shard := range pushbox.Shards {
		due, gone, err := b.Claim(b.t.Context(), shard, at)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, d := range due {
			ids += d.ID + " "
		}
		for _, d := range gone {
			dropped += d.ID + " "
		}
	}
	return strings.TrimSpace(ids), strings.TrimSpace(dropped)
}

func (b *box) done(id, from string, delivered bool, at time.Time) {
	b.t.Helper()
	if err := b.Done(b.t.Context(), due(id, from), delivered, at); err != nil {
		b.t.Fatal(err)
	}
}

// Pushes of one sender go one after the other, each until it is delivered.
func TestQueue_OneSender_KeepsOrder(t *testing.T) {
	b := newBox(t)
	if !b.add("1", "alice", noon) || b.add("2", "alice", noon) || b.add("1", "alice", noon) {
		t.Error("first")
	}
	after := func(d time.Duration) time.Time { return noon.Add(pushbox.Lease + d) }
	for _, step := range []struct {
		do   func()
		at   time.Time
		want string
	}{
		{func() {}, noon.Add(time.Second), ""}, // leased
		{func() {}, after(0), "1"},             // its gate has gone
		{func() {}, after(0), ""},
		{func() { b.done("1", "alice", false, after(0)) }, after(time.Second), ""},
		{func() {}, after(2 * time.Second), "1"},
		{func() { b.done("1", "alice", true, after(0)) }, after(2 * time.Second), "2"},
		{func() { b.done("2", "alice", true, after(0)) }, after(time.Hour), ""},
		{func() { b.done("2", "alice", true, after(0)) }, after(time.Hour), ""},
	} {
		step.do()
		if got, _ := b.claim(step.at); got != step.want {
			t.Fatalf("at %v: %q, want %q", step.at, got, step.want)
		}
	}
	for shard := range pushbox.Shards {
		if v, _ := b.st.Fact(t.Context(), fmt.Sprintf("pushes due %02x", shard)); len(v) > 0 {
			t.Errorf("left behind: %x", v)
		}
	}
}

func TestQueue_OtherSender_DoesNotWait(t *testing.T) {
	b := newBox(t)
	b.add("1", "alice", noon)
	if !b.add("2", "bob", noon) {
		t.Error("bob waits for alice")
	}
	b.done("2", "bob", false, noon)
	if got, _ := b.claim(noon.Add(time.Second * 2)); got != "2" {
		t.Errorf("got %q", got)
	}
}

func TestQueue_Old_IsDroppedAndFullIsTold(t *testing.T) {
	b := newBox(t)
	b.add("1", "alice", noon)
	b.add("2", "alice", noon.Add(time.Hour))
	if got, dropped := b.claim(noon.Add(pushbox.Keep)); got != "2" || dropped != "1" {
		t.Errorf("due %q, dropped %q", got, dropped)
	}
	big := due("3", "alice")
	big.Body = make([]byte, 1<<20)
	if _, err := b.Add(t.Context(), big, noon); err != nil {
		t.Fatal(err)
	}
	big.ID = "4"
	if _, err := b.Add(t.Context(), big, noon); !errors.Is(err, pushbox.ErrFull) {
		t.Errorf("bytes: %v", err)
	}
}

// What gates do at the same time gives each push to one of them.
func TestQueue_TwoGates_ClaimEachPushOnce(t *testing.T) {
	b := newBox(t)
	for i := range 40 {
		b.add(fmt.Sprint(i), fmt.Sprint("user", i), noon)
	}
	var mu sync.Mutex
	seen := make(map[string]int)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for shard := range pushbox.Shards {
				due, _, err := b.Claim(t.Context(), shard, noon.Add(pushbox.Lease))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				for _, d := range due {
					seen[d.ID]++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(seen) != 40 {
		t.Errorf("claimed %d", len(seen))
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was claimed %d times", id, n)
		}
	}
}

// The store sees no message, and one that does not open blocks nothing.
func TestQueue_AtRest_IsSealed(t *testing.T) {
	b := newBox(t)
	d := due("1", "alice")
	b.add("1", "alice", noon)
	name := fmt.Sprintf("pushes due %02x", d.Shard())
	sealed, _ := b.st.Fact(t.Context(), name)
	if len(sealed) == 0 || strings.Contains(string(sealed), "secret") {
		t.Errorf("at rest: %q", sealed)
	}
	if _, err := b.st.SetFact(t.Context(), name, sealed, []byte("from elsewhere")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Claim(t.Context(), d.Shard(), noon); !errors.Is(err, pushbox.ErrLost) {
		t.Errorf("claim: %v", err)
	}
	if !b.add("2", "alice", noon) {
		t.Error("not first")
	}
	if got, _ := b.claim(noon.Add(pushbox.Lease)); got != "2" {
		t.Errorf("got %q", got)
	}
}

// An event waits until its time, behind those of its user, for longer than a push, and
// has room when pushes have none.
func TestQueue_Event_OutlivesPushes(t *testing.T) {
	b := newBox(t)
	event := func(id string, next time.Duration) (first bool, err error) {
		d := due(id, "alice")
		d.Event, d.Next = "forgotten", noon.Add(next)
		return b.Add(t.Context(), d, noon)
	}
	if first, err := event("1", 3*time.Second); first || err != nil {
		t.Error(first, err)
	}
	if first, err := event("2", time.Second); first || err != nil {
		t.Error(first, err)
	}
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{2 * time.Second, ""}, {3 * time.Second, "1"}} {
		if got, _ := b.claim(noon.Add(step.after)); got != step.want {
			t.Errorf("after %v: %q, want %q", step.after, got, step.want)
		}
	}
	b.done("1", "alice", true, noon)
	if got, dropped := b.claim(noon.Add(pushbox.Keep)); got != "2" || dropped != "" {
		t.Errorf("due %q, dropped %q", got, dropped)
	}
	if got, dropped := b.claim(noon.Add(pushbox.KeepEvent)); got != "" || dropped != "2" {
		t.Errorf("due %q, dropped %q", got, dropped)
	}
	big := due("3", "alice")
	big.Body = make([]byte, 2<<20)
	if _, err := b.Add(t.Context(), big, noon); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Add(t.Context(), due("4", "alice"), noon); !errors.Is(err, pushbox.ErrFull) {
		t.Errorf("push: %v", err)
	}
	if _, err := event("5", 0); err != nil {
		t.Errorf("event: %v", err)
	}
}
