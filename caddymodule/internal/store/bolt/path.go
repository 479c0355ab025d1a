package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

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

// missing returns an error when path leads to another file than the open one,
// or to none: the next start would lose all that is written meanwhile. A path
// that this user may not read proves nothing.
func (s *Store) missing(o *opening, path string) error {
	now, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission), err == nil && os.SameFile(o.info, now):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return fmt.Errorf("%w: %s is another file", errGone, path)
}

// reportMissing makes the committer notice a missing file; it then retries
// until the file is back.
func (s *Store) reportMissing(ctx context.Context) {
	o := s.open.Load()
	if o.fault.Load() == nil && s.missing(o, s.named) != nil {
		_ = s.write(ctx, func(*tables) error { return nil }) // the committer logs the outcome
	}
}
