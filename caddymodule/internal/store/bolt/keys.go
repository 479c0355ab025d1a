package bolt

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Keys implements store.Store.
func (s *Store) Keys(ctx context.Context) (map[store.KeyID]time.Time, error) {
	var keys map[store.KeyID]time.Time
	err := s.read(ctx, func(t *tables) error {
		keys = t.keys()
		return nil
	})
	return keys, err
}

func (t *tables) keys() map[store.KeyID]time.Time {
	keys := make(map[store.KeyID]time.Time)
	b := t.bucket(key)
	if b == nil { // of a file that no gate of this version has opened yet
		return keys
	}
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		switch {
		case len(k) == len(store.KeyID{}) && len(v) == 0:
			keys[store.KeyID(k)] = time.Time{}
		case len(k) == len(store.KeyID{}) && len(v) == 8:
			keys[store.KeyID(k)] = time.UnixMilli(int64(binary.LittleEndian.Uint64(v)))
		default:
			t.damaged("key", k)
		}
	}
	return keys
}

// SetKeys implements store.Store.
func (s *Store) SetKeys(ctx context.Context, keys map[store.KeyID]time.Time) error {
	return s.write(ctx, func(t *tables) error {
		c := t.bucket(key).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.First() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		for id, until := range keys {
			var v []byte
			if !until.IsZero() {
				v = binary.LittleEndian.AppendUint64(nil, uint64(until.UnixMilli()))
			}
			if err := t.bucket(key).Put(id[:], v); err != nil {
				return err
			}
		}
		return nil
	})
}
