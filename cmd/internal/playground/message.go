package playground

import (
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// Message is an HTTP request or answer, to be read by people.
type Message struct {
	Start string `json:"start"`
	Lines []Line `json:"lines"`
	Body  *Body  `json:"body,omitempty"`
}

// Line is one header.
type Line struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// By names who removed it from the request that was sent, or who added it to the
	// one that was received: "gate", "proxy", or "" for neither.
	By string `json:"by,omitempty"`
}

// Body is the beginning of a body.
type Body struct {
	Text string `json:"text"` // a hex dump of the beginning when Binary
	Size int    `json:"size"` // in bytes, of what was read
	// Binary says that the bytes are no UTF-8.
	Binary bool `json:"binary,omitempty"`
}

// maxDump bounds what is shown of a binary body, in bytes.
const maxDump = 1 << 10

// bodyOf returns nil for an empty body. Bytes that were cut in the middle of a character
// are text.
func bodyOf(b []byte, size int) *Body {
	if size == 0 {
		return nil
	}
	text := b
	for i := 0; i < utf8.UTFMax-1 && len(text) > 0 && !utf8.Valid(text); i++ {
		text = text[:len(text)-1]
	}
	if utf8.Valid(text) && (len(text) > 0 || len(b) == 0) {
		return &Body{Text: string(text), Size: size}
	}
	return &Body{Text: hex.Dump(b[:min(len(b), maxDump)]), Size: size, Binary: true}
}

// messageOf returns a request as a handler of Caddy sees it.
func messageOf(r *http.Request) *Message {
	return &Message{
		Start: r.Method + " " + r.URL.RequestURI() + " HTTP/1.1",
		Lines: append([]Line{{Name: "Host", Value: r.Host}}, linesOf(r.Header)...),
	}
}

func linesOf(h http.Header) (lines []Line) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			lines = append(lines, Line{Name: name, Value: value})
		}
	}
	return lines
}

func (m *Message) clone() *Message {
	if m == nil {
		return nil
	}
	c := *m
	c.Lines = slices.Clone(m.Lines)
	return &c
}

// has reports whether a header is there.
func (m *Message) has(name string) bool {
	return slices.ContainsFunc(m.Lines, func(l Line) bool { return l.Name == name })
}

// holds reports whether a header is there with the value, spelt in any case.
func (m *Message) holds(line Line) bool {
	value := strings.TrimSpace(line.Value)
	return slices.ContainsFunc(m.Lines, func(l Line) bool {
		return strings.EqualFold(l.Name, line.Name) && strings.TrimSpace(l.Value) == value
	})
}

// frames reports whether a header belongs to the transport of the message: handlers of
// Caddy see these not as headers.
func (l Line) frames() bool {
	switch strings.ToLower(l.Name) {
	case "host", "content-length", "transfer-encoding":
		return true
	}
	return false
}

// isToken reports whether s is a token of RFC 9110 5.6.2, such as a header's name.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", c)
	})
}

// escape percent-encodes the bytes of a path that no client sends raw, and leaves the
// rest as it is, dots and all.
func escape(path string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f {
			b.WriteString("%" + string(digits[c>>4]) + string(digits[c&15]))
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
