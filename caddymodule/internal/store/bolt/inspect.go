package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"
)

// The marker is a file beside the store that exists while it is open for writing: found at open, it tells that the last process died.

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

// inspect reads the whole file after an unclean stop. A damaged file is renamed and its new path returned; then there is none at path.
func inspect(path string, log *zap.Logger) (setAside string, err error) {
	info, err := examine(path, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errEmpty):
		return "", nil
	case err == nil:
		log.Warn("session store was not closed properly; its file has been checked and is sound")
		return "", nil
	case !isDamage(err):
		return "", err
	}
	return putAway(path, info, err, log)
}

// examine reads every page of the file, in this goroutine, where a panic can be caught, and then calls f, if any, in the same transaction. It waits for no more than lockWait for another process
// that has the file open for writing.
//
// It finds every page that cannot be read, is out of order or leads in a circle, not all damage: an older state of a page in its own place looks sound.
func examine(path string, f func(*bolt.Tx) error) (os.FileInfo, error) {
	return look(path, lockWait, func(tx *bolt.Tx, file *os.File, info os.FileInfo) error {
		if err := checkFile(tx, file, info); err != nil {
			return err
		}
		if err := tx.ForEach(walk); err != nil || f == nil {
			return err
		}
		return f(tx)
	})
}

// putAway renames the damaged file, unless another process has done so in the meantime.
func putAway(path string, inspected os.FileInfo, cause error, log *zap.Logger) (string, error) {
	if now, err := os.Stat(path); err != nil || inspected != nil && !os.SameFile(now, inspected) {
		return "", errors.Join(fmt.Errorf("the file was replaced while it was being checked: %w", cause), err)
	}
	to := path + ".damaged-" + stamp()
	if err := os.Rename(path, to); err != nil {
		return "", err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return "", err
	}
	log.Error("session store is damaged and was set aside; starting with an empty one, every user has to log in again", zap.String("set_aside", to), zap.Error(cause))
	return to, nil
}

// readAhead reads the file from front to back, beside who reads its pages in the order of the tree, so that they come from memory and not one by one from the disk. The returned function waits
// for its end.
func readAhead(path string) (wait func()) {
	if runtime.GOOS == "windows" {
		return func() {} // where a file that is open cannot be put away
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.Open(path)
		if err != nil {
			return // whoever needs the file will say so
		}
		defer f.Close()
		for buf := make([]byte, 1<<20); err == nil; {
			_, err = f.Read(buf)
		}
	}()
	return func() { <-done }
}

// walk reads every page of a bucket. Keys that do not ascend mean pages that are shared, lost or in a circle.
func walk(name []byte, b *bolt.Bucket) error {
	var last []byte
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("%w: keys of bucket %q are out of order", errDamage, name)
		}
		last = k
	}
	return nil
}

// isDamage tells damage from failures to look.
func isDamage(err error) bool {
	return errors.Is(err, errDamage) || errors.Is(err, berrors.ErrInvalid) || errors.Is(err, berrors.ErrChecksum) || errors.As(err, new(panicError))
}
