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

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

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

// Restore puts a backup in the place of the store at path and returns the new
// path of the store that was there, or "". It refuses what Check refuses, and
// while a gate has the store open. The new file belongs to the owner of the old
// one, or of the folder. A symbolic link stays one.
//
// A gate that starts meanwhile finds the old store or the new one, never none.
// The backup lacks later logins, and sessions that ended later are back.
func Restore(from io.Reader, path string) (setAside string, err error) {
	_, at, err := locate(path)
	if err == nil {
		setAside, err = restore(from, at)
	}
	if err != nil {
		return "", fmt.Errorf("restoring session store %s: %w", path, err)
	}
	return setAside, nil
}

func restore(from io.Reader, path string) (setAside string, err error) {
	if err := makeFolder(filepath.Dir(path)); err != nil {
		return "", err
	}
	release, err := lockOut(path)
	if err != nil {
		return "", explain(err)
	}
	defer release()
	tmp, err := makeTemp(path)
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, from)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return "", err
	}
	if _, err := Check(tmp.Name()); err != nil {
		return "", err
	}
	if err := noteRestored(tmp.Name(), time.Now()); err != nil {
		return "", err
	}
	if runtime.GOOS == "windows" {
		release() // an open file cannot be replaced there
	}
	return exchange(tmp.Name(), path)
}

// noteRestored records the time of the restore: the backup does not know later
// uses of its sessions.
func noteRestored(path string, now time.Time) error {
	return protect(func() error {
		o := &bolt.Options{Timeout: lockWait, NoFreelistSync: true}
		db, err := bolt.Open(path, 0, o)
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bolt.Tx) error {
			v := binary.LittleEndian.AppendUint64(nil, uint64(now.UnixMilli()))
			return tx.Bucket(bucketNames[meta]).Put(keyRestored, v)
		})
		return errors.Join(err, db.Close())
	})
}

// restoredAt returns the time that noteRestored recorded, or the zero time.
func restoredAt(db *bolt.DB) (at time.Time, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		if v := tx.Bucket(bucketNames[meta]).Get(keyRestored); len(v) == 8 {
			at = time.UnixMilli(int64(binary.LittleEndian.Uint64(v)))
		}
		return nil
	})
	return at, err
}

// sinceBackup adds the uses that a backup may lack to its usedUntil: one
// interval, but not beyond the restore. So a restore ends no session in use.
func sinceBackup(usedUntil, restored time.Time) time.Time {
	if !usedUntil.Before(restored) {
		return usedUntil
	}
	if longer := usedUntil.Add(store.MaxTouchInterval); longer.Before(restored) {
		return longer
	}
	return restored
}

// lockOut keeps gates from opening the file until release is called. It leaves
// an unreadable file unlocked: no gate has it open, and none opens it without
// setting it aside first.
func lockOut(path string) (release func(), err error) {
	var db *bolt.DB
	err = protect(func() (err error) {
		db, err = bolt.Open(path, 0, &bolt.Options{Timeout: lockWait, ReadOnly: true})
		return err
	})
	switch {
	case err == nil:
		return func() { db.Close() }, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, err
	}
	return func() {}, nil
}

// exchange puts the file tmp at path and returns the new path of the file that
// was there. It overwrites nothing: a file that appears at path meanwhile is an
// error.
func exchange(tmp, path string) (setAside string, err error) {
	setAside = path + ".replaced-" + stamp()
	err = os.Link(path, setAside)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		setAside, err = "", os.Link(tmp, path)
	case err == nil:
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return "", err
	}
	return setAside, SyncDir(filepath.Dir(path))
}

// stamp is the present time as part of a file's name.
func stamp() string { return time.Now().UTC().Format("20060102T150405.000Z") }
