package wechatapp

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
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
