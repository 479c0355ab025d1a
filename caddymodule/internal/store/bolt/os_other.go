//go:build !linux && !darwin && !freebsd

package bolt

import "os"

// mapped returns nil: the caller reads the file instead.
func mapped(*os.File, int64) (b []byte, unmap func()) { return nil, nil }

// giveTo does nothing: the owner stays.
func giveTo(like, path string) error { return nil }

// freeRoom does not know how many bytes this user may still write below dir.
func freeRoom(string) (free int64, ok bool) { return 0, false }

// unlock does nothing: closing the file is all there is.
func unlock(*os.File) {}
