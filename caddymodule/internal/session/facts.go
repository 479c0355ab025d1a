package session

import "context"

// Fact is store.Store.Fact. The error wraps ErrUnavailable.
func (c *Core) Fact(ctx context.Context, name string) (value []byte, err error) {
	err = c.Use(func() error {
		value, err = c.store.Fact(ctx, name)
		return c.asked(reading, err)
	})
	return value, err
}

// SetFact is store.Store.SetFact. The error wraps ErrUnavailable.
func (c *Core) SetFact(ctx context.Context, name string, was, value []byte) (now []byte, err error) {
	err = c.Use(func() error {
		now, err = c.store.SetFact(ctx, name, was, value)
		return c.asked(writing, err)
	})
	return now, err
}
