package gate

import (
	"net/http"
	"slices"
	"strings"
)

// minToken is how many characters after the prefix make a token in a place where a
// client should not send one.
const minToken = 32

// Stray removes from r, after Credential, each header value that still holds a token:
// in a header that is not read, or in a shape that is not read, as
// "Bearer x, Bearer wxs_…" (docs/threats.md#t46). Of cookies it removes the one that
// holds it. It returns the name of such a header, or "".
func (g *Rules) Stray(r *http.Request, f Found) (found string) {
	if !f.Token && !g.tokenLeft(r) {
		return ""
	}
	for name, values := range r.Header {
		if !g.anyToken(values) {
			continue
		}
		found = name
		kept := values[:0]
		for _, v := range values {
			switch {
			case !g.HoldsToken(v):
				kept = append(kept, v)
			case name == "Cookie":
				if v = g.cleanCookies(v); v != "" {
					kept = append(kept, v)
				}
			}
		}
		if len(kept) == 0 {
			delete(r.Header, name)
			continue
		}
		clear(values[len(kept):])
		r.Header[name] = kept
	}
	return found
}

// tokenLeft reports whether a header that may carry a token still has one after
// Credential.
func (g *Rules) tokenLeft(r *http.Request) bool {
	for i := range g.sources {
		if g.anyToken(r.Header[g.sources[i].name]) {
			return true
		}
	}
	return false
}

// Unread returns, before Credential, the name of a standard header with a token in it
// that a configured header replaces, or "".
func (g *Rules) Unread(r *http.Request) string {
	for _, s := range g.sources {
		if !s.used && g.anyToken(r.Header[s.name]) {
			return s.name
		}
	}
	return ""
}

// anyToken reports whether one of the values of a header has a token in it.
func (g *Rules) anyToken(values []string) bool {
	return slices.ContainsFunc(values, g.HoldsToken)
}

// HoldsToken reports whether a text has a token in it, percent-encoded or not.
func (g *Rules) HoldsToken(s string) bool {
	stem := strings.TrimSuffix(g.tokenPrefix, "_")
	for len(s) > minToken {
		i := strings.Index(s, stem)
		if i < 0 {
			return false
		}
		s = s[i+len(stem):]
		rest, ok := strings.CutPrefix(s, g.tokenPrefix[len(stem):])
		if !ok && len(s) > 3 && strings.EqualFold(s[:3], "%5F") {
			rest = s[3:]
		} else if !ok {
			continue
		}
		end := strings.IndexFunc(rest, func(c rune) bool {
			return c >= 0x80 || foldTable[c] == '-' && c != '-' && c != '_'
		})
		if end < 0 {
			end = len(rest)
		}
		if end >= minToken {
			return true
		}
	}
	return false
}

func (g *Rules) cleanCookies(line string) string {
	var kept []string
	for cookie := range strings.SplitSeq(line, ";") {
		if !g.HoldsToken(cookie) {
			kept = append(kept, strings.TrimSpace(cookie))
		}
	}
	return strings.Join(kept, "; ")
}

// Endpoints returns the path prefix of the gate's own endpoints.
func (g *Rules) Endpoints() string { return g.endpoints.prefix }

// TokenHeaders returns the names of the headers that may carry a token.
func (g *Rules) TokenHeaders() (names []string) {
	for _, s := range g.sources {
		if s.used {
			names = append(names, s.name)
		}
	}
	return names
}
