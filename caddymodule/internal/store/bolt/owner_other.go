//go:build !unix

package bolt

// giveTo makes the owner of the file like the owner of path, where files have one that can be given.
func giveTo(like, path string) error { return nil }
