package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var _ store.Backuper = (*Store)(nil)

// Backup implements store.Backuper. What it writes is a file that Open opens and Restore puts in place.
//
// The copy is first made beside the file, at the speed of the disk, and then handed to w: while a read transaction is open no page is used again and a large file cannot grow without waiting
// for it, and neither must depend on how fast somebody reads. It takes as much room on the disk as the file for as long, and is refused when that would leave none for the logins. Only one
// backup is made at a time.
func (s *Store) Backup(ctx context.Context, w io.Writer) (n int64, err error) {
	const doing = "copying session store"
	if !s.backup.TryLock() {
		return 0, fmt.Errorf("%s: %w", doing, ErrBusy)
	}
	defer s.backup.Unlock()
	tmp, err := makeTemp(s.path)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	defer func() {
		tmp.Close()
		os.Remove(tmp.Name())
	}()
	if runtime.GOOS != "windows" {
		os.Remove(tmp.Name()) // from now on nothing is left behind, however this process ends
	}
	if err := s.copyTo(ctx, tmp); err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	if n, err = io.Copy(w, guarded{ctx, nil, tmp}); err != nil {
		return n, fmt.Errorf("%s: %w", doing, err)
	}
	return n, nil
}

// copyTo writes the file as it stands at the beginning of a read transaction.
func (s *Store) copyTo(ctx context.Context, tmp *os.File) error {
	var failed error // of the copy's own making, which says nothing about the store
	err := s.read(ctx, func(t *tables) error {
		if failed = checkRoom(s.path, t.tx.Size()); failed == nil {
			_, failed = t.tx.WriteTo(guarded{ctx, s.closing, tmp})
		}
		return nil
	})
	return errors.Join(err, failed)
}

// guarded is a file that is not read or written any more when ctx has ended or stop is closed.
type guarded struct {
	ctx  context.Context
	stop <-chan struct{}
	file *os.File
}

func (g guarded) err() error {
	select {
	case <-g.ctx.Done():
		return context.Cause(g.ctx)
	case <-g.stop:
		return errClosed
	default:
		return nil
	}
}

func (g guarded) Read(p []byte) (int, error) {
	if err := g.err(); err != nil {
		return 0, err
	}
	return g.file.Read(p)
}

func (g guarded) Write(p []byte) (int, error) {
	if err := g.err(); err != nil {
		return 0, err
	}
	return g.file.Write(p)
}
