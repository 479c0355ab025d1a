package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// masterKeyBeside returns the master key kept in the file db+".key", and makes it on the first start. It refuses to make a new one for a database that exists: every token in it would be
// void and every session_key unreadable, without anybody having decided so.
func masterKeyBeside(db string) (string, error) {
	path := db + ".key"
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if _, err := os.Stat(db); !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s is missing, and with it the key to %s: restore the file, or set seal_key to the key it held, or remove the database to log everybody out", path, db)
	}
	if err := makeKeyFile(path); err != nil {
		return "", err
	}
	// Read back: another process may have been first, and its key is then the one.
	text, err = os.ReadFile(path)
	return strings.TrimSpace(string(text)), err
}

// makeKeyFile writes a new key so that the file either is not there or is whole, readable by its owner only. An existing file is left alone.
func makeKeyFile(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(session.NewMasterKey() + "\n")
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
