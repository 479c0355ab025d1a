package redis_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// TestSlotsOnTheMove: while the cluster moves the slots of a user and of a
// session, the session is found and the user logs in.
func TestSlotsOnTheMove(t *testing.T) {
	redis.NotShort(t)
	t.Parallel()
	c := redistest.StartCluster(t, 2, 0)
	cfg := config("")
	cfg.Addresses, cfg.Cluster = c.Addresses(), true
	s := mustOpen(t, cfg)
	l := newLogin(userOf("oAlice"))
	_, err := s.Login(t.Context(), l)
	must(t, err)
	h := l.User.Hash()
	ids := []string{c.Primaries[0].ID(), c.Primaries[1].ID()}
	for _, tag := range []string{hexOf(h[:]), hexOf(l.Digest[:])} {
		node := raw(t, c.Primaries[0].Addr)
		slot, err := do(node, "CLUSTER", "KEYSLOT", tag).AsInt64()
		must(t, err)
		from := 0
		if slot >= 16384/2 {
			from = 1
		}
		must(
			t,
			do(
				raw(t, c.Primaries[1-from].Addr),
				"CLUSTER",
				"SETSLOT",
				fmt.Sprint(slot),
				"IMPORTING",
				ids[from],
			).Error(),
		)
		must(
			t,
			do(
				raw(t, c.Primaries[from].Addr),
				"CLUSTER",
				"SETSLOT",
				fmt.Sprint(slot),
				"MIGRATING",
				ids[1-from],
			).Error(),
		)
	}
	if !accepted(t, s, l.Digest) {
		t.Error("the session does not hold")
	}
	again := newLogin(l.User)
	_, err = s.Login(t.Context(), again)
	must(t, err)
	if !accepted(t, s, l.Digest) || !accepted(t, s, again.Digest) {
		t.Error("the sessions do not hold")
	}
	s.Touch(again.Digest, again.Created.Add(time.Second))
	must(t, s.RevokeAll(t.Context()))
	if accepted(t, s, again.Digest) {
		t.Error("a revoked session holds")
	}
}
