//go:build !linux

package redistest

import "syscall"

// dieWithParent does nothing here: the servers of a test that panics stay.
func dieWithParent() *syscall.SysProcAttr { return nil }
