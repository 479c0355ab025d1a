// Package gate is pure request hygiene. It answers four questions about an
// *http.Request: which parts a client may not send (Clean), which token it
// carries (Credential), what the app is told about the caller (Inject), and
// whether its path needs a session (Route).
//
// It does not know sessions, stores, WeChat or Caddy, and it writes no response:
// it reports, and the caller decides. Clean comes first on every request.
//
// The package has more than 14 files: one for each part of a request that it reads.
package gate

import (
	"cmp"
	"errors"
	"fmt"
)

// Config is the input of New. The zero value of every field means its default.
type Config struct {
	// Headers renames identity headers, by Header.Word.
	Headers map[string]string

	// Signed says that the app gets an assertion.
	Signed bool

	// TokenHeader is the only header that may carry a token. Default:
	// Authorization with the scheme Bearer, and X-3rd-Session. Authorization given
	// by name means the Bearer form alone.
	TokenHeader string

	// TokenPrefix begins every token. Default: wxs_.
	TokenPrefix string

	// Endpoints is the path prefix of the gate's own endpoints. Default: /wx.
	Endpoints string

	// EndpointNames are the endpoints: one path segment each, below Endpoints. A name
	// that ends in a slash stands for one more segment, whatever that is.
	EndpointNames []string

	// VerifyEndpoints are endpoints that judge a request in another proxy's place, by
	// name: their class, Required or Optional. Each answers for every path below it.
	VerifyEndpoints map[string]Class

	// Reserved are plain paths, as /push, that no client may ask for, nor anything below
	// them: the gate itself sends requests there.
	Reserved []string

	// Tickets makes the query parameter TicketParam the gate's own.
	Tickets bool

	// Public and Optional are path patterns (see ValidatePattern) that open paths
	// which are otherwise Required.
	Public, Optional []string

	// Required are path patterns that need a session; every other path is Public. It
	// excludes Public and Optional.
	Required []string
}

// Rules is an immutable, validated Config. It is safe for concurrent use.
type Rules struct {
	names       *nameTable
	sources     []source
	tokenPrefix string
	tickets     bool
	headers     [len(Headers)]string // canonical names
	signed      bool
	endpoints   endpoints
	reserved    []endpoints
	required    []endpoints // nil: all paths that no rule opens
	rules       []rule
}

// New validates the whole of c. An error names the word at fault and what to
// write instead.
func New(c Config) (*Rules, error) {
	c.TokenPrefix = cmp.Or(c.TokenPrefix, "wxs_")
	c.Endpoints = cmp.Or(c.Endpoints, "/wx")

	if !isToken(c.TokenPrefix) {
		return nil, fmt.Errorf("token prefix %q: not a word of letters, digits, hyphens and "+
			"underscores; use wxs_", c.TokenPrefix)
	}
	headers, err := headerNames(c.Headers)
	if err != nil {
		return nil, err
	}
	if c.TokenHeader != "" {
		if err := ValidateTokenHeader(c.TokenHeader); err != nil {
			return nil, err
		}
	}
	sources := credentialSources(c.TokenHeader)
	if err := checkCollisions(headers[:], sources); err != nil {
		return nil, err
	}
	if err := ValidateEndpoints(c.Endpoints); err != nil {
		return nil, err
	}
	own := newEndpoints(c.Endpoints, c.EndpointNames, c.VerifyEndpoints)
	reserved, err := newReserved(c.Reserved, &own)
	if err != nil {
		return nil, err
	}
	rules, err := newRules(c.Public, c.Optional, &own)
	if err != nil {
		return nil, err
	}
	required, err := newRequired(c, &own)
	if err != nil {
		return nil, err
	}
	return &Rules{
		required:    required,
		names:       newNameTable(headers[:], sources),
		sources:     sources,
		tokenPrefix: c.TokenPrefix,
		tickets:     c.Tickets,
		headers:     headers,
		signed:      c.Signed,
		endpoints:   own,
		reserved:    reserved,
		rules:       rules,
	}, nil
}

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
