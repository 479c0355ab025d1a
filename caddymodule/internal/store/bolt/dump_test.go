package bolt_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
	"github.com/wxgate/wxgate/caddymodule/internal/store/storetest"
)

func TestDumpContract(t *testing.T) {
	storetest.RunDump(t, storetest.Harness{New: func(t *testing.T) storetest.Opener {
		path := filepath.Join(t.TempDir(), "sessions.db")
		return func() (store.Store, error) { return bolt.Open(bolt.Config{Path: path}) }
	}})
}

func TestSnapshot_File_Unchanged(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lock or writes megabytes; run without -short")
	}
	t.Parallel() // waits for the lock
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	kept, gone := login(t, s, "ada", 1, time.Hour), login(t, s, "bob", 1, time.Hour)
	must(t, s.End(t.Context(), gone.Digest, store.EndLogout))
	needs := map[store.MasterKeyID]time.Time{{2}: time.UnixMilli(5)}
	must(t, s.NeedMasterKeys(t.Context(), needs))
	if _, err := bolt.OpenSnapshot(path, nil); err == nil {
		t.Fatal("the file of a store that is open was opened")
	}
	must(t, s.Close())
	before, err := os.ReadFile(path)
	must(t, err)

	snap, err := bolt.OpenSnapshot(path, nil)
	must(t, err)
	other, err := bolt.OpenSnapshot(path, nil)
	if err != nil {
		t.Fatalf("a second reader: %v", err)
	}
	other.Close()
	if r := snap.Report(); r.Stats.Users != 2 || r.Stats.Sessions != 1 || r.Damaged != 0 {
		t.Errorf("report %+v", r)
	}
	users, sessions := 0, 0
	err = snap.Dump(t.Context(), func(it store.Item) error {
		users++
		sessions += len(it.Sessions)
		return nil
	})
	if err != nil || users != 2 || sessions != 1 {
		t.Errorf("%d users, %d sessions, %v", users, sessions, err)
	}
	if _, err := snap.Lookup(t.Context(), kept.Digest); err != nil {
		t.Error(err)
	}
	if _, err := snap.Lookup(t.Context(), gone.Digest); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v for a session that was ended", err)
	}
	got, err := snap.MasterKeys(t.Context())
	if err != nil || len(got) != 2 || !got[store.MasterKeyID{2}].Equal(time.UnixMilli(5)) {
		t.Errorf("needed are %v, %v", got, err)
	}
	if _, err := bolt.Open(bolt.Config{Path: path}); err == nil {
		t.Error("the file was opened for writing while it is read")
	}
	os.Remove(path + ".dirty") // of that try
	must(t, snap.Close())
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the file has changed: %v", err)
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
		t.Errorf("left over: %v", names)
	}
}

func TestSnapshot_NoStore_RefusedUnchanged(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	must(t, os.WriteFile(junk, make([]byte, 100), 0o600))
	for _, path := range []string{filepath.Join(dir, "none"), junk, dir} {
		if s, err := bolt.OpenSnapshot(path, nil); err == nil || s != nil {
			t.Errorf("%s was opened", path)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 {
		t.Errorf("left over: %v", names)
	}
}
