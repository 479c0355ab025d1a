package bolt

import (
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// noWait asks for a lock once. 0 would wait for ever.
const noWait = time.Nanosecond

// guard looks at a file that was closed properly, but may have been damaged since, as by a copy that was broken off: bbolt reads the pages in a goroutine of its own when it opens a file for
// writing, and a bad one ends the process there (STORE.md 2.3). A damaged file is renamed and its new path returned. What bbolt finds out without harm, such as a file that is no database, is left
// to it, unless expected says that it had been one of ours, and so is a file that another process has open.
func guard(path string, expected bool, log *zap.Logger) (setAside string, err error) {
	reading := false
	info, err := look(path, noWait, func(tx *bolt.Tx, file *os.File, info os.FileInfo) error {
		reading = true
		return checkFile(tx, file, info)
	})
	switch {
	case err == nil, !reading && !(expected && isDamage(err)):
		return "", nil
	case !isDamage(err):
		return "", err
	}
	return putAway(path, info, err, log)
}

// look opens the file for reading, if it has a page for each of bbolt's two headers, and calls f in this goroutine, where a panic can be caught. It waits for no more than the given time for
// another process that has the file open for writing.
func look(path string, wait time.Duration, f func(*bolt.Tx, *os.File, os.FileInfo) error) (info os.FileInfo, err error) {
	var file *os.File
	o := &bolt.Options{Timeout: wait, ReadOnly: true, OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
		if file, err = os.OpenFile(name, flag, mode); err == nil {
			info, err = file.Stat()
		}
		switch {
		case err != nil:
		case info.Size() == 0:
			err = errEmpty // bbolt would try to make a new database of it, which it may not do read-only
		case info.Size() < 2*int64(os.Getpagesize()):
			err = fmt.Errorf("%w: %d bytes are left", errDamage, info.Size()) // bbolt's own error is one of a kind
		}
		return file, err
	}}
	defer func() {
		if file != nil {
			file.Close() // bbolt leaves it open, and locked, when it panics; else this is a second close, which does nothing
		}
	}()
	err = protect(func() error {
		db, err := bolt.Open(path, 0, o)
		if err != nil {
			return err
		}
		defer db.Close()
		return db.View(func(tx *bolt.Tx) error { return f(tx, file, info) })
	})
	return info, err
}

// checkFile reports damage when the file lacks its end, or its pages are no tree.
func checkFile(tx *bolt.Tx, file *os.File, info os.FileInfo) error {
	if info.Size() < tx.Size() { // bbolt never shrinks a file
		return fmt.Errorf("%w: %d bytes of %d are left", errDamage, info.Size(), tx.Size())
	}
	return checkPages(tx, file)
}

func isPanic(err error) bool { return errors.As(err, new(panicError)) }
