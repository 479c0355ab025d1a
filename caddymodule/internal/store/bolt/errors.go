package bolt

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Backup returns these errors when it does not begin.
var (
	ErrBusy = errors.New("another copy is being made")
	ErrRoom = errors.New("the disk has too little room for a copy")
)

var (
	errClosed  = errors.New("the store is closed")
	errSlow    = errors.New("the disk took too long")
	errDamage  = errors.New("the file is damaged")
	errEmpty   = errors.New("the file is empty")
	errForeign = errors.New("the file is a bbolt database, but not a session store")
	errMoved   = errors.New("the file was replaced while it was being opened")
	errGone    = errors.New("the database file is no longer at its path; put it back, " +
		"or stop the gate to begin with what is there")
	errFull = errors.New("the disk has too little room for the next logins")

	// errOverwritten is final: free pages that this process knows are in use there.
	errOverwritten = errors.New("the file was overwritten while it was open")
	errBroken      = errors.New("the store is broken; " +
		"a reload with --force checks the file and opens it again")
	errBlind = errors.New("the file can no longer be read")
	errAppID = errors.New("appid too long")
)

// panicError is a panic of a transaction, turned into an error.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func isPanic(err error) bool { return errors.As(err, new(panicError)) }

// protect runs f and returns its error, or its panic as a panicError. An
// unreadable page of the mapped file is a memory fault, which would end the
// process; protect makes it a panic.
func protect(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = panicError{v}
		}
	}()
	return f()
}

// unavailable wraps err in store.ErrUnavailable.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%s: %w: %w", doing, store.ErrUnavailable, err)
}
