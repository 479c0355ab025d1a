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

	// ErrNotPlatform is returned by Platform for identity headers without X-WX-SOURCE, whose presence is the platform's word
	// that WeChat originated the request (WECHAT.md 8.1).
	ErrNotPlatform = errors.New("identity headers that are not those of WeChat Cloud Hosting")

	// ErrLocalDebug is returned by Platform for what comes out of a proxy for debugging, which makes identities up.
	ErrLocalDebug = errors.New("identity made up by a proxy for local debugging")

	// ErrAmbiguousPlatform is returned by Platform when a header that the platform sets once is there twice, or not fit to
	// be one.
	ErrAmbiguousPlatform = errors.New("platform header given twice or malformed")
)
