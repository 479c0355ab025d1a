package wechatapp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// keyPath returns where the master key of a database is kept.
func keyPath(db string) string { return db + ".key" }

// masterKeyBeside returns the master key in the file beside db. The first start
// makes it. It refuses to make one for a database that exists: a new key would void
// all its tokens and session_keys.
func masterKeyBeside(db string) (key string, made bool, err error) {
	path := keyPath(db)
	removeKeyTemps(path)
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	if _, err := os.Stat(db); !errors.Is(err, fs.ErrNotExist) {
		return "", false, fmt.Errorf("%s is missing, and with it the key to %s: "+
			"restore the file, or set seal_key to the key it held, "+
			"or remove the database to log all users out", path, db)
	}
	if err := makeKeyFile(path); err != nil {
		return "", false, err
	}
	// Read back: another process may have been first, and its key counts.
	text, err = os.ReadFile(path)
	return strings.TrimSpace(string(text)), true, err
}

// warnOfOpenKey warns when other users can read or write the key.
func warnOfOpenKey(path string, log *zap.Logger) {
	info, err := os.Stat(path)
	const unknown = runtime.GOOS == "windows" // a mode says nothing about other users there
	if err != nil || info.Mode()&0o077 == 0 || unknown {
		return
	}
	log.Warn("other users can read the master key; run chmod 600 on the file",
		zap.String("file", path), zap.String("mode", fmt.Sprintf("%04o", info.Mode().Perm())))
}

const (
	// keyTemp and a number end the name of a key file that is being written.
	keyTemp = ".tmp-"

	// keyTempAge is the age at which the writer of such a file counts as dead:
	// another process may be in its first start at the same moment.
	keyTempAge = time.Minute
)

// removeKeyTemps removes the files of processes that died in their first start.
func removeKeyTemps(path string) {
	entries, _ := os.ReadDir(filepath.Dir(path)) // there may be none yet
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+keyTemp)
		if !ok || strings.Trim(number, "0123456789") != "" {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() &&
			time.Since(info.ModTime()) > keyTempAge {
			os.Remove(filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
}

// makeKeyFile writes a new key, for its owner only. The file is whole or absent at
// any instant. makeKeyFile keeps an existing file.
func makeKeyFile(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+keyTemp+"*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(keyring.NewMasterKey() + "\n")
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := name(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return bolt.SyncDir(dir)
}

// name gives a file its final name, or returns fs.ErrExist when another one has it. On
// a file system without hard links two first starts at once may both succeed.
func name(file, path string) error {
	err := os.Link(file, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, missing := os.Lstat(path); !errors.Is(missing, fs.ErrNotExist) {
		return fs.ErrExist
	}
	return os.Rename(file, path)
}
