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

// Restore puts what Backup wrote in the place of the store at path and returns where the one that was there has been put away, or "". It refuses what Check refuses, and it refuses while a gate
// has the store open. The new file belongs to the owner of the old one, or of the folder, and a symbolic link stays one. Until the last step the old store is in its place, from then on the new one: there is no moment at which a gate that starts would find none and begin anew.
//
// A restored store knows nothing of what happened after the backup: logins made since are gone, and sessions ended since are back.
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
		release() // a file that is open cannot be replaced there
	}
	return exchange(tmp.Name(), path)
}

// noteRestored writes down when a backup takes the place of the file. Uses since the backup are not in it.
func noteRestored(path string, now time.Time) error {
	return protect(func() error {
		db, err := bolt.Open(path, 0, &bolt.Options{Timeout: lockWait, NoFreelistSync: true})
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

// restoredAt returns the time that noteRestored wrote down, or the zero time.
func restoredAt(db *bolt.DB) (at time.Time, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		if v := tx.Bucket(bucketNames[meta]).Get(keyRestored); len(v) == 8 {
			at = time.UnixMilli(int64(binary.LittleEndian.Uint64(v)))
		}
		return nil
	})
	return at, err
}

// sinceBackup returns until when a session may have been used of which the backup says usedUntil: up to one
// interval longer, but not after the backup was put in place. So no session in use ends because of it.
func sinceBackup(usedUntil, restored time.Time) time.Time {
	if !usedUntil.Before(restored) {
		return usedUntil
	}
	if longer := usedUntil.Add(store.MaxTouchInterval); longer.Before(restored) {
		return longer
	}
	return restored
}

// lockOut keeps gates from opening the file at path until release is called. A file that bbolt cannot read is left unlocked: no gate has it open, and none opens it before putting it away.
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

// exchange puts the file tmp at path and returns where it put the one that was there. It overwrites nothing: a file that has come to be at path unlocked in the meantime stays and is an error.
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
	return setAside, syncDir(filepath.Dir(path))
}

// stamp is the present moment as part of a file's name.
func stamp() string { return time.Now().UTC().Format("20060102T150405.000Z") }
