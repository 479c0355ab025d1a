package logformat

import (
	"bytes"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

// secretParams are the parameters whose values no log shows.
var secretParams = []string{"code", "js_code", "session_key", "access_token", "secret", "wx_ticket"}

// ownQueries begin the queries of the gate's endpoints under their default prefix.
// Clients send codes and data there by mistake. Under another prefix the names of
// the parameters tell.
var ownQueries = []string{
	"/wx/login?", "/wx/logout?", "/wx/session?", "/wx/sessions?", "/wx/decrypt?",
	"/wx/phone?", "/wx/ticket?",
}

// window is how much of the decoded text mask looks back at: longer than each
// name, prefix and path above.
const window = 16

// mask replaces secrets by asterisks, in place. It decodes the line character by
// character, so that an encoded secret is masked like a plain one
// (docs/threats.md#t40).
func mask(line []byte) {
	var seen [window]byte // the decoded characters before i, the last one at the end
	for i := 0; i < len(line); {
		c, n := char(line[i:])
		copy(seen[:], seen[1:])
		seen[window-1] = c
		i += n
		switch {
		case bytes.HasSuffix(seen[:], []byte(keyring.TokenPrefix)):
			i = maskWhile(line, i, isTokenByte)
		case c == '"' && endsCode(seen[:]):
			i = maskWhile(line, i, inQuery)
		case c == '=' && endsParam(seen[:window-1]), c == '?' && endsPath(seen[:]):
			i = maskWhile(line, i, inQuery)
			if c == '?' {
				i = maskQuery(line, i)
			}
		}
	}
}

// maskQuery masks the parameters after the first one.
func maskQuery(line []byte, i int) int {
	for i < len(line) {
		c, n := char(line[i:])
		if c != '&' {
			return i
		}
		i = maskWhile(line, i+n, inQuery)
	}
	return i
}

// maskWhile masks the characters from i on that belong to a secret, and returns
// where they end.
func maskWhile(line []byte, i int, belongs func(byte) bool) int {
	for i < len(line) {
		c, n := char(line[i:])
		if !belongs(c) {
			return i
		}
		for range n {
			line[i] = '*'
			i++
		}
	}
	return i
}

func isTokenByte(c byte) bool { return isNameByte(c) || c == '-' }

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

// inQuery reports whether a character belongs to the value of a parameter.
func inQuery(c byte) bool { return c > ' ' && c != '&' && c != '"' && c != '#' }

// endsParam reports whether the text ends with the whole name of a secret
// parameter.
func endsParam(text []byte) bool {
	for _, name := range secretParams {
		rest, ok := bytes.CutSuffix(bytes.ToLower(text), []byte(name))
		if ok && !isTokenByte(rest[len(rest)-1]) {
			return true
		}
	}
	return false
}

// endsCode reports whether the text ends where the access log shows the code of a
// client with the dialect wafer.
func endsCode(text []byte) bool { return bytes.HasSuffix(text, []byte(`"X-Wx-Code":["`)) }

func endsPath(text []byte) bool {
	for _, path := range ownQueries {
		if bytes.HasSuffix(text, []byte(path)) {
			return true
		}
	}
	return false
}

// char decodes the first character of a line and returns its length there:
// percent-encoded, once or more often, or escaped as \u0026 in JSON, or plain.
func char(line []byte) (c byte, n int) {
	switch {
	case line[0] == '%':
		n = 1
		for len(line) >= n+4 && line[n] == '2' && line[n+1] == '5' {
			if _, ok := unhex(line[n+2:]); !ok {
				break
			}
			n += 2
		}
		if c, ok := unhex(line[n:]); ok {
			return c, n + 2
		}
	case len(line) >= 6 && line[0] == '\\' && line[1] == 'u' && line[2] == '0' && line[3] == '0':
		if c, ok := unhex(line[4:]); ok {
			return c, 6
		}
	case len(line) >= 2 && line[0] == '\\' && line[1] == '\\':
		return '\\', 2
	case len(line) >= 2 && line[0] == '\\' && line[1] == '"':
		return '\'', 2 // a quote within a string does not end it
	}
	return line[0], 1
}

// unhex decodes two hexadecimal digits.
func unhex(s []byte) (c byte, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	for _, d := range s[:2] {
		switch {
		case '0' <= d && d <= '9':
			c = c<<4 | (d - '0')
		case 'a' <= d|0x20 && d|0x20 <= 'f':
			c = c<<4 | (d | 0x20 - 'a' + 10)
		default:
			return 0, false
		}
	}
	return c, true
}
