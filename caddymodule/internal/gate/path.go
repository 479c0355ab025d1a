package gate

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// Class says what a path asks of its caller. The zero value is the strictest.
type Class uint8

const (
	Required Class = iota // a valid session
	Optional              // a guest, or a valid session when a token is presented
	Public                // nothing; tokens are not looked at
	Endpoint              // one of the gate's own endpoints
	NotFound              // under the gate's own prefix, but not an endpoint: 404, never the app's
)

// Route is the classification of a request.
type Route struct {
	Class    Class
	Endpoint string // with class Endpoint, one of Config.EndpointNames
}

// Route classifies r by its path alone: neither query, method, host nor any header has a say (THREATS.md 10-14).
// It reads r.URL, since that is what the proxy sends on; an earlier handler may have rewritten it.
//
// Only a path in canonical form can be opened by a rule. A proxy, a file server and an app may read any other path
// in different ways, so it stays Required; and when one of those ways leads under the gate's own prefix, it is
// NotFound.
func (g *Rules) Route(r *http.Request) Route {
	u := r.URL
	escaped := u.EscapedPath()
	decoded, canonical := Canonical(escaped) // EscapedPath always decodes to u.Path, so decoded is u.Path
	switch {
	case !canonical || u.Opaque != "":
		// An opaque URL ("GET x:wx/login") is sent on in place of the path.
		if g.endpoints.mayReach(escaped) || u.Opaque != "" && g.endpoints.mayReach("/"+u.Opaque) {
			return Route{Class: NotFound}
		}
		return Route{Class: Required}
	case g.endpoints.holds(decoded):
		return g.endpoints.route(escaped)
	}
	if rule := g.ruleFor(escaped); rule != nil {
		return Route{Class: rule.class}
	}
	return Route{Class: Required}
}

// ruleFor returns the most specific rule for a canonical path, or nil.
func (g *Rules) ruleFor(escaped string) *rule {
	for i := range g.rules {
		if g.rules[i].matches(escaped) {
			return &g.rules[i]
		}
	}
	return nil
}

// Canonical percent-decodes an escaped path once, and reports whether it is in canonical form: every reader that
// follows RFC 3986 takes it for the same sequence of plain segments. That is, it begins with "/"; has no "//", no
// "." or ".." segment; the decoded form is UTF-8 without control bytes and \ ; % # ?; and exactly the bytes that
// need it are percent-encoded, in upper case. The decoded form of any other path is "".
func Canonical(escaped string) (decoded string, ok bool) {
	if escaped == "" || escaped[0] != '/' {
		return "", false
	}
	encoded := 0
	for i := 0; i < len(escaped); i++ {
		switch c := escaped[i]; {
		case c == '%':
			b, ok := unhexUpper(escaped[i+1:])
			if !ok || isLiteral(b) || b < 0x20 || b == 0x7f || strings.IndexByte(`\;%#?`, b) >= 0 {
				return "", false
			}
			encoded++
			i += 2
		case !isLiteral(c):
			return "", false
		case c == '/' && isDotOrEmpty(escaped[i+1:]):
			return "", false
		}
	}
	if encoded == 0 {
		return escaped, true
	}
	decoded = decodeOnce(escaped)
	if !utf8.ValidString(decoded) {
		return "", false
	}
	return decoded, true
}

// isDotOrEmpty reports whether rest, which follows a slash, begins with an empty segment before another slash, or
// with a "." or ".." segment. Nothing at all (a trailing slash) is neither.
func isDotOrEmpty(rest string) bool {
	if rest == "" || rest[0] != '/' && rest[0] != '.' {
		return false
	}
	segment, _, _ := strings.Cut(rest, "/")
	return segment == "" || segment == "." || segment == ".."
}

// literalTable marks what stands for itself in a canonical path: pchar of RFC 3986 3.3 except ";", and "/".
var literalTable = func() (t [256]bool) {
	for i := range t {
		t[i] = foldTable[i] != '-' || strings.IndexByte("-._~!$&'()*+,=:@/", byte(i)) >= 0
	}
	return t
}()

func isLiteral(c byte) bool { return literalTable[c] }

// unhexUpper returns the byte that two upper-case hexadecimal digits at the start of s stand for.
func unhexUpper(s string) (byte, bool) {
	if len(s) < 2 || 'a' <= s[0] || 'a' <= s[1] {
		return 0, false
	}
	return unhex(s)
}

// unhex returns the byte that two hexadecimal digits at the start of s stand for.
func unhex(s string) (byte, bool) {
	if len(s) < 2 {
		return 0, false
	}
	const digits = "0123456789abcdef"
	high := strings.IndexByte(digits, foldTable[s[0]])
	low := strings.IndexByte(digits, foldTable[s[1]])
	return byte(high<<4 | low), high >= 0 && low >= 0
}

// decodeOnce percent-decodes s and leaves what is no valid encoding as it is.
func decodeOnce(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if c, ok := unhex(s[i+1:]); ok {
				b = append(b, c)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// rule opens one path, or everything below one.
type rule struct {
	path   string // canonical; with below, up to and including the final slash
	below  bool
	class  Class
	origin string // the pattern as written
}

func (r *rule) matches(escaped string) bool {
	return r.path == escaped || r.below && strings.HasPrefix(escaped, r.path)
}

// newRules returns the rules for both lists, the most specific first: exact paths, then longer prefixes.
func newRules(public, optional []string, own *endpoints) ([]rule, error) {
	var rules []rule
	for _, list := range []struct {
		class    Class
		patterns []string
	}{{Public, public}, {Optional, optional}} {
		for _, p := range list.patterns {
			if err := ValidatePattern(p); err != nil {
				return nil, err
			}
			r := rule{path: strings.TrimSuffix(p, "*"), below: strings.HasSuffix(p, "*"), class: list.class, origin: p}
			if decoded, _ := Canonical(r.path); own.holds(decoded) {
				return nil, fmt.Errorf("path pattern %q: everything under %s is answered by the gate itself; remove the pattern or choose another endpoints prefix", p, own.prefix)
			}
			for _, other := range rules {
				switch {
				case other.origin != p:
				case other.class != list.class:
					return nil, fmt.Errorf("path pattern %q: listed as public and as optional; keep one", p)
				default:
					return nil, fmt.Errorf("path pattern %q: listed twice; keep one", p)
				}
			}
			rules = append(rules, r)
		}
	}
	slices.SortStableFunc(rules, func(a, b rule) int {
		if a.below != b.below {
			if a.below {
				return 1
			}
			return -1
		}
		return len(b.path) - len(a.path)
	})
	return rules, nil
}

// ValidatePattern reports why p is no path pattern, and what to write instead. A pattern is one path, as in
// /healthz, or a prefix with a final "/*", as in /assets/*, which means /assets/ and everything below, but not
// /assets. It is written in canonical form (see Canonical).
func ValidatePattern(p string) error {
	path := p
	if strings.HasSuffix(p, "/*") {
		path = strings.TrimSuffix(p, "*")
	}
	fault := ""
	switch _, canonical := Canonical(path); {
	case p == "":
		fault = "empty; write a path such as /healthz"
	case p[0] != '/':
		fault = "a path begins with a slash; write /" + p
	case strings.ContainsAny(p, "?#"):
		fault = "only the path of a request counts; leave out everything from ? or # on"
	case strings.Contains(path, "*"):
		fault = "* is allowed as the last segment only; write one path such as /healthz, or a prefix such as /assets/*"
	case !canonical:
		fault = `not in canonical form, so it would never match; leave out "//", "." and ".." segments, \ and ;, ` +
			"and percent-encode, in upper case, just what is not a letter, a digit or one of -._~!$&'()*+,=:@/"
	default:
		return nil
	}
	return fmt.Errorf("path pattern %q: %s", p, fault)
}
