package gate

import (
	"fmt"
	"path"
	"strings"
)

// endpoints is the part of the path space that the gate answers itself.
type endpoints struct {
	prefix   string
	segments []string          // of prefix
	names    map[string]string // exact path to name
	trees    []tree            // endpoints with all that is below them
	suffixes bool              // of the word required: /api.json is /api
}

// tree is an endpoint of Config.VerifyEndpoints.
type tree struct {
	path string
	Route
}

func newEndpoints(prefix string, names []string, verify map[string]Class) endpoints {
	e := endpoints{
		prefix: prefix, segments: splitPath(prefix), names: make(map[string]string, len(names)),
	}
	for _, name := range names {
		e.names[prefix+"/"+name] = name
	}
	for name, class := range verify {
		e.trees = append(e.trees, tree{prefix + "/" + name, Route{class, name}})
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

// newReserved returns the areas of Config.Reserved.
func newReserved(paths []string, own *endpoints) (areas []endpoints, err error) {
	for _, p := range paths {
		if ValidateEndpoints(p) != nil {
			return nil, fmt.Errorf("path %q: write a plain path such as /push", p)
		}
		if own.holds(p) {
			return nil, errUnderEndpoints(p, own)
		}
		areas = append(areas, endpoints{prefix: p, segments: splitPath(p), suffixes: true})
	}
	return areas, nil
}

func notInPrefix(c rune) bool {
	return c >= 0x80 || foldTable[c] == '-' && c != '-' && c != '_' && c != '/'
}

// verify returns the route of a path that is, or lies below, one of VerifyEndpoints.
// A proxy appends its client's path, so nothing behind the name counts, whatever it
// looks like.
func (e *endpoints) verify(escaped string) (Route, bool) {
	for i := range e.trees {
		t := &e.trees[i]
		if rest, ok := strings.CutPrefix(escaped, t.path); ok && (rest == "" || rest[0] == '/') {
			return t.Route, true
		}
	}
	return Route{}, false
}

// route classifies a path that the prefix holds. An endpoint answers only to its
// exact spelling (docs/threats.md#t12).
func (e *endpoints) route(escaped string) Route {
	if name, ok := e.names[escaped]; ok && escaped[len(escaped)-1] != '/' {
		return Route{Class: Endpoint, Endpoint: name}
	}
	parent, last := path.Split(escaped)
	if name, ok := e.names[parent]; ok && last != "" {
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
	for i := range e.segments {
		if path == "" || path[0] != '/' {
			return false
		}
		segment := path[1:]
		path = ""
		if end := strings.IndexByte(segment, '/'); end >= 0 {
			segment, path = segment[:end], segment[end:]
		}
		if !e.same(segment, i) {
			return false
		}
	}
	return true
}

// same reports whether some server takes a segment for the one at i.
func (e *endpoints) same(segment string, i int) bool {
	want := e.segments[i]
	if sameSegment(segment, want) {
		return true
	}
	if !e.suffixes || i < len(e.segments)-1 {
		return false
	}
	for dot := range len(segment) {
		if segment[dot] == '.' && sameSegment(segment[:dot], want) {
			return true
		}
	}
	return false
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
