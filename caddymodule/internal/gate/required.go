package gate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// errRequiredAlone refuses two ways to say which paths are open.
var errRequiredAlone = errors.New("required makes every other path public; " +
	"take out public and optional, or required")

// newRequired returns the areas of the paths that need a session. Nil means all paths
// but those that a rule opens.
func newRequired(c Config, own *endpoints) (areas []endpoints, err error) {
	if len(c.Required) > 0 && len(c.Public)+len(c.Optional) > 0 {
		return nil, errRequiredAlone
	}
	for i, p := range c.Required {
		if err := ValidatePattern(p); err != nil {
			return nil, err
		}
		decoded, _ := Canonical(strings.TrimSuffix(p, "*"))
		path := strings.TrimSuffix(decoded, "/")
		switch {
		case path == "":
			return nil, fmt.Errorf("path pattern %q: without the word required "+
				"every path needs a session; leave it out", p)
		case own.holds(decoded):
			return nil, errUnderEndpoints(p, own)
		case slices.Contains(c.Required[:i], p):
			return nil, fmt.Errorf("path pattern %q: listed twice; keep one", p)
		}
		areas = append(areas, endpoints{prefix: p, segments: splitPath(path), suffixes: true})
	}
	return areas, nil
}

// requiredBy returns the area that a path may belong to for some server, or nil. The
// area of /api and of /api/* is /api with everything below it and /api.json: servers
// take them for one. normal says that all servers read the path as decoded.
func (g *Rules) requiredBy(escaped, decoded string, normal bool) *endpoints {
	for i := range g.required {
		area := &g.required[i]
		if normal && area.holds(decoded) || !normal && area.mayReach(escaped) {
			return area
		}
	}
	return nil
}

// unreadable reports whether a path has readings that no search knows: bytes that are
// no text, or no slash in front.
func unreadable(escaped string) bool {
	full := decodeFully(escaped)
	return full == "" || full[0] != '/' || !utf8.ValidString(full) ||
		strings.ContainsFunc(full, func(c rune) bool { return c < 0x20 || c == 0x7f })
}
