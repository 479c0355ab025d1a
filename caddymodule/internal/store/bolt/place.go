package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Locate returns where the file is, or will be, that path names: absolute, symbolic links followed. What is made beside the file and takes its place belongs there, not beside a link.
func Locate(path string) (string, error) {
	_, at, err := locate(path)
	return at, err
}

// locate returns path as it is named, absolute, and where it leads.
func locate(path string) (named, at string, err error) {
	if named, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	at, err = follow(named)
	return named, at, err
}

// follow follows symbolic links as far as there are any: neither the file nor its folder need be there.
func follow(path string) (string, error) {
	at, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return at, err
	}
	to, err := os.Readlink(path)
	if err != nil { // no link, but what is not there, or in what is not there
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

// missing returns an error when path leads to another file than the one that is open, or to none: what is written then is lost with the next start. Where it may not be looked, the file may
// well be.
func (s *Store) missing(path string) error {
	now, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission), err == nil && os.SameFile(s.file, now):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return fmt.Errorf("%w: %s is another file", errGone, path)
}

// watch has the committer find out when the file is missing: it tries again until the file is back.
func (s *Store) watch(ctx context.Context) {
	if s.fault.Load() == nil && s.missing(s.named) != nil {
		// The committer logs what becomes of it.
		_ = s.write(ctx, func(*tables) error { return nil })
	}
}
