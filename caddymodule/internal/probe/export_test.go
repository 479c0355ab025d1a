package probe

import (
	"bufio"
	"io"
	"strings"
)

// Parsers of foreign bytes, for the fuzz tests.
var (
	ReflectedValue = reflectedValue
	Changed        = changed
	Canonical      = canonical
)

// ReadEcho reads requests as the echo app does and returns all their lines.
func ReadEcho(bytes string) (lines []string) {
	br := bufio.NewReader(strings.NewReader(bytes))
	for {
		r, err := ReadRequest(br, io.Discard)
		lines = append(lines, r.Lines()...)
		r.Target()
		if err != nil {
			return lines
		}
	}
}
