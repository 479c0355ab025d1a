package wechatapp

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

func boltApp(t *testing.T, db string) *App {
	t.Helper()
	path, _ := json.Marshal(db)
	a, _, err := provisionAlone(t, caddytest.AppJSON(`"api":{"base_url":"http://127.0.0.1:1"},`+
		`"store":{"type":"bolt","path":`+string(path)+`}`))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// names returns what is in a folder.
func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, path := range caddytest.Files(t, dir) {
		names = append(names, filepath.Base(path))
	}
	return names
}

// startBolt starts a gate with the database and stops it again.
func startBolt(t *testing.T, db string) {
	t.Helper()
	a := boltApp(t, db)
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if err := a.Cleanup(); err != nil {
		t.Error(err)
	}
}

// TestDatabaseLost: a database that is gone, or empty, beside its key counts as
// a damaged one; a first start does not.
func TestDatabaseLost(t *testing.T) {
	caddytest.SetSecrets(t)
	db := filepath.Join(t.TempDir(), "s.db")
	for i, tt := range []struct {
		name   string
		before func() error
		want   float64
	}{
		{"first start", func() error { return nil }, 0},
		{"second start", func() error { return nil }, 0},
		{"gone", func() error { return os.Remove(db) }, 1},
		{"emptied", func() error { return os.Truncate(db, 0) }, 1},
	} {
		if err := tt.before(); err != nil {
			t.Fatal(err)
		}
		was := caddytest.Count(metrics.damagedStores)
		startBolt(t, db)
		if got := caddytest.Count(metrics.damagedStores) - was; got != tt.want {
			t.Errorf("%d, %s: counted %v, want %v", i, tt.name, got, tt.want)
		}
	}
}

// TestRefusedStartCloses: a start that is refused after the database was opened
// leaves it as one that was closed, however soon the process ends.
func TestRefusedStartCloses(t *testing.T) {
	caddytest.SetSecrets(t)
	db := filepath.Join(t.TempDir(), "s.db")
	st, err := bolt.Open(bolt.Config{Path: db})
	if err != nil {
		t.Fatal(err)
	}
	lost := map[store.MasterKeyID]time.Time{{9}: time.Now().Add(time.Hour)}
	err = errors.Join(
		st.NeedMasterKeys(t.Context(), lost), st.Close(),
		os.WriteFile(keyPath(db), []byte(caddytest.SealKey), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := boltApp(t, db).Start(); !errors.Is(err, session.ErrKeyMissing) {
		t.Fatalf("started without a key that is needed: %v", err)
	}
	if got := names(t, filepath.Dir(db)); !slices.Equal(got, []string{"s.db", "s.db.key"}) {
		t.Errorf("left behind: %v", got)
	}
}

// TestBoltIdentity: a database is one, whether it is named by a link or not,
// also before it is there; its key is kept beside the name.
func TestBoltIdentity(t *testing.T) {
	caddytest.SetSecrets(t)
	dir := t.TempDir()
	db, link := filepath.Join(dir, "s.db"), filepath.Join(dir, "link.db")
	if err := os.Symlink("s.db", link); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		direct, linked := boltApp(t, db).opener.Identity(), boltApp(t, link).opener.Identity()
		if direct != "bolt:"+db || direct != linked {
			t.Errorf("%s and %s", direct, linked)
		}
		startBolt(t, link)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"link.db", "link.db.key", "s.db"}) {
		t.Errorf("there are %v", got)
	}
}

// A reload with a mistyped path is refused and leaves nothing behind, unless the
// operator consents.
func TestReload_EmptyStore_NeedsConsent(t *testing.T) {
	caddytest.SetSecrets(t)
	dir := t.TempDir()
	item := store.Item{User: store.User{ID: store.UserID{AppID: "wx0", OpenID: "o"}}}
	expires := time.Now().Add(time.Hour)
	item.User.Sessions = []store.SessionRef{{Created: time.Now(), Expires: expires}}
	item.Sessions = []store.Session{{User: item.User.ID, Created: time.Now(), Expires: expires}}
	st, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "s.db")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = st.Load(t.Context(), []store.Item{item})
	key := []byte(caddytest.SealKey)
	err = errors.Join(err, st.Close(), os.WriteFile(keyPath(st.Path()), key, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	running := boltApp(t, filepath.Join(dir, "s.db"))
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	reload := func(consent bool) error {
		a := boltApp(t, filepath.Join(dir, "mistyped.db"))
		a.opener.(*BoltStore).New = consent
		defer a.Close()
		return a.Start()
	}
	if err := reload(false); err == nil || !strings.Contains(err.Error(), "has 1 sessions") {
		t.Errorf("got %v", err)
	}
	if got := names(t, dir); slices.Contains(got, "mistyped.db.key") {
		t.Errorf("the refused reload leaves %v", got)
	}
	if err := reload(true); err != nil {
		t.Errorf("with consent: %v", err)
	}
	if err := reload(false); err != nil {
		t.Errorf("a store that is there: %v", err)
	}
}

// The gauges are there while a bolt store is open, and the time of a backup after it.
func TestStoreGauges(t *testing.T) {
	caddytest.SetSecrets(t)
	a := boltApp(t, filepath.Join(t.TempDir(), "s.db"))
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, want := range []int{8, 9} {
		reg := prometheus.NewRegistry()
		if err := reg.Register(storeGauges{}); err != nil {
			t.Fatal(err)
		}
		if got, err := reg.Gather(); err != nil || len(got) != want {
			t.Errorf("gathered %v, %v", got, err)
		}
		if _, err := a.live.Load().Sessions.Backup(t.Context(), io.Discard); err != nil {
			t.Fatal(err)
		}
	}
}

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
