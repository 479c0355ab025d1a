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

// A user without rights has only one owner to give.
func TestRestore_Root_OwnerKept(t *testing.T) {
	saved := backup(t, 3)
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 12345, 12346
	}
	is := func(path string) {
		t.Helper()
		info, err := os.Stat(path)
		must(t, err)
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != uid || int(st.Gid) != gid {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
	}
	dir := t.TempDir()
	must(t, os.Chown(dir, uid, gid))
	path := filepath.Join(dir, "new", "folder", "sessions.db")
	for range 2 { // into a folder, and over a file
		if _, err := bolt.Restore(bytes.NewReader(saved), path); err != nil {
			t.Fatal(err)
		}
		is(path)
		is(filepath.Dir(path))
		is(filepath.Dir(filepath.Dir(path)))
	}
	must(t, os.Chown(filepath.Dir(path), os.Getuid(), os.Getgid()))
	_, err := bolt.Restore(bytes.NewReader(saved), path) // the file's owner counts now
	must(t, err)
	is(path)
}
