package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Copies of the file are made beside it, so that they can take its place in one step.

// tempSuffix and a number follow the name of the store in the name of an unfinished copy.
const tempSuffix = ".tmp-"

// makeTemp makes the file of a copy. It belongs to who owns the file at path, or else the folder: root may do what is a service's.
func makeTemp(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+tempSuffix+"*")
	if err != nil {
		return nil, err
	}
	like := path
	if _, err := os.Stat(path); err != nil {
		like = dir
	}
	if err := giveTo(like, tmp.Name()); err != nil {
		return nil, errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
	}
	return tmp, nil
}

// makeFolder makes the folder, and those that it is to be in, for the owner of the one that is there.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	above := filepath.Dir(dir)
	if err := makeFolder(above); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return giveTo(above, dir)
}

// removeTemps removes what processes that died have left behind. It is called with the lock held, so that nobody is making a copy now.
func removeTemps(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+tempSuffix)
		if ok && strings.Trim(number, "0123456789") == "" {
			err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return err
}

// spareRoom is what a copy of the file must leave on the disk for the logins made meanwhile.
const spareRoom = 64 << 20

// checkRoom refuses a copy of the given size beside the file when that would leave less than spareRoom.
func checkRoom(path string, size int64) error {
	dir := filepath.Dir(path)
	free, ok := freeRoom(dir)
	if ok && free-spareRoom < size {
		return fmt.Errorf("%w: %d MiB are free in %s, %d are needed", ErrRoom, free>>20, dir, (size+spareRoom)>>20)
	}
	return nil
}
