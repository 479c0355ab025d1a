package bolt

import (
	"context"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Stats implements store.Store. It looks at every page of the file, but not at the records in them.
func (s *Store) Stats(ctx context.Context) (store.Stats, error) {
	var st store.Stats
	err := s.read(ctx, func(t *tables) error {
		size := t.tx.Size() // without the room that the file has ahead
		if info, err := os.Stat(s.path); err == nil {
			size = info.Size()
		}
		st = t.stats(size)
		return nil
	})
	return st, err
}

// stats counts what is in a file of the given size.
func (t *tables) stats(size int64) store.Stats {
	keys, used := usage(t.tx)
	return store.Stats{
		Sessions: keys[sess], Users: keys[user],
		Bytes: size, FreeBytes: max(0, size-used),
		LastExpiry: t.lastExpiry(),
	}
}

// lastExpiry returns when the last session ends; the zero time when there is none.
func (t *tables) lastExpiry() time.Time {
	k, _ := t.bucket(exp).Cursor().Last()
	at, _, _ := splitExpKey(k)
	return at
}

// usage returns the number of keys in each bucket and the bytes of the pages that are in use. It counts those and not the free ones, whose list belongs to the writer.
func usage(tx *bolt.Tx) (keys [len(bucketNames)]int64, used int64) {
	used = 3 * int64(tx.DB().Info().PageSize) // two of meta data, one of buckets
	for i, name := range bucketNames {
		b := tx.Bucket(name)
		if b == nil {
			continue // of an older program's file
		}
		st := b.Stats()
		keys[i] = int64(st.KeyN)
		used += int64(st.BranchAlloc + st.LeafAlloc)
	}
	return keys, used
}
