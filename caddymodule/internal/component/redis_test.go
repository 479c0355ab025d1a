package component_test

import (
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/component"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// onRedis makes a gate keep its facts in a Redis, over a connection of its own.
func (w *world) onRedis(addr string) func(*component.Config) {
	w.t.Helper()
	s, err := redis.Open(redis.Config{
		Addresses: []string{addr}, Prefix: "wxgate:",
		DialTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
	})
	w.must(err)
	w.t.Cleanup(func() { s.Close() })
	s.Watch(func(store.Change) {})
	w.eventually("contact with redis", func() bool { return s.Health(w.t.Context()) == nil })
	return func(cfg *component.Config) { cfg.Facts, cfg.Shared = s, true }
}

// TestFleet_OnRedis: what one gate hears, all know, and one renews for all.
func TestFleet_OnRedis_NoMerchantLost(t *testing.T) {
	addr := redistest.Start(t).Addr
	w := newWorld(t)
	first := w.ready(w.onRedis(addr))
	second := w.gate(w.onRedis(addr))
	w.pushed(w.sim.Authorize(t.Context(), platformID, shop)) // the first gate dies with it
	w.receives(second)
	w.pushed(w.sim.Authorize(t.Context(), platformID, otherShop))
	w.must(second.Work(t.Context()))
	w.sim.Reset()
	w.sim.ExpireTokens()

	var group sync.WaitGroup
	for _, g := range []*gate{first, second} {
		for _, id := range []string{shop, otherShop} {
			group.Go(func() {
				if _, err := g.logIn(id); err != nil {
					t.Errorf("login to %s: %v", id, err)
				}
			})
		}
	}
	group.Wait()
	w.calls("api_component_token", 1)
	for _, id := range []string{shop, otherShop} {
		if got := first.state(id); got != component.Authorized {
			t.Errorf("%s is %s", id, got)
		}
	}
	w.later(time.Second)
	w.pushed(w.sim.Unauthorize(t.Context(), platformID, shop))
	if ok, err := first.Allows(t.Context(), shop); ok || err != nil {
		t.Errorf("allowed at the other gate: %v, %v", ok, err)
	}
}
