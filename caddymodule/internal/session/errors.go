package session

import (
	"errors"
	"fmt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// ErrInvalid means that a presented token opens nothing. The client is told no more than that (THREATS.md 22); the errors that wrap it carry the reason to the log and the metrics.
var ErrInvalid = errors.New("invalid session")

// Why a token is invalid. Each wraps ErrInvalid.
var (
	ErrMalformed = fmt.Errorf("%w: malformed token", ErrInvalid)
	ErrForged    = fmt.Errorf("%w: token not made by this gate or its key is gone", ErrInvalid)
	ErrUnknown   = fmt.Errorf("%w: unknown to the store", ErrInvalid)
	ErrExpired   = fmt.Errorf("%w: expired", ErrInvalid)
	ErrRevoked   = fmt.Errorf("%w: revoked", ErrInvalid)
)

// ErrUnavailable means that the store could not be asked, so that nothing is known about the session: never a reason to log anybody out (THREATS.md 23).
var ErrUnavailable = store.ErrUnavailable

// ErrKeyMissing means that live sessions need a master key that the ring lacks.
var ErrKeyMissing = errors.New("a master key is missing from the key ring")

// ErrNoBackup means that the store cannot be copied by the gate.
var ErrNoBackup = errors.New("this kind of session store is backed up with its own tools")

// ErrUnknownApp means that a login names a mini program that is not configured.
var ErrUnknownApp = errors.New("mini program not configured")

// ErrBusy means that too many logins are under way. The code is not spent.
var ErrBusy = errors.New("too many logins under way")

// ErrData means that a piece of open data is not acceptable. Clients are told no more than that, and whether a new login will help (THREATS.md 29).
var ErrData = errors.New("open data is invalid")
