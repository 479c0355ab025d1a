package bolt

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Noted implements store.Store.
func (s *Store) Noted(ctx context.Context) (store.Noting, error) {
	var n store.Noting
	err := s.read(ctx, func(t *tables) error {
		n = t.noted()
		return nil
	})
	return n, err
}

func (t *tables) noted() store.Noting {
	v := t.bucket(meta).Get(keyNoted)
	if v == nil {
		return store.Noting{}
	}
	if len(v) != 16 {
		t.damaged("noted", keyNoted)
		return store.Noting{}
	}
	return store.Noting{
		Every: time.Duration(binary.LittleEndian.Uint64(v)) * time.Millisecond,
		Since: time.UnixMilli(int64(binary.LittleEndian.Uint64(v[8:]))),
	}
}

// SetNoted implements store.Store.
func (s *Store) SetNoted(ctx context.Context, n store.Noting) error {
	return s.write(ctx, func(t *tables) error {
		if n.Every <= 0 {
			return t.bucket(meta).Delete(keyNoted)
		}
		v := binary.LittleEndian.AppendUint64(nil, uint64(n.Every.Milliseconds()))
		return t.bucket(meta).Put(keyNoted, binary.LittleEndian.AppendUint64(v, uint64(n.Since.UnixMilli())))
	})
}
