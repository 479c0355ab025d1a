package caddymodule

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

func TestKeyFileMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	db := filepath.Join(dir, "s.db")
	first, err := masterKeyBeside(db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.ParseKeyRing(first); err != nil {
		t.Error(err)
	}
	again, err := masterKeyBeside(db)
	if err != nil || again != first {
		t.Errorf("second call: another key, or %v", err)
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
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

// TestKeyFileRace: whoever is first, all go on with the same key.
func TestKeyFileRace(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		var wg sync.WaitGroup
		keys := make([]string, 8)
		for i := range keys {
			wg.Go(func() {
				var err error
				if keys[i], err = masterKeyBeside(filepath.Join(dir, "s.db")); err != nil {
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
		if got := files(t, dir); len(got) != 1 {
			t.Errorf("left behind: %v", got)
		}
	}
}

// TestKeyFileMissing: no new key is made for a database that exists, since all in it would be void.
func TestKeyFileMissing(t *testing.T) {
	db := filepath.Join(t.TempDir(), "s.db")
	if err := os.WriteFile(db, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := masterKeyBeside(db)
	if err == nil {
		t.Fatal("made a new key")
	}
	for _, want := range []string{db + ".key is missing", "restore the file", "seal_key", "remove the database"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("message lacks %q: %v", want, err)
		}
	}
	if got := files(t, filepath.Dir(db)); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

// TestKeyFileUnreadable: a folder in its place cannot be read even by root, who runs tests in containers.
func TestKeyFileUnreadable(t *testing.T) {
	db := filepath.Join(t.TempDir(), "s.db")
	if err := os.Mkdir(db+".key", 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := masterKeyBeside(db)
	if err == nil || !strings.Contains(err.Error(), db+".key") {
		t.Errorf("got %v", err)
	}
}

// TestKeyFileGarbage: the operator is told which file it is and nothing of what is in it.
func TestKeyFileGarbage(t *testing.T) {
	setSecrets(t)
	for name, content := range map[string]string{
		"text": canary, "empty": "", "short": "AAAA", "two lines": sealKey + "\n" + canary, "binary": "\x00\xff" + canary, "the same twice": sealKey + "," + sealKey,
	} {
		t.Run(name, func(t *testing.T) {
			db := filepath.Join(t.TempDir(), "s.db")
			if err := os.WriteFile(db+".key", []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			a, _, err := provisionAlone(t, withApp(`"store":{"type":"bolt","path":"`+db+`"}`))
			if err != nil {
				t.Fatal(err)
			}
			err = a.Start()
			if err == nil {
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), "loading master key") || !strings.Contains(err.Error(), db) {
				t.Errorf("message %q does not say where", err)
			}
			if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), sealKey) {
				t.Errorf("message %q shows what is in the file", err)
			}
			if _, err := os.Stat(db); err == nil {
				t.Error("the database was made all the same")
			}
		})
	}
}
