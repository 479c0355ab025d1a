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
// bbolt never gives room back. It reports whether it did. Then o.db still has the
// old file open, which has lost its name, and the caller makes the new name
// durable.
//
// The copy is complete and on the disk before a rename gives it the name, so a
// crash leaves one of the two files, whole. A failure leaves the old file in
// place and is no reason not to start.
func (o *opening) compact() bool {
	var size int64
	err := o.db.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	})
	used := o.counted.used
	worth := err == nil && size > compactAbove && size-used > size/2
	if !worth || runtime.GOOS == "windows" { // an open file cannot be replaced there
		return false
	}
	start := time.Now()
	if err := o.replace(); err != nil {
		o.log.Warn("session store has much free room, but could not be compacted",
			zap.Int64("bytes", size), zap.Int64("free_bytes", size-used), zap.Error(err))
		return false
	}
	info, err := os.Stat(o.path)
	if err != nil {
		return true // the caller opens the file and meets the error
	}
	o.log.Info("session store compacted", zap.Int64("bytes_before", size),
		zap.Int64("bytes", info.Size()), zap.Duration("took", time.Since(start)))
	return true
}

func (o *opening) replace() error {
	if err := checkRoom(o.path, o.counted.used); err != nil {
		return err
	}
	tmp, err := makeTemp(o.path)
	if err != nil {
		return err
	}
	err = tmp.Close()
	var n census
	if err == nil {
		n, err = o.copyCompact(tmp.Name())
	}
	if err == nil {
		err = os.Rename(tmp.Name(), o.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	o.counted = n
	return nil
}

// copyCompact writes the content to the empty file tmp, syncs it, verifies it and
// counts it.
func (o *opening) copyCompact(tmp string) (got census, err error) {
	opts := options()
	opts.NoSync = true // one fsync at the end: a crash leaves an unused copy
	err = protect(func() error {
		dst, err := bolt.Open(tmp, 0o600, opts)
		if err != nil {
			return err
		}
		return errors.Join(bolt.Compact(dst, o.db, compactBatch), dst.Sync(), dst.Close())
	})
	if err != nil {
		return got, err
	}
	_, err = verify(tmp, func(_ *bolt.Tx, n census) error {
		got = n
		return nil
	})
	var want census
	err = errors.Join(err, o.db.View(func(tx *bolt.Tx) (err error) {
		want, err = checkPages(tx, o.file)
		return err
	}))
	if err == nil && want.rows != got.rows {
		err = fmt.Errorf("%w: the copy has %d rows, the original %d",
			errDamage, got.rows, want.rows)
	}
	return got, err
}
