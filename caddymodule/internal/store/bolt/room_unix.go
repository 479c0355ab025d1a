//go:build linux || darwin || freebsd

package bolt

import (
	"os"
	"syscall"
)

// freeRoom returns how many bytes this user may still write below dir.
func freeRoom(dir string) (free int64, ok bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true
}

// unlock gives the lock on a file back. Closing the file does not, while its pages
// are mapped.
func unlock(file *os.File) { _ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN) }
