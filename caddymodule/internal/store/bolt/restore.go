package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

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
