package wechatapp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

func TestKeyFileMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	db := filepath.Join(dir, "s.db")
	first, made, err := masterKeyBeside(db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Parse(first); err != nil || !made {
		t.Error(made, err)
	}
	again, made, err := masterKeyBeside(db)
	if err != nil || again != first || made {
		t.Errorf("second call: another key, or %v, %v", made, err)
	}
	for path, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, db + ".key": 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
	if got := caddytest.Files(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

// TestKeyFileRace holds that gates that start at once use the same key.
func TestKeyFileRace(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		var wg sync.WaitGroup
		keys := make([]string, 8)
		for i := range keys {
			wg.Go(func() {
				var err error
				if keys[i], _, err = masterKeyBeside(filepath.Join(dir, "s.db")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, k := range keys {
			if k == "" || k != keys[0] {
				t.Fatal("two keys")
			}
		}
		if got := caddytest.Files(t, dir); len(got) != 1 {
			t.Errorf("left behind: %v", got)
		}
	}
}

// TestKeyFileMissing: no new key is made for a database that exists, since all
// in it would be void.
func TestKeyFileMissing(t *testing.T) {
	db := filepath.Join(t.TempDir(), "s.db")
	if err := os.WriteFile(db, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := masterKeyBeside(db)
	if err == nil {
		t.Fatal("made a new key")
	}
	for _, want := range []string{
		db + ".key is missing", "restore the file", "seal_key", "remove the database",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("message lacks %q: %v", want, err)
		}
	}
	if got := caddytest.Files(t, filepath.Dir(db)); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

// TestKeyFileLeftovers holds that a start removes old temporary key files of a killed
// start. It keeps recent ones, and files with other names.
func TestKeyFileLeftovers(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "s.db")
	if _, _, err := masterKeyBeside(db); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-keyTempAge - time.Minute)
	for name, at := range map[string]time.Time{
		"s.db.key.tmp-123": old,
		"s.db.key.tmp-124": time.Now(),
		"s.db.key.1":       old,
		"s.db.key.tmp-old": old,
		"s.db.tmp-5":       old,
		"t.db.key.tmp-6":   old,
	} {
		path := filepath.Join(dir, name)
		err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at))
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := masterKeyBeside(db); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"s.db.key",
		"s.db.key.1",
		"s.db.key.tmp-124",
		"s.db.key.tmp-old",
		"s.db.tmp-5",
		"t.db.key.tmp-6",
	}
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("there are %v", got)
	}
}

// TestKeyFileOpen: a key that others may read or write is pointed out, and used.
func TestKeyFileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db.key")
	for mode, want := range map[fs.FileMode]int{0o600: 0, 0o400: 0, 0o640: 1, 0o602: 1, 0o666: 1} {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zap.WarnLevel)
		warnOfOpenKey(path, zap.New(core))
		if logs.Len() != want || logs.FilterMessageSnippet("chmod 600").
			FilterField(zap.String("file", path)).
			Len() !=
			want {
			t.Errorf("mode %v: %v", mode, logs.All())
		}
	}
}

// TestKeyFileUnreadable: a folder in its place cannot be read even by root, who
// runs tests in containers.
func TestKeyFileUnreadable(t *testing.T) {
	db := filepath.Join(t.TempDir(), "s.db")
	if err := os.Mkdir(db+".key", 0o700); err != nil {
		t.Fatal(err)
	}
	_, _, err := masterKeyBeside(db)
	if err == nil || !strings.Contains(err.Error(), db+".key") {
		t.Errorf("got %v", err)
	}
}

// TestKeyFileGarbage holds that the error names the file and shows nothing of its
// content.
func TestKeyFileGarbage(t *testing.T) {
	caddytest.SetSecrets(t)
	for name, content := range map[string]string{
		"text":           caddytest.Canary,
		"empty":          "",
		"short":          "AAAA",
		"two lines":      caddytest.SealKey + "\n" + caddytest.Canary,
		"binary":         "\x00\xff" + caddytest.Canary,
		"the same twice": caddytest.SealKey + "," + caddytest.SealKey,
	} {
		t.Run(name, func(t *testing.T) {
			db := filepath.Join(t.TempDir(), "s.db")
			if err := os.WriteFile(db+".key", []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			a, _, err := provisionAlone(
				t, caddytest.AppJSON(`"store":{"type":"bolt","path":"`+db+`"}`),
			)
			if err != nil {
				t.Fatal(err)
			}
			err = a.Start()
			if err == nil {
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), "loading master key") ||
				!strings.Contains(err.Error(), db) {
				t.Errorf("message %q does not say where", err)
			}
			if strings.Contains(err.Error(), caddytest.Canary) ||
				strings.Contains(err.Error(), caddytest.SealKey) {
				t.Errorf("message %q shows what is in the file", err)
			}
			if _, err := os.Stat(db); err == nil {
				t.Error("the database was made all the same")
			}
		})
	}
}
