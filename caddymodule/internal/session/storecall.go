package session

import (
	"context"
	"errors"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/span"
)

// StoreCall is one call of the store that a client waits for.
type StoreCall struct {
	Name   string // lookup or login
	Result string // ok, unavailable, or canceled when the caller gave up
	Took   time.Duration
}

// storeCall begins a StoreCall, which ends with the error of the store.
func (c *Core) storeCall(ctx context.Context, name string) (context.Context, func(error)) {
	ctx, call := span.Start(ctx, "session store", name)
	began := time.Now()
	return ctx, func(err error) {
		result := "ok"
		switch {
		case errors.Is(err, context.Canceled):
			result = "canceled"
		case errors.Is(err, ErrUnavailable):
			result = "unavailable"
		}
		call.End(result, result == "unavailable")
		if c.observe != nil {
			c.observe(StoreCall{Name: name, Result: result, Took: time.Since(began)})
		}
	}
}
