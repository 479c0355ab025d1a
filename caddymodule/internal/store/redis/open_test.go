package redis_test

import (
	"context"
	"errors"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// TestOpenIsReady: the first call after Open finds the connection made, so that
// a gate which starts beside a healthy engine has no outage to report.
func TestOpenIsReady(t *testing.T) {
	t.Parallel()
	s, err := redis.Open(config(redistest.Start(t).Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Health(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := s.Lookup(context.Background(), store.Digest{1}); !errors.Is(
		err,
		store.ErrNotFound,
	) {
		t.Error(err)
	}
}

// TestP4_OpenWhileDown: Open succeeds, and does not wait for a server that is
// not there.
func TestP4_OpenWhileDown(t *testing.T) {
	t.Parallel()
	s, err := redis.Open(config("127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Health(context.Background()); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
}
