//go:build linux || darwin || freebsd

package bolt

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// mapped maps the first size bytes of the file into memory until unmap is
// called. It returns nil where that is impossible.
func mapped(file *os.File, size int64) (b []byte, unmap func()) {
	if int64(int(size)) != size {
		return nil, nil
	}
	b, err := syscall.Mmap(int(file.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil
	}
	return b, func() { _ = syscall.Munmap(b) }
}

// giveTo gives the file at path to the owner of like, as far as this user may.
func giveTo(like, path string) error {
	info, err := os.Stat(like)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	err = os.Lchown(path, int(st.Uid), int(st.Gid))
	if os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

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
