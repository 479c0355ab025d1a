package store

import "errors"

// ErrNotFound means that the store has answered and holds no such record.
var ErrNotFound = errors.New("no such record")

// ErrUnavailable means that the store could not be asked, or could not make a change durable. It says nothing about any session.
var ErrUnavailable = errors.New("session store unavailable")

// ErrDamaged means that the bytes of a record are not what was once written.
var ErrDamaged = errors.New("damaged record")
