package pushbox_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/pushbox"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

func digest(i int) pushbox.Digest { return sha256.Sum256([]byte(strconv.Itoa(i))) }

func TestSeen_AddedByOneGate_KnownToAllUntilItsEnd(t *testing.T) {
	st := memstore.New(memstore.NewData())
	a, b := pushbox.Seen{Facts: st}, pushbox.Seen{Facts: st}
	now := time.Unix(1_700_000_000, 0)
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			gate := []pushbox.Seen{a, b}[i%2]
			until := now.Add(time.Duration(i+1) * time.Second)
			if err := gate.Add(t.Context(), digest(i), until, now); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i := range 110 {
		for _, at := range []int{0, i, i + 1} {
			got, err := a.Has(t.Context(), digest(i), now.Add(time.Duration(at)*time.Second))
			if want := i < 100 && at < i+1; got != want || err != nil {
				t.Errorf("push %d after %ds: %v, %v", i, at, got, err)
			}
		}
	}
}

// The memory holds no more than pushes of the window, and a damaged fact is no reason
// to refuse one.
func TestSeen_OldAndDamaged_AreGone(t *testing.T) {
	st := memstore.New(memstore.NewData())
	s := pushbox.Seen{Facts: st}
	now, d := time.Unix(1_700_000_000, 0), digest(1)
	name := fmt.Sprintf("pushes seen %02x", d[0]%64)
	for i := range 10 {
		at := now.Add(time.Duration(i) * time.Minute)
		if err := s.Add(t.Context(), d, at.Add(time.Second), at); err != nil {
			t.Fatal(err)
		}
	}
	value, err := st.Fact(t.Context(), name)
	if err != nil || len(value) != 16 {
		t.Fatalf("kept %x, %v", value, err)
	}
	damage := []byte("damage that is no list")
	if _, err := st.SetFact(t.Context(), name, value, damage); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), d, now.Add(time.Second), now); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Has(t.Context(), d, now); !got || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSeen_StoreDown_IsTold(t *testing.T) {
	st := memstore.New(memstore.NewData())
	st.Close()
	s := pushbox.Seen{Facts: st}
	now := time.Now()
	_, err := s.Has(context.Background(), digest(1), now)
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Has: %v", err)
	}
	err = s.Add(context.Background(), digest(1), now.Add(time.Hour), now)
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Add: %v", err)
	}
}
