package redis_test

import (
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/storetest"
)

func TestDumpContract(t *testing.T) {
	for name, start := range topologies {
		t.Run(name, func(t *testing.T) {
			fresh := start(t)
			storetest.RunDump(t, storetest.Harness{New: func(t *testing.T) storetest.Opener {
				cfg := fresh()
				return func() (store.Store, error) { return open(t, cfg) }
			}})
		})
	}
}
