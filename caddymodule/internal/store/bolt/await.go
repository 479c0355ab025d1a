package bolt

import (
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"
)

// awaitPause is the pause between two looks at the lock.
const awaitPause = 20 * time.Millisecond

// awaitFree waits until no other process has the file open, at most for d, and
// logs the wait in one line. It touches nothing: with the marker of a process
// that lives on, Open would verify the whole file.
func awaitFree(path string, d time.Duration, log *zap.Logger) {
	began := time.Now()
	for told := false; time.Since(began) < d && inUse(path); time.Sleep(awaitPause) {
		if !told {
			log.Info("session database is in use; waiting for its process to end",
				zap.Duration("at_most", d))
			told = true
		}
	}
}

// InUse reports whether a process has the database open. It touches nothing.
func InUse(path string) bool { return inUse(path) }

// inUse reports whether another process has the file open for writing.
func inUse(path string) bool {
	err := protect(func() error {
		db, err := bolt.Open(path, 0, &bolt.Options{Timeout: 1, ReadOnly: true})
		if err != nil {
			return err
		}
		return db.Close()
	})
	return errors.Is(err, berrors.ErrTimeout)
}
