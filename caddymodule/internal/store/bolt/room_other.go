//go:build !linux && !darwin && !freebsd

package bolt

// freeRoom returns the bytes that this user may still write below dir; ok is false when that cannot be found out.
func freeRoom(string) (free int64, ok bool) { return 0, false }
