package store_test

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func TestTouches_Full_NewestOfKnownOnesKept(t *testing.T) {
	digest := func(i int) store.Digest { return sha256.Sum256(fmt.Append(nil, i)) }
	start := time.Unix(1_700_000_000, 0)
	p := store.NewTouches()
	if p.Take() != nil {
		t.Error("an empty collection gave something")
	}
	p.Add(digest(0), start.Add(time.Second))
	p.Add(digest(0), start)
	select {
	case <-p.Arrived():
	default:
		t.Error("the first touch was not told")
	}
	for i := range 2 * store.MaxTouches {
		p.Add(digest(i), start)
	}
	p.Add(digest(1), start.Add(time.Minute)) // known, so it needs no room
	select {
	case <-p.Arrived():
		t.Error("a touch beside others was told")
	default:
	}
	if n := p.Len(); n != store.MaxTouches {
		t.Errorf("%d touches wait", n)
	}
	used := p.Take()
	if len(used) != store.MaxTouches || !used[digest(0)].Equal(start.Add(time.Second)) ||
		!used[digest(1)].Equal(start.Add(time.Minute)) {
		t.Errorf("%d touches taken, %v, %v", len(used), used[digest(0)], used[digest(1)])
	}
	if p.Len() != 0 || p.Take() != nil {
		t.Error("a touch was left")
	}
	p.Add(digest(2), start)
	select {
	case <-p.Arrived():
	default:
		t.Error("the first touch after a take was not told")
	}
}
