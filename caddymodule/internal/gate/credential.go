package gate

import (
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
)

const (
	authorization = "Authorization"
	thirdSession  = "X-3rd-Session"
)

// source is a header that may carry a token.
type source struct {
	name   string // canonical
	bearer bool   // the token follows a scheme; other values are the app's
	used   bool   // false: a token here is removed, but proves nothing
}

// credentialSources lists the headers that may carry a token. A configured
// header replaces the two standard ones; they are still cleared of tokens, which
// must not reach the app.
func credentialSources(tokenHeader string) []source {
	if tokenHeader == "" {
		return []source{{authorization, true, true}, {thirdSession, false, true}}
	}
	name := http.CanonicalHeaderKey(tokenHeader)
	sources := []source{{authorization, true, name == authorization}}
	if !foldsTo(name, fold(thirdSession)) {
		sources = append(sources, source{thirdSession, false, false})
	}
	if name != authorization {
		sources = append(sources, source{name, false, true})
	}
	return sources
}

// Credential returns the token of a cleaned request, or "", and removes every
// token header and every bearer value of ours, whatever the outcome.
//
// Any visible text in the token header is a token, well-formed or not. In
// Authorization a value is ours when it begins with the token prefix, with or
// without a scheme; all others stay, in order. The same token twice is one; two
// different tokens are ErrAmbiguousCredentials.
func (g *Rules) Credential(r *http.Request) (token string, err error) {
	var first string // the header of token
	for i := range g.sources {
		s := &g.sources[i]
		values := r.Header[s.name]
		if len(values) == 0 {
			continue
		}
		kept := values[:0]
		for _, v := range values {
			presented, ours := s.parse(v, g.tokenPrefix)
			switch {
			case !ours:
				kept = append(kept, v)
			case !s.used || presented == "":
			case token == "":
				token, first = presented, s.name
			case token != presented:
				err = ambiguous(first, s.name)
			}
		}
		switch {
		case len(kept) == 0:
			delete(r.Header, s.name)
		case len(kept) < len(values):
			clear(values[len(kept):])
			r.Header[s.name] = kept
		}
	}
	if err != nil {
		return "", err
	}
	return token, nil
}

func ambiguous(first, second string) error {
	if first == second {
		return fmt.Errorf("%w: both in %s", ErrAmbiguousCredentials, first)
	}
	return fmt.Errorf("%w: in %s and in %s", ErrAmbiguousCredentials, first, second)
}

// parse returns the token in a header value, and whether the value is ours to
// remove. It ignores the scheme: clients write Token, JWT or none.
func (s *source) parse(value, prefix string) (token string, ours bool) {
	value = textproto.TrimString(value)
	if s.used && !s.bearer {
		return value, true
	}
	if s.bearer && !strings.HasPrefix(value, prefix) {
		if i := strings.IndexAny(value, " \t"); i >= 0 {
			value = textproto.TrimString(value[i:])
		}
	}
	return value, strings.HasPrefix(value, prefix)
}
