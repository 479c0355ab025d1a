package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var _ store.Backuper = (*Store)(nil)

// Backup implements store.Backuper. It writes a file that Open opens and
// Restore puts in place.
//
// Backup first copies the file beside itself, at the speed of the disk: an open
// read transaction keeps bbolt from using pages again and from growing a large
// file, so it must not last as long as a slow w. It refuses when the copy would
// leave the logins no room, and makes one copy at a time.
func (s *Store) Backup(ctx context.Context, w io.Writer) (n int64, err error) {
	if n, err = s.sendCopy(ctx, w); err != nil {
		return n, fmt.Errorf("copying session store: %w", err)
	}
	// The backup is good, also when the disk has no room for its time. The next one may
	// begin meanwhile: its client has seen the end of this one.
	_ = s.write(ctx, func(t *tables) error {
		now := binary.LittleEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
		return t.bucket(meta).Put(keyBackup, now)
	})
	return n, nil
}

// tidyTime is what a copy waits for the one before, which its reader has whole while the
// disk still takes its file back.
const tidyTime = time.Second

// sendCopy makes the copy and writes it to w, one at a time.
func (s *Store) sendCopy(ctx context.Context, w io.Writer) (n int64, err error) {
	for began := time.Now(); !s.backup.TryLock(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > tidyTime {
			return 0, ErrBusy
		}
	}
	defer s.backup.Unlock()
	tmp, err := makeTemp(s.path)
	if err != nil {
		return 0, err
	}
	defer func() {
		tmp.Close()
		os.Remove(tmp.Name())
	}()
	if runtime.GOOS != "windows" {
		os.Remove(tmp.Name()) // now nothing stays behind, however this process ends
	}
	if err := s.copyTo(ctx, tmp); err != nil {
		return 0, err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	return io.Copy(w, guarded{ctx, nil, tmp})
}

// copyTo writes the file as it stands when the read transaction begins.
func (s *Store) copyTo(ctx context.Context, tmp *os.File) error {
	s.copying.Store(true)
	defer s.copying.Store(false)
	var failed error // of the copy, which says nothing about the store
	err := s.read(ctx, func(t *tables) error {
		if failed = checkRoom(s.path, t.tx.Size()); failed == nil {
			_, failed = t.tx.WriteTo(guarded{ctx, s.closing, tmp})
		}
		return nil
	})
	return errors.Join(err, failed)
}

// guarded is a file that refuses to be read or written when ctx has ended or
// stop is closed.
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

// tempSuffix and a number follow the name of the store in the name of an
// unfinished copy. Copies lie beside the store, so that a rename puts one in
// its place.
const tempSuffix = ".tmp-"

// makeTemp creates the file of a copy and gives it to the owner of the file at
// path, or else of its folder: root may act for a service.
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

// makeFolder creates the folder and its missing parents for the owner of the
// folder above.
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

// removeTemps removes the copies of processes that died. The caller holds the
// lock of the file, so no process makes a copy now.
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

// spareRoom is the room on the disk that a copy leaves for the logins meanwhile.
const spareRoom = 64 << 20

// checkRoom refuses a copy of the given size that would leave less than
// spareRoom.
func checkRoom(path string, size int64) error {
	dir := filepath.Dir(path)
	free, ok := freeRoom(dir)
	if ok && free-spareRoom < size {
		return fmt.Errorf("%w: %d MiB are free in %s, %d are needed",
			ErrRoom, free>>20, dir, (size+spareRoom)>>20)
	}
	return nil
}
