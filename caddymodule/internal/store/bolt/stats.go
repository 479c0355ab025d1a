package bolt

import (
	"context"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Stats implements store.Store. It reads every page of the file, not the records.
func (s *Store) Stats(ctx context.Context) (store.Stats, error) {
	return read(ctx, s, func(t *tables) (store.Stats, error) {
		size := t.tx.Size() // without the room that the file has ahead
		if info, err := os.Stat(s.path); err == nil {
			size = info.Size()
		}
		return t.stats(size), nil
	})
}

// Identity implements store.Identified. The file is as old as its identity, or
// was made by a release that gave none.
func (s *Store) Identity(ctx context.Context) (store.Identity, error) {
	return read(ctx, s, func(t *tables) (store.Identity, error) {
		return store.ParseIdentity(string(t.bucket(meta).Get(keyIdentity)))
	})
}

// stats counts the content of a file of the given size.
func (t *tables) stats(size int64) store.Stats {
	keys, used := usage(t.tx)
	return store.Stats{
		Sessions:   keys[sess],
		Users:      keys[user],
		Bytes:      size,
		FreeBytes:  max(0, size-used),
		LastExpiry: t.lastExpiry(),
	}
}

// lastExpiry returns a time after which no session lives, or the zero time.
func (t *tables) lastExpiry() time.Time {
	k, _ := t.bucket(exp).Cursor().Last()
	at, _, _ := splitExpKey(k)
	return at
}

// usage returns the number of rows in each bucket, and the bytes of the pages in
// use. The list of free pages belongs to the writer, so usage counts the others.
func usage(tx *bolt.Tx) (keys [len(bucketNames)]int64, used int64) {
	used = 3 * int64(tx.DB().Info().PageSize) // two headers and the page of buckets
	for i, name := range bucketNames {
		b := tx.Bucket(name)
		if b == nil {
			continue // in the file of an older program
		}
		st := b.Stats()
		keys[i] = int64(st.KeyN)
		used += int64(st.BranchAlloc + st.LeafAlloc)
	}
	return keys, used
}
