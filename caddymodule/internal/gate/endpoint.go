package gate

import (
	"fmt"
	"slices"
	"strings"
)

// endpoints is the part of the path space that the gate answers itself.
type endpoints struct {
	prefix   string
	segments []string          // of prefix
	names    map[string]string // exact path to name
}

func newEndpoints(prefix string, names []string) endpoints {
	e := endpoints{prefix: prefix, segments: strings.Split(prefix[1:], "/"), names: make(map[string]string)}
	for _, name := range names {
		e.names[prefix+"/"+name] = name
	}
	return e
}

// ValidateEndpoints reports why prefix cannot hold the gate's own endpoints, and what to write instead.
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

// route classifies a canonical path that the prefix holds.
func (e *endpoints) route(escaped string) Route {
	if name, ok := e.names[escaped]; ok {
		return Route{Class: Endpoint, Endpoint: name}
	}
	return Route{Class: NotFound}
}

// holds reports whether a decoded path without dot segments lies at or under the prefix.
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

// sameSegment compares as the most forgiving server would: without case, and without the blanks and dots that
// some file systems drop.
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

// Bounds of the search of mayReach.
const (
	maxReadings   = 64
	maxReadLength = 1024
)

// mayReach reports whether some server could read a path that is not canonical as lying at or under the prefix.
// It applies what servers are known to do to a path, in every order (a proxy and an app behind it may well
// disagree), and looks at each form on the way. When that would cost too much the answer is yes.
func (e *endpoints) mayReach(path string) bool {
	if !e.mentioned(path) {
		return false
	}
	if len(path) > maxReadLength {
		return true
	}
	readings := []string{path}
	for i := 0; i < len(readings); i++ {
		if e.crossedBy(readings[i]) {
			return true
		}
		for _, step := range readingSteps {
			next := step(readings[i])
			if slices.Contains(readings, next) {
				continue
			}
			if len(readings) == maxReadings {
				return true
			}
			readings = append(readings, next)
		}
	}
	return false
}

// mentioned reports whether the last segment of the prefix is anywhere in path once it is decoded to the end.
// Without it no reading can reach the prefix, and nearly all paths that are merely unusual stop here.
func (e *endpoints) mentioned(path string) bool {
	last := e.segments[len(e.segments)-1]
	for segment := range strings.FieldsFuncSeq(decodeFully(path), func(c rune) bool {
		return c == '/' || c == '\\' || c == ';' || isPathEnd(c)
	}) {
		if sameSegment(segment, last) {
			return true
		}
	}
	return false
}

// crossedBy walks along path, resolving its dot segments, and reports whether it ever stands on the prefix: a path
// that goes in and out again is under it for a server that does not resolve them.
func (e *endpoints) crossedBy(path string) bool {
	depth, matched := 0, 0 // segments we stand under; how many of them, from the root, are those of the prefix
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		switch segment {
		case ".":
		case "..":
			depth = max(depth-1, 0)
			matched = min(matched, depth)
		default:
			if depth == matched && sameSegment(segment, e.segments[matched]) {
				matched++
			}
			depth++
		}
		if matched == len(e.segments) {
			return true
		}
	}
	return false
}

// readingSteps are the things that servers do to a path before they route by it.
var readingSteps = [...]func(string) string{
	decodeOnce,
	func(p string) string { return strings.ReplaceAll(p, `\`, "/") },
	cutParameters,
	collapseSlashes,
	resolveDots,
	func(p string) string {
		if i := strings.IndexFunc(p, isPathEnd); i >= 0 {
			return p[:i]
		}
		return p
	},
}

// isPathEnd reports whether a server that decodes first and parses later would end the path here.
func isPathEnd(c rune) bool { return c == '?' || c == '#' || c == 0 }

// decodeFully percent-decodes until nothing is left to decode, in one pass: a byte that completes an encoding
// takes its place, and may complete another.
func decodeFully(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		b = append(b, s[i])
		for n := len(b); n >= 3 && b[n-3] == '%'; n = len(b) {
			c, ok := unhex(string(b[n-2:]))
			if !ok {
				break
			}
			b = append(b[:n-3], c)
		}
	}
	return string(b)
}

// cutParameters takes the path parameters (";name=value") off every segment.
func cutParameters(path string) string {
	if !strings.Contains(path, ";") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.Join(segments, "/")
}

func collapseSlashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// resolveDots removes dot segments as RFC 3986 5.2.4 does, keeping empty ones.
func resolveDots(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	var kept []string
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		switch segment {
		case ".":
		case "..":
			kept = kept[:max(len(kept)-1, 0)]
		default:
			kept = append(kept, segment)
		}
	}
	return "/" + strings.Join(kept, "/")
}
