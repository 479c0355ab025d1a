package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"
)

// lockWait is how long Open waits for the lock. Never 0, which would wait for ever (STORE.md 2.4).
const lockWait = time.Second

// options are the settings of STORE.md 2.4. NoFreelistSync makes commits several times cheaper; the price is a walk over the file at every open and after every failed commit.
func options() *bolt.Options {
	o := &bolt.Options{Timeout: lockWait, NoFreelistSync: true, FreelistType: bolt.FreelistMapType, NoStatistics: true}
	if strconv.IntSize == 64 && runtime.GOOS != "windows" {
		// Address space, not memory and not file size: spares remapping, which waits for all readers. On Windows the file would grow to it.
		o.InitialMmapSize = 1 << 30
	}
	return o
}

// opening is a file on its way to being open for writing.
type opening struct {
	path string
	log  *zap.Logger

	db       *bolt.DB
	info     os.FileInfo // of the file that db has open and locked
	setAside string      // where a damaged file was put away
	fresh    bool        // there was nothing in the file
	lost     bool        // there was nothing in the file, where there had been
	restored time.Time   // restoredAt
}

// openFile opens the file for writing. With expected, a file that is not there, or empty, is a loss.
func openFile(path string, expected bool, log *zap.Logger) (*opening, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	defer readAhead(path)()
	unclean, err := hasMarker(path)
	if err != nil {
		return nil, err
	}
	o := &opening{path: path, log: log}
	if unclean {
		o.setAside, err = inspect(path, log)
	} else {
		o.setAside, err = guard(path, expected, log)
	}
	if err != nil {
		return nil, explain(err)
	}
	// The marker comes first: a page that goes bad after the check still ends the process (STORE.md 2.3). The next start then finds the marker and inspects the file.
	if err := putMarker(path); err != nil {
		return nil, err
	}
	err = o.begin()
	if err == nil {
		if o.lost = o.fresh && o.setAside == "" && (unclean || expected); o.lost {
			log.Error("session database is gone or empty, where there had been one; beginning anew, every user has to log in again")
		}
		return o, nil
	}
	if !unclean && !isPanic(err) && !errors.Is(err, berrors.ErrTimeout) && !errors.Is(err, errMoved) {
		// Nothing was written; a file that is not ours must not look like one that was left unclean.
		err = errors.Join(err, removeMarker(path))
	}
	return nil, explain(err)
}

// begin opens the file and makes it ready.
func (o *opening) begin() error {
	err := protect(func() error {
		if err := o.lock(); err != nil {
			return err
		}
		err := o.db.Update(func(tx *bolt.Tx) error {
			o.fresh = tx.Bucket(bucketNames[meta]) == nil
			return create(tx)
		})
		if err != nil {
			return err
		}
		if o.restored, err = restoredAt(o.db); err != nil {
			return err
		}
		if err := errors.Join(upgrade(o.db, o.log), putMarker(o.path), syncDir(filepath.Dir(o.path))); err != nil {
			return err
		}
		if err := removeTemps(o.path); err != nil {
			o.log.Warn("cannot remove unfinished copies of the session store", zap.Error(err))
		}
		if !compact(o.path, o.db, o.log) {
			return nil
		}
		old := o.db
		return errors.Join(o.lock(), old.Close(), syncDir(filepath.Dir(o.path)))
	})
	if err != nil && !isPanic(err) && o.db != nil { // after a panic a lock of db's may still be taken
		o.db.Close()
	}
	return err
}

// lock opens the file and makes sure that it still bears its name: another process may have replaced it while this one waited for its lock. Then it tries once more.
func (o *opening) lock() (err error) {
	for range 2 {
		var file *os.File
		opts := options()
		opts.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		}
		if o.db, err = bolt.Open(o.path, 0o600, opts); err != nil {
			return err
		}
		mine, err1 := file.Stat()
		now, err2 := os.Stat(o.path)
		if err1 == nil && err2 == nil && os.SameFile(mine, now) {
			o.info = mine
			return nil
		}
		err = errors.Join(errMoved, err1, err2, o.db.Close())
	}
	return err
}

// explain puts the likely cause in front of bbolt's terse errors.
func explain(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("the file is locked, probably by another running instance of this server: %w", err)
	case isDamage(err):
		return fmt.Errorf("the file is damaged or not a session store: %w", err)
	}
	return err
}

// syncDir makes the directory's entries durable: without it a new file could be gone after a power cut, with all that was written to it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // cannot sync directories
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
