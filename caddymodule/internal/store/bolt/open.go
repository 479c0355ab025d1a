package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
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
	}
	if strconv.IntSize == 64 && runtime.GOOS != "windows" {
		// Address space, not memory and not file size: bbolt need not remap, which
		// waits for all readers. On Windows the file would grow to it.
		o.InitialMmapSize = 1 << 30
	}
	return o
}

// opening is the file from the time when it is opened and verified until it is
// closed. The store has another one after Reopen.
type opening struct {
	path string
	log  *zap.Logger

	db       *bolt.DB
	file     *os.File    // db's own
	info     os.FileInfo // of the file that db has open and locked
	setAside string      // new path of a damaged file
	fresh    bool        // the file was empty
	lost     bool        // the file was empty, where a store had been
	restored time.Time   // restoredAt
	counted  census      // when the file was opened

	// old: the file is as an older program left it, until the first write. A start
	// that is refused leaves it to that program (docs/stores.md#bbolt-settings).
	old atomic.Bool

	ledger
	fault atomic.Pointer[fault] // nil while commits succeed
	blind atomic.Bool           // no transaction can begin any more
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
		err = o.verifyUnclean()
	} else {
		err = o.verifyClosed(expected)
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
		o.lost = o.fresh && o.setAside == "" && (unclean || expected)
		switch {
		case o.lost:
			log.Error("session database is gone or empty, where there had been one; " +
				"beginning anew, every user has to log in again")
		case o.fresh && o.setAside == "":
			log.Info("session store is new")
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
		if err := o.db.View(o.count); err != nil {
			return err
		}
		old, err := o.isOld()
		if err != nil {
			return err
		}
		if old {
			o.old.Store(true)
			if o.restored, err = restoredAt(o.db); err != nil {
				return err
			}
			return o.db.View(o.start)
		}
		err = o.db.Update(func(tx *bolt.Tx) error {
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
		err = errors.Join(upgrade(o.db, o.db.Update, o.log), putMarker(o.path), SyncDir(dir))
		if err != nil {
			return err
		}
		if err := removeTemps(o.path); err != nil {
			o.log.Warn("cannot remove unfinished copies of the session store", zap.Error(err))
		}
		if o.compact() {
			old := o.db
			if err := errors.Join(o.lock(), old.Close(), SyncDir(dir)); err != nil {
				return err
			}
		}
		return o.db.View(o.start)
	})
	if err != nil && !isPanic(err) && o.db != nil { // a panic may have left a lock taken
		o.db.Close()
	}
	return err
}

// count counts the content of a file that is new, or that another process has
// changed since it was verified.
func (o *opening) count(tx *bolt.Tx) (err error) {
	if tx.ID() != o.counted.txid {
		o.counted, err = checkPages(tx, o.file)
	}
	return err
}

// lock opens the file and checks that it still bears its name: another process
// may have replaced it during the wait for the lock. Then lock tries once more.
func (o *opening) lock() (err error) {
	for range 2 {
		opts := options()
		opts.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			o.file, err = os.OpenFile(name, flag, mode)
			return o.file, err
		}
		if o.db, err = bolt.Open(o.path, 0o600, opts); err != nil {
			return err
		}
		mine, err1 := o.file.Stat()
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

// SyncDir makes the entries of the directory durable: without it, a power cut
// could take a new file away.
func SyncDir(dir string) error {
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

// Locate returns the absolute path of the file that path names, symbolic links
// followed. Copies and markers belong beside the file, not beside a link.
func Locate(path string) (string, error) {
	_, at, err := locate(path)
	return at, err
}

// locate returns path made absolute, and the place where it leads.
func locate(path string) (named, at string, err error) {
	if named, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	at, err = follow(named)
	return named, at, err
}

// follow resolves symbolic links. The file and its folder may be missing.
func follow(path string) (string, error) {
	at, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return at, err
	}
	to, err := os.Readlink(path)
	if err != nil { // not a link: the file is missing, or its folder
		if filepath.Dir(path) == path {
			return path, nil
		}
		dir, err := follow(filepath.Dir(path))
		return filepath.Join(dir, filepath.Base(path)), err
	}
	if !filepath.IsAbs(to) {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		to = filepath.Join(dir, to)
	}
	return follow(to)
}

// awaitPause is the pause between two looks at the lock.
const awaitPause = 20 * time.Millisecond

// awaitFree waits until no other process has the file open, at most for d, and
// logs the wait in one line. It touches nothing: with the marker of a process
// that lives on, Open would verify the whole file.
func awaitFree(path string, d time.Duration, log *zap.Logger) {
	began := time.Now()
	for told := false; time.Since(began) < d && InUse(path); time.Sleep(awaitPause) {
		if !told {
			log.Info("session database is in use; waiting for its process to end",
				zap.Duration("at_most", d))
			told = true
		}
	}
}

// InUse reports whether another process has the file open for writing. It touches
// nothing.
func InUse(path string) bool {
	err := protect(func() error {
		db, err := bolt.Open(path, 0, &bolt.Options{Timeout: 1, ReadOnly: true})
		if err != nil {
			return err
		}
		return db.Close()
	})
	return errors.Is(err, berrors.ErrTimeout)
}
