package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"
)

// lockWait is how long Open waits for the lock. 0 would wait for ever.
const lockWait = time.Second

// options returns the settings of docs/stores.md#bbolt-settings. NoFreelistSync
// makes commits several times cheaper, at the price of a walk over the file at
// every open and after every failed commit.
func options() *bolt.Options {
	o := &bolt.Options{
		Timeout:        lockWait,
		NoFreelistSync: true,
		FreelistType:   bolt.FreelistMapType,
		NoStatistics:   true,
	}
	if strconv.IntSize == 64 && runtime.GOOS != "windows" {
		// Address space, not memory and not file size: bbolt need not remap, which
		// waits for all readers. On Windows the file would grow to it.
		o.InitialMmapSize = 1 << 30
	}
	return o
}

// opening is a file that is being opened for writing.
type opening struct {
	path string
	log  *zap.Logger

	db       *bolt.DB
	info     os.FileInfo // of the file that db has open and locked
	setAside string      // new path of a damaged file
	fresh    bool        // the file was empty
	lost     bool        // the file was empty, where a store had been
	restored time.Time   // restoredAt
}

// openFile opens the file for writing. With expected, a missing or empty file
// counts as lost.
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
		o.setAside, err = verifyUnclean(path, log)
	} else {
		o.setAside, err = verifyClosed(path, expected, log)
	}
	if err != nil {
		return nil, explain(err)
	}
	// The marker comes first: a page that goes bad now ends the process. Then the
	// next start finds the marker and verifies the file (docs/stores.md#bbolt-damage).
	if err := putMarker(path); err != nil {
		return nil, err
	}
	err = o.begin()
	if err == nil {
		if o.lost = o.fresh && o.setAside == "" && (unclean || expected); o.lost {
			log.Error("session database is gone or empty, where there had been one; " +
				"beginning anew, every user has to log in again")
		}
		return o, nil
	}
	written := isPanic(err) || errors.Is(err, berrors.ErrTimeout) || errors.Is(err, errMoved)
	if !unclean && !written {
		// A file that is not a session store must not look like an unclean one.
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
		dir := filepath.Dir(o.path)
		err = errors.Join(upgrade(o.db, o.log), putMarker(o.path), syncDir(dir))
		if err != nil {
			return err
		}
		if err := removeTemps(o.path); err != nil {
			o.log.Warn("cannot remove unfinished copies of the session store", zap.Error(err))
		}
		if !compact(o.path, o.db, o.log) {
			return nil
		}
		old := o.db
		return errors.Join(o.lock(), old.Close(), syncDir(dir))
	})
	if err != nil && !isPanic(err) && o.db != nil { // a panic may have left a lock taken
		o.db.Close()
	}
	return err
}

// lock opens the file and checks that it still bears its name: another process
// may have replaced it during the wait for the lock. Then lock tries once more.
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

// The marker is a file beside the store while the store is open for writing. An
// Open that finds one knows that the last process died.

func markerPath(path string) string { return path + ".dirty" }

func hasMarker(path string) (bool, error) {
	_, err := os.Stat(markerPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func putMarker(path string) error {
	f, err := os.OpenFile(markerPath(path), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func removeMarker(path string) error {
	if err := os.Remove(markerPath(path)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// explain puts the likely cause in front of bbolt's terse errors.
func explain(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("the file is locked, probably by another running instance "+
			"of this server: %w", err)
	case isDamage(err):
		return fmt.Errorf("the file is damaged or not a session store: %w", err)
	}
	return err
}

// syncDir makes the entries of the directory durable: without it, a power cut
// could take a new file away.
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
