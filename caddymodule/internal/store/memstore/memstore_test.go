package memstore_test

import (
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/store/storetest"
)

func TestStore_Contract(t *testing.T) {
	storetest.Run(t, storetest.Harness{New: func(*testing.T) storetest.Opener {
		d := memstore.NewData()
		return func() (store.Store, error) { return memstore.NewShared(d), nil }
	}})
}

func TestShared_Contract(t *testing.T) {
	storetest.RunShared(t, storetest.SharedHarness{
		New: func(*testing.T) func() (store.Shared, error) {
			d := memstore.NewData()
			return func() (store.Shared, error) { return memstore.NewShared(d), nil }
		},
	})
}
