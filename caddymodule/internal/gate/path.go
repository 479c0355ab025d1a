package gate

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// Class is the demand of a path on its caller. The zero value is the strictest.
type Class uint8

// The classes. A lower one is stricter.
const (
	Required Class = iota // a valid session
	Optional              // no token, or a valid one
	Public                // nothing; tokens are ignored
	Endpoint              // one of the gate's own endpoints
	NotFound              // below the gate's own prefix and no endpoint, or reserved
)

// Route is the classification of a request.
type Route struct {
	Class    Class
	Endpoint string // one of Config.EndpointNames or VerifyEndpoints, or ""
}

// Route classifies r by its path alone, not by query, method, host or headers
// (docs/threats.md#t10, #t14). It reads r.URL, which the proxy sends on.
//
// A rule opens a path only when every server reads the path in one way (see
// normalize). Any other path stays Required, or is NotFound when some server
// may read it as a path below the gate's own prefix. With Config.Required a path
// is Required as soon as some server may read it as one of the list.
func (g *Rules) Route(r *http.Request) Route {
	escaped := r.URL.EscapedPath()
	if len(g.endpoints.trees) > 0 && r.URL.Opaque == "" {
		if route, ok := g.endpoints.verify(escaped); ok {
			return route
		}
	}
	normal, decoded, ok := normalize(escaped)
	for i := range g.reserved {
		if area := &g.reserved[i]; ok && area.holds(decoded) || area.mayReach(escaped) ||
			r.URL.Opaque != "" && area.mayReach("/"+r.URL.Opaque) {
			return Route{Class: NotFound}
		}
	}
	switch {
	case !ok || r.URL.Opaque != "": // the proxy sends Opaque ("GET x:wx/login") as the path
		if g.endpoints.mayReach(escaped) ||
			r.URL.Opaque != "" && g.endpoints.mayReach("/"+r.URL.Opaque) {
			return Route{Class: NotFound}
		}
		if g.required == nil || r.URL.Opaque != "" || unreadable(escaped) {
			return Route{Class: Required}
		}
	case g.endpoints.holds(decoded):
		return g.endpoints.route(escaped)
	}
	if g.required != nil {
		if g.requiredBy(escaped, decoded, ok) != nil {
			return Route{Class: Required}
		}
		return Route{Class: Public}
	}
	if rule := g.ruleFor(escaped, normal); rule != nil {
		return Route{Class: rule.class}
	}
	return Route{Class: Required}
}

// ruleFor returns the rule that opens a path, or nil. Servers route by a path's
// spelling or by its normal form, so a rule must open both, and the stricter
// rule counts: /%61pi is not opened by a rule for /api, nor by one for /* when
// /api has a stricter one.
func (g *Rules) ruleFor(escaped, normal string) *rule {
	spelled := g.mostSpecific(escaped)
	if spelled == nil || normal == escaped {
		return spelled
	}
	if meant := g.mostSpecific(normal); meant == nil || meant.class < spelled.class {
		return meant
	}
	return spelled
}

func (g *Rules) mostSpecific(path string) *rule {
	for i := range g.rules {
		if g.rules[i].matches(path) {
			return &g.rules[i]
		}
	}
	return nil
}

// Canonical percent-decodes a path that is its own normal form; see normalize.
func Canonical(escaped string) (decoded string, ok bool) {
	normal, decoded, ok := normalize(escaped)
	if !ok || normal != escaped {
		return "", false
	}
	return decoded, true
}

// normalize returns the normal form of an escaped path (RFC 3986 6.2.2) and its
// decoded form. ok means that all servers which decode the path read the same
// plain segments: it begins with "/", has no "//" and no "." or ".." segment,
// and decodes to UTF-8 without control bytes and without \ ; % # and ?.
//
// Only the bytes that need it may be percent-encoded, and the unreserved ones
// but the dot: %7E is ~, and %e5 is %E5. Also "[" and "]" may stand raw, since
// net/url leaves them so. An encoded slash or dot has a meaning of its own for
// some servers, as %2B and other reserved characters have.
func normalize(escaped string) (normal, decoded string, ok bool) {
	if escaped == "" || escaped[0] != '/' {
		return "", "", false
	}
	encoded, changed := false, false
	for i := 0; i < len(escaped); i++ {
		switch c := escaped[i]; {
		case c == '%':
			b, ok := unhex(escaped[i+1:])
			if !ok || isLiteral(b) && !isUnreserved(b) || b == '.' ||
				b < 0x20 || b == 0x7f || strings.IndexByte(`\;%#?`, b) >= 0 {
				return "", "", false
			}
			encoded = true
			changed = changed || isUnreserved(b) || escaped[i+1] >= 'a' || escaped[i+2] >= 'a'
			i += 2
		case c == '[' || c == ']':
			changed = true
		case !isLiteral(c):
			return "", "", false
		case c == '/' && isDotOrEmpty(escaped[i+1:]):
			return "", "", false
		}
	}
	normal, decoded = escaped, escaped
	if encoded {
		if decoded = decodeOnce(escaped); !utf8.ValidString(decoded) {
			return "", "", false
		}
	}
	if changed {
		normal = encode(decoded)
	}
	return normal, decoded, true
}

// isDotOrEmpty reports whether rest, which follows a slash, begins with a "." or
// ".." segment, or with an empty segment before another slash. A slash at the
// end of the path is neither.
func isDotOrEmpty(rest string) bool {
	if rest == "" || rest[0] != '/' && rest[0] != '.' {
		return false
	}
	segment, _, _ := strings.Cut(rest, "/")
	return segment == "" || segment == "." || segment == ".."
}

// literalTable marks the bytes that stand raw in a normal path: pchar of
// RFC 3986 3.3 except ";", and "/".
var literalTable = func() (t [256]bool) {
	for i := range t {
		t[i] = isUnreserved(byte(i)) || strings.IndexByte("!$&'()*+,=:@/", byte(i)) >= 0
	}
	return t
}()

func isLiteral(c byte) bool { return literalTable[c] }

// isUnreserved reports whether RFC 3986 2.3 gives c no meaning in a URI.
func isUnreserved(c byte) bool {
	return foldTable[c] != '-' || c == '-' || c == '.' || c == '_' || c == '~'
}

// unhex returns the byte that two hexadecimal digits at the start of s encode.
func unhex(s string) (byte, bool) {
	if len(s) < 2 {
		return 0, false
	}
	high, low := hexTable[s[0]], hexTable[s[1]]
	return high<<4 | low, high < 16 && low < 16
}

// hexTable holds the value of each hexadecimal digit, and 255 for other bytes.
var hexTable = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(strings.IndexByte("0123456789abcdef", foldTable[i]))
	}
	return t
}()

// decodeOnce percent-decodes s and leaves an invalid encoding as it is.
func decodeOnce(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
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

// encode percent-encodes the bytes of a decoded path that may not stand raw.
func encode(decoded string) string {
	b := make([]byte, 0, len(decoded)+16)
	for i := range len(decoded) {
		c := decoded[i]
		if isLiteral(c) {
			b = append(b, c)
		} else {
			const digits = "0123456789ABCDEF"
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
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

func (r *rule) matches(path string) bool {
	return r.path == path || r.below && strings.HasPrefix(path, r.path)
}

// newRules returns the rules of both lists, the most specific first: exact
// paths, then longer prefixes.
func newRules(public, optional []string, own *endpoints) ([]rule, error) {
	var rules []rule
	lists := map[Class][]string{Public: public, Optional: optional}
	for _, class := range []Class{Public, Optional} {
		for _, p := range lists[class] {
			if err := ValidatePattern(p); err != nil {
				return nil, err
			}
			path, below := strings.CutSuffix(p, "*")
			if decoded, _ := Canonical(path); own.holds(decoded) {
				return nil, errUnderEndpoints(p, own)
			}
			for _, other := range rules {
				switch {
				case other.origin != p:
				case other.class != class:
					return nil, fmt.Errorf(
						"path pattern %q: listed as public and as optional; keep one", p)
				default:
					return nil, fmt.Errorf("path pattern %q: listed twice; keep one", p)
				}
			}
			rules = append(rules, rule{path, below, class, p})
		}
	}
	slices.SortFunc(rules, func(a, b rule) int {
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

func errUnderEndpoints(pattern string, own *endpoints) error {
	return fmt.Errorf("path pattern %q: everything under %s is answered by the gate itself; "+
		"remove the pattern or choose another endpoints prefix", pattern, own.prefix)
}

// ValidatePattern reports why p is no path pattern, and what to write instead. A
// pattern is one canonical path, as /healthz, or a prefix with a final "/*", as
// /assets/*, which means /assets/ and everything below, but not /assets.
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
		fault = "* is allowed as the last segment only; " +
			"write one path such as /healthz, or a prefix such as /assets/*"
	case !canonical:
		fault = `not in canonical form, so it would never match; leave out "//", "." and ".." ` +
			`segments, \ and ;, and percent-encode, in upper case, just what is not a letter, ` +
			"a digit or one of -._~!$&'()*+,=:@/"
	default:
		return nil
	}
	return fmt.Errorf("path pattern %q: %s", p, fault)
}
