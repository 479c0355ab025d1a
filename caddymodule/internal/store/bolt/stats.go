package bolt

import (
	"context"
	"encoding/binary"
	"os"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Stats implements store.Store. It reads the ledger and one row.
func (s *Store) Stats(ctx context.Context) (store.Stats, error) {
	return read(ctx, s, func(t *tables) (store.Stats, error) {
		o := t.opening
		pages, page := t.tx.Size(), int64(o.db.Info().PageSize)
		st := store.Stats{
			Sessions: o.sessions.Load(), Users: o.users.Load(),
			Bytes: pages, LastExpiry: t.lastExpiry(),
		}
		if v := t.bucket(meta).Get(keyBackup); len(v) == 8 {
			st.LastBackup = time.UnixMilli(int64(binary.LittleEndian.Uint64(v)))
		}
		if info, err := os.Stat(s.path); err == nil {
			st.Bytes = info.Size() // with the room that the file has ahead
		}
		st.FreeBytes = max(0, st.Bytes-pages) + int64(o.freePages())*page
		return st, nil
	})
}

// KeepsCount implements store.Counting.
func (s *Store) KeepsCount() {}

// Identity implements store.Identified. The file is as old as its identity, or
// was made by a release that gave none.
func (s *Store) Identity(ctx context.Context) (store.Identity, error) {
	return read(ctx, s, func(t *tables) (store.Identity, error) {
		id := t.bucket(meta).Get(keyIdentity)
		if id == nil && s.open.Load().old.Load() {
			return store.Identity{}, nil // the upgrade gives it one
		}
		return store.ParseIdentity(string(id))
	})
}

// lastExpiry returns a time after which no session lives, or the zero time.
func (t *tables) lastExpiry() time.Time {
	k, _ := t.bucket(exp).Cursor().Last()
	at, _, _ := splitExpKey(k)
	return at
}
