//go:build !unix

package bolt

import "os"

// mapped returns nil: the caller reads the file instead.
func mapped(*os.File, int64) (b []byte, unmap func()) { return nil, nil }

// giveTo does nothing: files have no owner to give.
func giveTo(like, path string) error { return nil }
