package storetest

import (
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// An identity is written once: it stays over starts, changes and revocations, and
// no other store has it.
func testIdentity(t *testing.T, f *fixture, h Harness) {
	if _, ok := f.Store.(store.Identified); !ok {
		t.Skip("the store has no identity")
	}
	identity := func(f *fixture) store.Identity {
		t.Helper()
		i, err := f.Store.(store.Identified).Identity(t.Context())
		f.must(err)
		return i
	}
	first := identity(f)
	age := time.Since(first.Created)
	if len(first.ID) != 16 || age < -time.Minute || age > time.Hour {
		t.Errorf("a new store is %+v", first)
	}
	f.login(alice)
	f.must(f.RevokeAll(t.Context()))
	for range 2 {
		if now := identity(f); now.ID != first.ID || !now.Created.Equal(first.Created) {
			t.Errorf("the store was %+v, is %+v", first, now)
		}
		f.reopen()
	}
	if other := identity(newFixture(t, h)); other.ID == first.ID {
		t.Errorf("two stores are %+v", other)
	}
}
