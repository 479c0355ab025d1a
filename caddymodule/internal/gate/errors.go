package gate

import "errors"

// The errors of Clean, Credential and Inject.
var (
	// ErrOwnedTrailer: the request declares a trailer with an owned name or the
	// name of a token header. Answer 400 (docs/threats.md#t4).
	ErrOwnedTrailer = errors.New("trailer declared under a reserved name")

	// ErrAmbiguousCredentials: the request carries two different tokens. Answer 400
	// (docs/threats.md#t8).
	ErrAmbiguousCredentials = errors.New("two different tokens in one request")

	// ErrBadIdentity: a value is missing or not visible ASCII. Inject changed
	// nothing, and the request must not reach the app (docs/threats.md#t30).
	ErrBadIdentity = errors.New("identity not fit for a header")
)

// The errors of Platform.
var (
	// ErrNotPlatform: there are identity headers, but no X-WX-SOURCE, by which the
	// platform says that WeChat sent the request (docs/wechat.md#cloud-headers).
	ErrNotPlatform = errors.New("identity headers that are not those of WeChat Cloud Hosting")

	// ErrLocalDebug: a debugging proxy made the identity up.
	ErrLocalDebug = errors.New("identity made up by a proxy for local debugging")

	// ErrAmbiguousPlatform: a header of the platform has two values, or none that
	// the platform would set.
	ErrAmbiguousPlatform = errors.New("platform header given twice or malformed")
)
