package wechatapp

import "sync"

// ballast returns memory that nobody touches, so that the system never provides it. Go
// collects garbage when there is as much of it as memory in use; with the 15 MB of a gate
// that is fifteen times a second under load. The ballast counts as in use from the first
// call on, for the whole process, and lets there be as much more garbage.
var ballast = sync.OnceValue(func() []byte { return make([]byte, 32<<20) })
