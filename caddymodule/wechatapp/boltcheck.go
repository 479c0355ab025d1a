package wechatapp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// CheckPlace looks whether a start can use the database file, and makes nothing. The
// start itself verifies what the file holds.
func (s *BoltStore) CheckPlace() (state string, err error) {
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.checkFolder()
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a file", s.path)
	}
	file, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	if err := file.Close(); err != nil {
		return "", err
	}
	if bolt.InUse(s.path) {
		return "in use by a running process", nil
	}
	return "can be read and written", nil
}

// checkFolder looks whether a start can make the file. It makes and removes a file in
// the nearest folder that exists.
func (s *BoltStore) checkFolder() (string, error) {
	dir := filepath.Dir(s.path)
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	file, err := os.CreateTemp(dir, ".wxgate-check-")
	if err != nil {
		return "", fmt.Errorf("the first start could not make the database: %w", err)
	}
	if err := errors.Join(file.Close(), os.Remove(file.Name())); err != nil {
		return "", err
	}
	return "there is none yet: the first start makes it", nil
}

// CheckKey looks for the master key beside the database, and makes none.
func (s *BoltStore) CheckKey() (state string, err error) {
	path := keyPath(s.path)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
			return "there is none yet: the first start makes it; back it up then", nil
		}
		return "", fmt.Errorf("%s is missing, and the database cannot be used without it: "+
			"restore the file", path)
	}
	if err != nil {
		return "", err
	}
	if _, err := keyring.Parse(string(text)); err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return path + " holds it; keep a copy elsewhere", nil
}
