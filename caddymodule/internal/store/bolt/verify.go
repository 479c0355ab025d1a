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

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Report is the result of Check for a file that is sound as a whole.
type Report struct {
	Stats   store.Stats
	Damaged int64 // unreadable records of sessions and users; they count as absent
}

// Check reads the whole file at path and every record in it, and changes
// nothing. The error says that the file is not a session store, is damaged, or
// is open in a running gate.
func Check(path string) (Report, error) {
	defer readAhead(path)()
	var r Report
	_, err := verify(path, func(tx *bolt.Tx, n census) error {
		if _, err := checkSchema(tx); err != nil {
			return err
		}
		t := &tables{tx: tx, damaged: func(string, []byte) { r.Damaged++ }}
		r.Stats = store.Stats{
			Sessions: n.rows[sess], Users: n.rows[user], LastExpiry: t.lastExpiry(),
			Bytes: tx.Size(), FreeBytes: max(0, tx.Size()-n.used),
		}
		return t.readAll()
	})
	if err != nil {
		return Report{}, fmt.Errorf("checking session store %s: %w", path, explain(err))
	}
	return r, nil
}

// readAll decodes every record.
func (t *tables) readAll() error {
	err := t.bucket(sess).ForEach(func(k, _ []byte) error {
		if len(k) != len(store.Digest{}) {
			t.damaged("session", k)
			return nil
		}
		t.getSession(store.Digest(k))
		return nil
	})
	return errors.Join(err, t.bucket(user).ForEach(func(k, _ []byte) error {
		t.getUserByKey(k)
		return nil
	}))
}

// verify reads every page of the file in this goroutine, which can catch a
// panic, and then calls f in the same transaction with what it counted. It waits
// up to lockWait for a process that has the file open for writing.
//
// It finds each page that is unreadable, out of order or in a circle. It does
// not find an older state of a page in its own place.
func verify(path string, f func(*bolt.Tx, census) error) (os.FileInfo, error) {
	return viewFile(path, func(tx *bolt.Tx, file *os.File, info os.FileInfo) error {
		n, err := verifyPages(tx, file, info)
		if err != nil {
			return err
		}
		if err := tx.ForEach(verifyOrder); err != nil {
			return err
		}
		return f(tx, n)
	})
}

// verifyUnclean verifies the file after an unclean stop. It renames a damaged
// one; then there is no file at the path.
func (o *opening) verifyUnclean() error {
	info, err := verify(o.path, func(_ *bolt.Tx, n census) error {
		o.counted = n
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errEmpty):
		return nil
	case err == nil:
		o.log.Warn("session store was not closed properly; its file has been checked and is sound")
		return nil
	case !isDamage(err):
		return err
	}
	o.setAside, err = putAway(o.path, info, err, o.log)
	return err
}

// verifyClosed verifies the pages of a file that was closed properly, but may
// have been damaged since, as by a copy that broke off. bbolt reads the pages in
// a goroutine of its own when it opens a file for writing, and a bad one ends the
// process there (docs/stores.md#bbolt-damage).
//
// It leaves to bbolt a file that bbolt refuses without a panic, unless expected
// says that it was a session store.
func (o *opening) verifyClosed(expected bool) error {
	reading := false
	info, err := viewFile(o.path, func(tx *bolt.Tx, file *os.File, info os.FileInfo) (err error) {
		reading = true
		o.counted, err = verifyPages(tx, file, info)
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return err
	case err == nil, !reading && !(expected && isDamage(err)):
		return nil
	case !isDamage(err):
		return err
	}
	o.setAside, err = putAway(o.path, info, err, o.log)
	return err
}

// viewFile opens the file for reading and calls f in this goroutine, which can
// catch a panic. It waits up to lockWait for a process that has the file open for
// writing.
func viewFile(
	path string, f func(*bolt.Tx, *os.File, os.FileInfo) error,
) (info os.FileInfo, err error) {
	var file *os.File
	o := &bolt.Options{Timeout: lockWait, ReadOnly: true}
	o.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		if file, err = os.OpenFile(name, flag, mode); err == nil {
			info, err = file.Stat()
		}
		switch {
		case err != nil:
		case info.Size() == 0:
			err = errEmpty // bbolt would try to create a database, and fail on the mode
		case info.Size() < 2*int64(os.Getpagesize()):
			// bbolt's own error for a missing header tells nothing apart.
			err = fmt.Errorf("%w: %d bytes are left", errDamage, info.Size())
		}
		return file, err
	}
	defer func() {
		if file != nil {
			file.Close() // bbolt leaves it open and locked when it panics
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

// verifyPages reports damage when the file lacks its end, or its pages form no
// tree.
func verifyPages(tx *bolt.Tx, file *os.File, info os.FileInfo) (census, error) {
	if info.Size() < tx.Size() { // bbolt never shrinks a file
		return census{}, fmt.Errorf("%w: %d bytes of %d are left",
			errDamage, info.Size(), tx.Size())
	}
	return checkPages(tx, file)
}

// verifyOrder reads every page of a bucket. Keys that do not ascend mean pages
// that are shared, lost or in a circle.
func verifyOrder(name []byte, b *bolt.Bucket) error {
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

// putAway renames the damaged file, unless another process has replaced it.
func putAway(
	path string, verified os.FileInfo, cause error, log *zap.Logger,
) (setAside string, err error) {
	now, err := os.Stat(path)
	if err != nil || verified != nil && !os.SameFile(now, verified) {
		cause = fmt.Errorf("the file was replaced while it was being checked: %w", cause)
		return "", errors.Join(cause, err)
	}
	to := path + ".damaged-" + stamp()
	if err := os.Rename(path, to); err != nil {
		return "", err
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return "", err
	}
	log.Error("session store is damaged and was set aside; "+
		"starting with an empty one, every user has to log in again",
		zap.String("set_aside", to), zap.Error(cause))
	return to, nil
}

// readAhead reads the file from front to back while the caller reads its pages
// in the order of the tree, so that the disk reads in one go. The returned
// function waits for the end.
func readAhead(path string) (wait func()) {
	if runtime.GOOS == "windows" {
		return func() {} // an open file cannot be renamed there
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.Open(path)
		if err != nil {
			return // the caller meets the same error
		}
		defer f.Close()
		for buf := make([]byte, 1<<20); err == nil; {
			_, err = f.Read(buf)
		}
	}()
	return func() { <-done }
}

// isDamage tells damage from a failure to read.
func isDamage(err error) bool {
	return errors.Is(err, errDamage) || errors.Is(err, berrors.ErrInvalid) ||
		errors.Is(err, berrors.ErrChecksum) || isPanic(err)
}
