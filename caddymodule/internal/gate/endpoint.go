package gate

import (
	"fmt"
	"strings"
)

// endpoints is the part of the path space that the gate answers itself.
type endpoints struct {
	prefix   string
	segments []string          // of prefix
	names    map[string]string // exact path to name
}

func newEndpoints(prefix string, names []string) endpoints {
	e := endpoints{
		prefix: prefix, segments: splitPath(prefix), names: make(map[string]string, len(names)),
	}
	for _, name := range names {
		e.names[prefix+"/"+name] = name
	}
	return e
}

func splitPath(path string) []string { return strings.Split(strings.TrimPrefix(path, "/"), "/") }

// ValidateEndpoints reports why prefix cannot be the prefix of the gate's
// endpoints, and what to write instead.
func ValidateEndpoints(prefix string) error {
	fault := ""
	switch _, canonical := Canonical(prefix); {
	case prefix == "":
		fault = "empty"
	case prefix[0] != '/':
		fault = "a path begins with a slash"
	case strings.HasSuffix(prefix, "/"):
		fault = "it ends in a slash"
	case !canonical || strings.ContainsFunc(prefix[1:], notInPrefix):
		fault = "its segments may hold letters, digits, hyphens and underscores only"
	default:
		return nil
	}
	return fmt.Errorf("endpoints prefix %q: %s; write a plain path such as /wx", prefix, fault)
}

func notInPrefix(c rune) bool {
	return c >= 0x80 || foldTable[c] == '-' && c != '-' && c != '_' && c != '/'
}

// route classifies a path that the prefix holds. An endpoint answers only to its
// exact spelling (docs/threats.md#t12).
func (e *endpoints) route(escaped string) Route {
	if name, ok := e.names[escaped]; ok {
		return Route{Class: Endpoint, Endpoint: name}
	}
	return Route{Class: NotFound}
}

// Under reports whether a decoded path without dot segments lies at or under
// prefix for the most forgiving server: without regard to case, and to blanks
// and dots at the ends of a segment. prefix is a plain path without a final
// slash.
func Under(path, prefix string) bool {
	e := endpoints{segments: splitPath(prefix)}
	return e.holds(path)
}

// holds is Under for the prefix of the endpoints.
func (e *endpoints) holds(path string) bool {
	for _, want := range e.segments {
		if path == "" || path[0] != '/' {
			return false
		}
		segment := path[1:]
		path = ""
		if i := strings.IndexByte(segment, '/'); i >= 0 {
			segment, path = segment[:i], segment[i:]
		}
		if !sameSegment(segment, want) {
			return false
		}
	}
	return true
}

// sameSegment ignores case, and the blanks and dots that some file systems drop.
func sameSegment(segment, want string) bool {
	if len(segment) < len(want) {
		return false
	}
	for segment != "" && segment[0] <= ' ' {
		segment = segment[1:]
	}
	for n := len(segment); n > 0 && (segment[n-1] <= ' ' || segment[n-1] == '.'); n-- {
		segment = segment[:n-1]
	}
	return strings.EqualFold(segment, want)
}
