package probe

import (
	"net/http"
	"strings"
)

// asked tells whether a request reached the app.
type asked int

const (
	no asked = iota
	yes
	unsure
)

// line is a header or trailer line as the app saw it, and a form of it that can
// be compared.
type line struct{ text, key string }

// observation is what the app received of one request of the probe.
type observation struct {
	asked    asked
	requests []Request // with the echo app
	identity [][]line  // for each request that arrived: what its owned headers and trailers say
}

// observer reads what the app received.
type observer interface {
	observe(p *probe, t *trial) observation
}

// observe reads the echo app, which keeps every byte.
func (e *echo) observe(p *probe, t *trial) (s observation) {
	s.requests = e.marked(t.mark.id())
	for _, r := range s.requests {
		s.asked = yes
		var lines []line
		for _, text := range r.Lines()[1:] {
			// A lone CR ends a line for some servers, and a line that begins
			// with a blank begins one for others.
			for part := range strings.SplitSeq(text, "\r") {
				if name, value, _ := strings.Cut(part, ":"); p.owned(name) {
					lines = append(lines, newLine(name, value))
				}
			}
		}
		s.identity = append(s.identity, lines)
	}
	return s
}

func newLine(name, value string) line {
	value = strings.TrimSpace(value)
	return line{text: name + ": " + value, key: strings.ToLower(name) + ": " + value}
}

// reflection reads an answer for values of the request that occur nowhere else.
type reflection struct{}

func (reflection) observe(p *probe, t *trial) (s observation) {
	body, base := t.answer.Body, t.stage.base
	if at := strings.Index(body, t.mark.forged()); at >= 0 {
		s.identity = [][]line{{{text: surroundings(body, at), key: t.mark.forged()}}}
	}
	switch {
	case strings.Contains(body, t.mark.header()):
		s.asked = yes
	case base == nil, t.answer.Reset, t.answer.Header.Get("X-Wxgate") == "1",
		base.seen.asked != yes && t.answer.Status == base.answer.Status:
		return s
	default:
		s.asked = unsure
		return s
	}
	var honest []line
	if base == nil {
		for _, name := range p.Identity {
			if value := reflectedValue(body, name); value != "" {
				honest = append(honest, newLine(name, value))
			}
		}
	} else if len(base.seen.identity) > 0 {
		for _, l := range base.seen.identity[0] {
			if _, value, _ := strings.Cut(l.text, ": "); strings.Contains(body, value) {
				honest = append(honest, l)
			}
		}
	}
	if s.identity == nil {
		s.identity = [][]line{nil}
	}
	s.identity[0] = append(s.identity[0], honest...)
	return s
}

// surroundings returns the line of a text around a place in it.
func surroundings(text string, at int) string {
	from := max(strings.LastIndexByte(text[:at], '\n')+1, at-80)
	to := len(text)
	if end := strings.IndexByte(text[at:], '\n'); end >= 0 {
		to = at + end
	}
	return strings.TrimSpace(text[from:to])
}

// maxValue bounds where the end of a value is looked for.
const maxValue = 4096

// reflectedValue finds the value of a header in a text of any format: the name
// in any spelling, a little punctuation, the value.
func reflectedValue(text, name string) string {
	folded, want := fold(text), fold(name)
	for at := 0; ; {
		i := strings.Index(folded[at:], want)
		if i < 0 {
			return ""
		}
		from := at + i
		at = from + len(want)
		if from > 0 && isAlphanumeric(text[from-1]) || at == len(text) ||
			isAlphanumeric(text[at]) || strings.IndexByte("-_",
			text[at]) >= 0 {
			continue
		}
		value := strings.TrimLeft(text[at:min(at+maxValue, len(text))], "\"'])}=>: \t[({,")
		for strings.HasPrefix(value, "<") { // between the cells of a table
			_, value, _ = strings.Cut(value, ">")
		}
		if end := strings.IndexAny(value, "\"'<>[](){},; \t\r\n"); end >= 0 {
			value = value[:end]
		}
		if value != "" {
			return value
		}
	}
}

// refusal reports whether gates answer so to requests without a credential.
func refusal(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMovedPermanently,
		http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect,
		http.StatusPermanentRedirect:
		return true
	}
	return false
}
