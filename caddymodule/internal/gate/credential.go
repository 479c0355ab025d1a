package gate

import (
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
	bearer bool   // the token comes as "Bearer <token>"; values of another kind are the app's
	used   bool   // false: a token found here is removed but proves nothing
}

// credentialSources lists where tokens are looked for. With a header of the operator's choice the two standard
// ones no longer count, but they are still cleared of tokens: a client that sends both must not hand its token to
// the app.
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

// Credential returns the token that r presents, or "" when it presents none, and removes every token header and
// every bearer value of ours from r, whatever the outcome. It wants r cleaned.
//
// A presented token is not yet a well-formed one: anything but blanks in the token header is returned as it is.
// In Authorization "Bearer wxs_…" is ours, as is a "wxs_…" bare or after another scheme; all else stays, in order. The same token
// sent twice is one; two different ones are ErrAmbiguousCredentials.
func (g *Rules) Credential(r *http.Request) (token string, err error) {
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
				token = presented
			case token != presented:
				err = ErrAmbiguousCredentials
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

// parse returns the token in a header value, and whether the value is ours to remove.
func (s *source) parse(value, prefix string) (token string, ours bool) {
	value = textproto.TrimString(value)
	if s.bearer {
		// Whatever the scheme says: clients write Token, JWT or nothing at all, and none of them may hand our token to the app.
		if i := strings.IndexAny(value, " \t"); i >= 0 && !strings.HasPrefix(value, prefix) {
			value = textproto.TrimString(value[i:])
		}
	} else if s.used {
		return value, true
	}
	return value, strings.HasPrefix(value, prefix)
}
