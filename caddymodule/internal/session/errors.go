package session

import (
	"errors"
	"fmt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// ErrInvalid means that a token opens nothing. The client hears no more than
// that; the errors that wrap it carry the reason to the log and the metrics
// (docs/threats.md#t22).
var ErrInvalid = errors.New("invalid session")

// Why a token is invalid. Each wraps ErrInvalid.
var (
	ErrMalformed = fmt.Errorf("%w: malformed token", ErrInvalid)
	ErrForged    = fmt.Errorf("%w: not made by this gate, or its master key is gone", ErrInvalid)
	ErrUnknown   = fmt.Errorf("%w: no such session", ErrInvalid)
	ErrExpired   = fmt.Errorf("%w: expired", ErrInvalid)
	ErrForeign   = fmt.Errorf("%w: its record is not a gate's", ErrInvalid)
	ErrRevoked   = fmt.Errorf("%w: revoked", ErrInvalid)
)

var (
	// ErrUnavailable means that the store did not answer, so that nothing is
	// known about the session. It never logs a user out (docs/threats.md#t23).
	ErrUnavailable = store.ErrUnavailable

	// ErrUnknownUser means that the store has no record of a user.
	ErrUnknownUser = errors.New("no such user")

	// ErrBlocked means that a block of the operator keeps a user from logging in.
	ErrBlocked = errors.New("user is blocked")

	// ErrUnknownApp means that a mini program is not configured.
	ErrUnknownApp = errors.New("mini program not configured")

	// ErrData means that a piece of open data is not acceptable. The client
	// hears no more than that, and whether a new login will help
	// (docs/threats.md#t29).
	ErrData = errors.New("open data is invalid")

	// ErrKeyMissing means that live sessions need a master key that the ring
	// lacks.
	ErrKeyMissing = errors.New("a master key is missing from the key ring")

	// ErrNoBackup means that the gate cannot copy this kind of store.
	ErrNoBackup = errors.New("this kind of session store is backed up with its own tools")
)

// errClockUnset says nothing about a session, as a store that does not answer.
var errClockUnset = fmt.Errorf("%w: the clock of this machine is not set", ErrUnavailable)

var errClosed = fmt.Errorf("%w: closed", ErrUnavailable)

// wrap says in an error what the caller was doing.
func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
