package gate

import "strings"

// Under reports whether a decoded path without dot segments lies at or under prefix, as the most forgiving server would compare them: without case, and without the blanks and dots at the end of a
// segment. prefix is a plain path without a final slash.
func Under(path, prefix string) bool {
	e := endpoints{segments: strings.Split(strings.TrimPrefix(prefix, "/"), "/")}
	return e.holds(path)
}
