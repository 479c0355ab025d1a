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

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

func init() { caddy.RegisterModule(new(BoltStore)) }

// BoltStore keeps the sessions in one file on this machine. It is the default. A
// login is on the disk before the gate answers it. One process at a time can open
// the file.
type BoltStore struct {
	// The database file. The gate makes a missing folder. Without `seal_key` the
	// master key is in a file beside it with the suffix `.key`; a restore needs both.
	// Default: `wxgate/sessions.db` under Caddy's data directory. May contain
	// placeholders.
	Path string `json:"path,omitempty"`

	// Consents to a reload that puts an empty store in the place of one with sessions,
	// which logs all users out. Without it such a reload is refused.
	New bool `json:"new,omitempty"`

	path     string
	identity string
	newKey   bool // MasterKey made it
}

// CaddyModule returns the Caddy module information.
func (BoltStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "wechat.stores.bolt",
		New: func() caddy.Module { return new(BoltStore) },
	}
}

// Provision settles the path.
func (s *BoltStore) Provision(caddy.Context) error {
	path := s.Path
	if path == "" {
		path = filepath.Join(caddy.AppDataDir(), "wxgate", "sessions.db")
	}
	path, err := caddy.NewReplacer().ReplaceOrErr(path, true, true)
	if err != nil {
		return fmt.Errorf("resolving path of bolt store: %w", err)
	}
	if s.path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("resolving path of bolt store: %w", err)
	}
	if s.identity, err = bolt.Locate(s.path); err != nil {
		s.identity = s.path // Open returns the error
	}
	return nil
}

// Identity returns the cleaned absolute path of the file, symbolic links followed.
func (s *BoltStore) Identity() string { return "bolt:" + s.identity }

// lockPatience bounds how long a start waits for the process before to give its
// database up. It does so before its last connections have ended.
const lockPatience = 15 * time.Second

// Open opens the database, making it if need be. While no App runs, as at the
// start of a process, it waits for another process to give the database up.
func (s *BoltStore) Open(log *zap.Logger) (store.Store, error) {
	// A key from an earlier start means that there was a database.
	_, err := os.Stat(keyPath(s.path))
	cfg := bolt.Config{
		Path: s.path, Expected: err == nil && !s.newKey, Logger: log,
		OnAnew: metrics.damagedStores.Inc, ObserveCommit: metrics.observeCommit,
	}
	if Current() == nil {
		cfg.Wait = lockPatience
	}
	return bolt.Open(cfg)
}

// Begins implements store.Beginner.
func (s *BoltStore) Begins() bool {
	info, err := os.Stat(s.identity)
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0
}

// MayBegin implements store.Consenter.
func (s *BoltStore) MayBegin() bool { return s.New }

// MasterKey returns the key kept beside the database.
func (s *BoltStore) MasterKey() (string, error) {
	text, made, err := masterKeyBeside(s.path)
	s.newKey = made
	if err == nil {
		warnOfOpenKey(keyPath(s.path), Logger("store"))
	}
	return text, err
}

// CheckPlace looks whether a start can use the database file, and makes nothing. The
// start itself verifies what the file holds.
func (s *BoltStore) CheckPlace() (state string, err error) {
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.checkFolder()
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a file", s.path)
	}
	file, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	if err := file.Close(); err != nil {
		return "", err
	}
	if bolt.InUse(s.path) {
		return "in use by a running process", nil
	}
	return "can be read and written", nil
}

// checkFolder looks whether a start can make the file. It makes and removes a file in
// the nearest folder that exists.
func (s *BoltStore) checkFolder() (string, error) {
	dir := filepath.Dir(s.path)
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	file, err := os.CreateTemp(dir, ".wxgate-check-")
	if err != nil {
		return "", fmt.Errorf("the first start could not make the database: %w", err)
	}
	if err := errors.Join(file.Close(), os.Remove(file.Name())); err != nil {
		return "", err
	}
	return "there is none yet: the first start makes it", nil
}

// CheckKey looks for the master key beside the database, and makes none.
func (s *BoltStore) CheckKey() (state string, err error) {
	path := keyPath(s.path)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
			return "there is none yet: the first start makes it; back it up then", nil
		}
		return "", fmt.Errorf("%s is missing, and the database cannot be used without it: "+
			"restore the file", path)
	}
	if err != nil {
		return "", err
	}
	if _, err := keyring.Parse(string(text)); err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return path + " holds it; keep a copy elsewhere", nil
}

// UnmarshalCaddyfile reads:
//
//	store bolt [<path>] {
//		new
//	}
func (s *BoltStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	if d.NextArg() {
		s.Path = d.Val()
	}
	if d.NextArg() {
		return d.Err("store bolt takes one path")
	}
	for b := block.New(d); b.Next(); {
		if d.Val() != "new" {
			return b.Unknown("new")
		}
		if err := b.Bare(&s.New); err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ store.Opener          = (*BoltStore)(nil)
	_ store.KeyKeeper       = (*BoltStore)(nil)
	_ store.Beginner        = (*BoltStore)(nil)
	_ caddy.Provisioner     = (*BoltStore)(nil)
	_ caddyfile.Unmarshaler = (*BoltStore)(nil)
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
