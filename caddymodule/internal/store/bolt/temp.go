package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Copies of the file are made beside it, so that they can take its place in one step.

// tempSuffix and a number follow the name of the store in the name of an unfinished copy.
const tempSuffix = ".tmp-"

func makeTemp(path string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(path), filepath.Base(path)+tempSuffix+"*")
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
