package wechatapp

import (
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// TestBallast_CostsNoMemory counts the pages of the ballast that the system has provided.
func TestBallast_CostsNoMemory(t *testing.T) {
	b, page := ballast(), os.Getpagesize()
	provided := make([]byte, len(b)/page)
	_, _, errno := syscall.Syscall(syscall.SYS_MINCORE,
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&provided[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	n := 0
	for _, p := range provided {
		n += int(p & 1)
	}
	if n > len(provided)/16 {
		t.Errorf("%d of %d pages are in memory", n, len(provided))
	}
}
