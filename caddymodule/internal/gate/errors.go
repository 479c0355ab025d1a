package gate

import "errors"

var (
	// ErrOwnedTrailer is returned by Clean when the request declares a trailer under a name that only the gate may
	// set, or under the name of a token header. The answer is 400 (THREATS.md 4).
	ErrOwnedTrailer = errors.New("trailer declared under a reserved name")

	// ErrAmbiguousCredentials is returned by Credential when the request carries two different tokens. The answer
	// is 400 with the code ambiguous_credentials (THREATS.md 8).
	ErrAmbiguousCredentials = errors.New("two different tokens in one request")

	// ErrBadIdentity is returned by Inject when a value is missing or is not visible ASCII. Nothing was injected,
	// and the request must not go on to the app (THREATS.md 30).
	ErrBadIdentity = errors.New("identity not fit for a header")
)
