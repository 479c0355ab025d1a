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
	// compactAbove is the size of file from which it is worth the time: bbolt itself makes a file grow by as much.
	compactAbove = 16 << 20

	// compactBatch bounds what one transaction of the copy keeps in memory.
	compactBatch = 4 << 20
)

// compact writes what is in db to a new file and puts that in the place of the old one, when more than half of the old one is free: bbolt never gives room back. It reports whether it did;
// then db still has the old file open, which has no name any more, and the new name has yet to be made durable. What goes wrong before leaves everything as it was and is no reason not to
// start.
//
// The new file is complete and on the disk before it gets its name, and the name changes in one step: whenever the process dies, one of the two files is there, whole.
func compact(path string, db *bolt.DB, log *zap.Logger) bool {
	var size, used int64
	err := db.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		_, used = usage(tx)
		return nil
	})
	if err != nil || size <= compactAbove || size-used <= size/2 || runtime.GOOS == "windows" { // where no file that is open can be replaced
		return false
	}
	start := time.Now()
	if err := replaceBy(path, db, used); err != nil {
		log.Warn("session store has much free room, but could not be compacted", zap.Int64("bytes", size), zap.Int64("free_bytes", size-used), zap.Error(err))
		return false
	}
	info, err := os.Stat(path)
	if err != nil {
		return true // opening it will tell
	}
	log.Info("session store compacted", zap.Int64("bytes_before", size), zap.Int64("bytes", info.Size()), zap.Duration("took", time.Since(start)))
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

// copyCompact writes what is in db to the empty file tmp and sees that it is on the disk and whole.
func copyCompact(tmp string, db *bolt.DB) error {
	o := options()
	o.NoSync = true // one fsync at the end: a copy that was not finished is not used
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
	_, err = examine(tmp, func(tx *bolt.Tx) error {
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
