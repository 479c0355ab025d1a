package bolt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// smallDisk mounts a file system of the size. Without the right to mount it skips the
// test, or fails it where nothing may be missing.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("WXGATE_REQUIRE_ALL") == "1" {
			t.Fatalf("cannot mount a small file system: %v", err)
		}
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// Logins go on until a disk is full to the byte. Those that Health lets begin then
// find room, however long it lasts; the log has two lines.
func TestP4_RealDiskFull_NoCodeIsSpent(t *testing.T) {
	dir := smallDisk(t, "24m")
	synctest.Test(t, func(t *testing.T) { testDiskFull(t, dir) })
}

func testDiskFull(t *testing.T, dir string) {
	s, logs := openTest(t, filepath.Join(dir, "sessions.db"))
	logins, spent := 0, 0
	login := func() {
		if s.Health(t.Context()) != nil {
			return
		}
		logins++
		l := testLogin(0)
		l.User.OpenID = fmt.Sprint("o", logins)
		l.Digest = sha256.Sum256(fmt.Append(nil, logins))
		l.Key = store.SealedKey{Tag: [8]byte{1}, Box: make([]byte, 1000)}
		if _, err := s.Login(t.Context(), l); err != nil {
			t.Logf("login %d: %v", logins, err)
			spent++
		}
	}
	for range 200 {
		login()
	}
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	must(t, err)
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	begun := logins
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		login()
		time.Sleep(time.Millisecond)
	}
	if s.Health(t.Context()) == nil {
		t.Error("healthy on a full disk")
	}
	t.Logf("%d logins before, %d on the full disk, %d codes burnt", begun, logins-begun, spent)
	if spent > 0 {
		t.Errorf("%d codes are burnt", spent)
	}
	if err := s.RevokeUser(t.Context(), testLogin(0).User, store.EndRevoked); err != nil {
		t.Errorf("a revocation finds no room: %v", err)
	}
	must(t, errors.Join(ballast.Close(), os.Remove(ballast.Name())))
	eventually(t, func() bool { return s.Health(t.Context()) == nil })
	login()
	eventually(t, func() bool { return logs.Len() == 2 })
	if spent > 0 {
		t.Error("a login fails with room")
	}
	counted(t, s, "in the end")
	must(t, s.Close())
}
