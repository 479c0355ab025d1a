//go:build !unix

package bolt

import "os"

// mapped returns the first size bytes of the file as memory, until unmap is called; nil where that cannot be done.
func mapped(*os.File, int64) (b []byte, unmap func()) { return nil, nil }
