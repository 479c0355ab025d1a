package bolt

import (
	"errors"
	"fmt"
	"runtime/debug"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Why Backup does not begin.
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
	errGone    = errors.New("the database file is no longer at its path")
	errBlind   = errors.New("the file can no longer be read")
	errAppID   = errors.New("appid too long")
)

// panicError is a panic of a transaction, turned into an error.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// protect runs f and returns its error, or its panic as a panicError. A page that cannot be read from the mapped file is a memory fault, which would end the process; here it is a panic.
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

// fault is why the store cannot be written to.
type fault struct {
	err   error
	final bool // a transaction panicked: what is in memory can no longer be trusted, only a restart helps
}

// settle records the outcome of a transaction that may have failed, and logs when it is another than before.
func (s *Store) settle(err error) {
	old := s.fault.Load()
	switch {
	case old != nil && old.final:
	case errors.As(err, new(panicError)):
		if s.fault.CompareAndSwap(old, &fault{err: err, final: true}) {
			s.log.Error("session store failed; no writes until it is opened again", zap.Error(err))
			return
		}
		s.settle(err)
	case err != nil:
		gone := errors.Is(err, errGone)
		if !s.fault.CompareAndSwap(old, &fault{err: err}) || old != nil && errors.Is(old.err, errGone) == gone {
			return
		}
		if gone {
			s.log.Error("the database file is no longer at its path, nobody can log in; put it back, or stop the gate to begin with what is there", zap.Error(err))
		} else {
			s.log.Error("session store cannot be written to; trying again", zap.Error(err))
		}
	case old != nil:
		if s.fault.CompareAndSwap(old, nil) {
			s.log.Info("session store can be written to again")
		}
	}
}
