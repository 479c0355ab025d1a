package gate

import (
	"slices"
	"strings"
)

// A reading is a form in which some server sees a path that is not canonical.
// Servers decode a path once or twice, take "\" for "/", cut ";parameters" off
// its segments, collapse "//", resolve dot segments and end it at a decoded "?",
// "#" or NUL, each in an order of its own, and a proxy and the app behind it
// disagree. /a%2f..%2fwx, /;x/wx and /wx//login are readings of the prefix /wx.
//
// mayReach searches all readings: it applies each step to each form found so
// far. A form is a hit when a walk along its segments stands on the prefix.

// The limits of the search. A path beyond them may reach the prefix, so its
// answer is 404. Paths of honest clients have two or three readings.
const (
	maxPath     = 1024 // longest path that is searched
	maxWork     = 4096 // for all readings, in bytes
	readingWork = 192  // for a reading beside its length
)

// mayReach reports whether some server may read a path that is not canonical as
// one at or under the prefix.
func (e *endpoints) mayReach(path string) bool {
	if !e.mentioned(path) {
		return false
	}
	if len(path) > maxPath {
		return true
	}
	readings := []string{path}
	work := len(path)
	for i := 0; i < len(readings); i++ {
		if e.crossedBy(readings[i]) {
			return true
		}
		for _, step := range readingSteps {
			next := step(readings[i])
			if slices.Contains(readings, next) {
				continue
			}
			if work += len(next) + readingWork; work > maxWork {
				return true
			}
			readings = append(readings, next)
		}
	}
	return false
}

// mentioned reports whether the last segment of the prefix appears in path once
// it is decoded completely. No reading reaches the prefix without it, so the
// search is for few of the unusual paths.
func (e *endpoints) mentioned(path string) bool {
	last := len(e.segments) - 1
	path = decodeFully(path)
	start := 0
	for i := range len(path) {
		if segmentEnd[path[i]] {
			if e.same(path[start:i], last) {
				return true
			}
			start = i + 1
		}
	}
	return e.same(path[start:], last)
}

// segmentEnd marks the bytes at which some reading ends a segment.
var segmentEnd = [256]bool{'/': true, '\\': true, ';': true, '?': true, '#': true, 0: true}

// crossedBy reports whether a walk along path, with dot segments resolved, ever
// stands on the prefix. A path that enters the prefix and leaves it again is
// under it for a server that does not resolve dot segments.
func (e *endpoints) crossedBy(path string) bool {
	depth, matched := 0, 0 // segments walked; how many of them, from the root, match the prefix
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		switch segment {
		case ".":
		case "..":
			depth = max(depth-1, 0)
			matched = min(matched, depth)
		default:
			if depth == matched && e.same(segment, matched) {
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

// readingSteps are the steps of servers before they route. A step returns a path
// to which it does not apply unchanged.
var readingSteps = [...]func(string) string{
	decodeOnce,
	func(p string) string { return strings.ReplaceAll(p, `\`, "/") },
	cutParameters,
	collapseSlashes,
	resolveDots,
	func(p string) string {
		if i := strings.IndexAny(p, "?#\x00"); i >= 0 {
			return p[:i]
		}
		return p
	},
}

// decodeFully percent-decodes until nothing is left to decode, in one pass: a
// byte that completes an encoding becomes a byte that may complete another.
func decodeFully(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		b = append(b, s[i])
		for n := len(b); n >= 3 && b[n-3] == '%'; n = len(b) {
			high, low := hexTable[b[n-2]], hexTable[b[n-1]]
			if high > 15 || low > 15 {
				break
			}
			b = append(b[:n-3], high<<4|low)
		}
	}
	return string(b)
}

// cutParameters removes the path parameters (";name=value") of every segment.
func cutParameters(path string) string {
	i := strings.IndexByte(path, ';')
	if i < 0 {
		return path
	}
	b := append(make([]byte, 0, len(path)), path[:i]...)
	for cut := true; i < len(path); i++ {
		switch path[i] {
		case '/':
			cut = false
		case ';':
			cut = true
		}
		if !cut {
			b = append(b, path[i])
		}
	}
	return string(b)
}

func collapseSlashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// resolveDots removes dot segments as RFC 3986 5.2.4 does, and keeps empty ones.
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
