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

// openFile opens the file for writing. It returns where a damaged one was put away, if so.
func openFile(path string, log *zap.Logger) (db *bolt.DB, setAside string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, "", err
	}
	defer readAhead(path)()
	unclean, err := hasMarker(path)
	if err != nil {
		return nil, "", err
	}
	if unclean {
		if setAside, err = inspect(path, log); err != nil {
			return nil, "", explain(err)
		}
	}
	// The marker comes first: bbolt reads a damaged file in a goroutine of its own, whose panic ends the process (STORE.md 2.3). The next start then finds the marker and inspects the file.
	if err := putMarker(path); err != nil {
		return nil, setAside, err
	}
	err = protect(func() error {
		if db, err = lockFile(path); err != nil {
			return err
		}
		if err := db.Update(create); err != nil {
			return err
		}
		if err := errors.Join(upgrade(db, log), putMarker(path), syncDir(filepath.Dir(path))); err != nil {
			return err
		}
		if err := removeTemps(path); err != nil {
			log.Warn("cannot remove unfinished copies of the session store", zap.Error(err))
		}
		if !compact(path, db, log) {
			return nil
		}
		old := db
		db, err = lockFile(path)
		return errors.Join(err, old.Close(), syncDir(filepath.Dir(path)))
	})
	if err == nil {
		return db, setAside, nil
	}
	if errors.As(err, new(panicError)) {
		return nil, setAside, explain(err) // no Close: a lock may still be taken
	}
	if !unclean && !errors.Is(err, berrors.ErrTimeout) && !errors.Is(err, errMoved) {
		// Nothing was written; a file that is not ours must not look like one that was left unclean.
		err = errors.Join(err, removeMarker(path))
	}
	if db != nil {
		db.Close()
	}
	return nil, setAside, explain(err)
}

// lockFile opens the file and makes sure that it still bears its name: another process may have replaced it while this one waited for its lock. Then it tries once more.
func lockFile(path string) (db *bolt.DB, err error) {
	for range 2 {
		var file *os.File
		o := options()
		o.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		}
		if db, err = bolt.Open(path, 0o600, o); err != nil {
			return nil, err
		}
		mine, err1 := file.Stat()
		now, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, now) {
			return db, nil
		}
		err = errors.Join(errMoved, err1, err2, db.Close())
	}
	return nil, err
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
