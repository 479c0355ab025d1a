package bolt

import (
	"bytes"
	"context"
)

// factKey names a fact in the bucket meta, so that files keep their schema.
func factKey(name string) []byte { return []byte("fact " + name) }

// Fact implements store.Store.
func (s *Store) Fact(ctx context.Context, name string) (value []byte, err error) {
	err = s.read(ctx, func(t *tables) error {
		value = bytes.Clone(t.bucket(meta).Get(factKey(name)))
		return nil
	})
	return value, err
}

// SetFact implements store.Store.
func (s *Store) SetFact(ctx context.Context, name string, was, value []byte) ([]byte, error) {
	return write(ctx, s, func(t *tables) ([]byte, error) {
		if now := t.bucket(meta).Get(factKey(name)); !bytes.Equal(now, was) {
			return bytes.Clone(now), nil
		}
		return value, t.bucket(meta).Put(factKey(name), value)
	})
}
