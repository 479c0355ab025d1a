//go:build unix

package bolt

import (
	"os"
	"syscall"
)

// mapped returns the first size bytes of the file as memory, until unmap is called; nil where that cannot be done.
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
