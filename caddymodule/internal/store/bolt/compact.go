package bolt

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
)

const (
	// compactAbove is the size from which compacting a file is worth the time:
	// bbolt grows a file by as much.
	compactAbove = 16 << 20

	// compactBatch bounds the memory of one transaction of the copy.
	compactBatch = 4 << 20
)

// compact replaces a file of which more than half is free by a compact copy:
// bbolt never gives room back. It reports whether it did. Then db still has the
// old file open, which has lost its name, and the caller makes the new name
// durable.
//
// The copy is complete and on the disk before a rename gives it the name, so a
// crash leaves one of the two files, whole. A failure leaves the old file in
// place and is no reason not to start.
func compact(path string, db *bolt.DB, log *zap.Logger) bool {
	var size, used int64
	err := db.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		_, used = usage(tx)
		return nil
	})
	worth := err == nil && size > compactAbove && size-used > size/2
	if !worth || runtime.GOOS == "windows" { // an open file cannot be replaced there
		return false
	}
	start := time.Now()
	if err := replaceBy(path, db, used); err != nil {
		log.Warn("session store has much free room, but could not be compacted",
			zap.Int64("bytes", size), zap.Int64("free_bytes", size-used), zap.Error(err))
		return false
	}
	info, err := os.Stat(path)
	if err != nil {
		return true // the caller opens the file and meets the error
	}
	log.Info("session store compacted", zap.Int64("bytes_before", size),
		zap.Int64("bytes", info.Size()), zap.Duration("took", time.Since(start)))
	return true
}

func replaceBy(path string, db *bolt.DB, used int64) error {
	if err := checkRoom(path, used); err != nil {
		return err
	}
	tmp, err := makeTemp(path)
	if err != nil {
		return err
	}
	err = tmp.Close()
	if err == nil {
		err = copyCompact(tmp.Name(), db)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// copyCompact writes the content of db to the empty file tmp, syncs it and
// verifies it.
func copyCompact(tmp string, db *bolt.DB) error {
	o := options()
	o.NoSync = true // one fsync at the end: a crash leaves an unused copy
	err := protect(func() error {
		dst, err := bolt.Open(tmp, 0o600, o)
		if err != nil {
			return err
		}
		return errors.Join(bolt.Compact(dst, db, compactBatch), dst.Sync(), dst.Close())
	})
	if err != nil {
		return err
	}
	var want, got [len(bucketNames)]int64
	_, err = verify(tmp, func(tx *bolt.Tx) error {
		got, _ = usage(tx)
		return nil
	})
	err = errors.Join(err, db.View(func(tx *bolt.Tx) error {
		want, _ = usage(tx)
		return nil
	}))
	if err == nil && want != got {
		err = fmt.Errorf("%w: the copy has %d rows, the original %d", errDamage, got, want)
	}
	return err
}
