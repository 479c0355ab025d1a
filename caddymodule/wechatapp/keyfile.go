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
)

// keyPath returns where the master key of a database is kept.
func keyPath(db string) string { return db + ".key" }

// masterKeyBeside returns the master key kept in the file beside db, and makes
// it on the first start. It refuses to make a new one for a database that
// exists: every token in it would be void and every session_key unreadable,
// without anybody having decided so.
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
		return "", false, fmt.Errorf(
			"%s is missing, and with it the key to %s: restore the file, or set seal_key to the key it held, or remove the database to log everybody out",
			path,
			db,
		)
	}
	if err := makeKeyFile(path); err != nil {
		return "", false, err
	}
	// Read back: another process may have been first, and its key is then the one.
	text, err = os.ReadFile(path)
	return strings.TrimSpace(string(text)), true, err
}

// warnOfOpenKey says so when others than the owner may read or write the key.
func warnOfOpenKey(path string, log *zap.Logger) {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&0o077 == 0 ||
		runtime.GOOS == "windows" { // where a mode says nothing about others
		return
	}
	log.Warn(
		"the master key is open to others than its owner; run chmod 600 on the file",
		zap.String("file", path),
		zap.String("mode", fmt.Sprintf("%04o", info.Mode().Perm())),
	)
}

const (
	// keyTemp and a number follow the name of the key file in the name of one
	// that is being written.
	keyTemp = ".tmp-"

	// keyTempAge is the age from which a process that was writing such a file
	// counts as dead: another may be in its first start at the same moment.
	keyTempAge = time.Minute
)

// removeKeyTemps removes what processes that died in their first start have
// left behind, as far as it can: nothing depends on it.
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

// makeKeyFile writes a new key so that the file either is not there or is
// whole, readable by its owner only. An existing file is left alone.
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
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // cannot sync directories
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
