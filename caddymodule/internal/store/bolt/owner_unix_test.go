//go:build unix

package bolt_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// TestRestoreOwner: what root restores stays with the service whose database it is. Without root there is but one owner.
func TestRestoreOwner(t *testing.T) {
	saved := backup(t, 3)
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 12345, 12346
	}
	is := func(path string) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != uid || int(st.Gid) != gid {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
	}
	dir := t.TempDir()
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "new", "folder", "sessions.db")
	for range 2 { // into a folder, and over a file
		if _, err := bolt.Restore(bytes.NewReader(saved), path); err != nil {
			t.Fatal(err)
		}
		is(path)
		is(filepath.Dir(path))
		is(filepath.Dir(filepath.Dir(path)))
	}
	if err := os.Chown(filepath.Dir(path), os.Getuid(), os.Getgid()); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Restore(bytes.NewReader(saved), path); err != nil { // the file's owner counts, not the folder's
		t.Fatal(err)
	}
	is(path)
}
