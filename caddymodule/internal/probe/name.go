package probe

import (
	"slices"
	"strings"
)

// familyPrefix, folded, begins every name of WeChat's gateway. A gate that uses
// one of them owns them all.
const familyPrefix = "x-wx-"

// fold maps names to one that some server may take for the same: CGI-like servers
// ignore case and know one punctuation character. It goes byte by byte, so that
// places in the result are places in the name.
func fold(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case 'A' <= c && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case !isAlphanumeric(c):
			b[i] = '-'
		}
	}
	return string(b)
}

// owned reports whether only the gate may set a header of this name.
func (p *probe) owned(name string) bool {
	folded := fold(strings.TrimSpace(name))
	return slices.ContainsFunc(p.Identity, func(own string) bool { return fold(own) == folded }) ||
		p.ownsFamily() && strings.HasPrefix(folded, familyPrefix)
}

func (p *probe) ownsFamily() bool {
	return slices.ContainsFunc(p.Identity,
		func(own string) bool { return strings.HasPrefix(fold(own), familyPrefix) })
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// punctuation may stand in a header name beside letters, digits and hyphens
// (RFC 9110 5.6.2).
const punctuation = "_.!#$%&'*+^`|~"

func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '-' && strings.IndexByte(punctuation, c) < 0 {
			return false
		}
	}
	return s != ""
}

// canonical reports whether every server reads a path in the same way.
func canonical(path string) bool {
	odd := func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`\;%#?*"<>[]|`, c)
	}
	if !strings.HasPrefix(path, "/") || strings.ContainsFunc(path, odd) {
		return false
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		if segment == "." || segment == ".." || segment == "" && path != "/" {
			return false
		}
	}
	return true
}

// changed returns a credential line whose value is not good any more: each part
// that could be the token has another character in its middle.
func changed(line string) string {
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	if strings.EqualFold(name, "Cookie") {
		pairs := strings.Split(value, ";")
		for i, pair := range pairs {
			if key, v, ok := strings.Cut(pair, "="); ok {
				pairs[i] = key + "=" + changedToken(v)
			}
		}
		return name + ": " + strings.Join(pairs, ";")
	}
	at := strings.LastIndexByte(value, ' ') + 1
	return name + ": " + value[:at] + changedToken(value[at:])
}

func changedToken(token string) string {
	b := []byte(token)
	for i := len(b) / 2; i < len(b); i++ {
		if isAlphanumeric(b[i]) {
			b[i] = map[bool]byte{true: 'b', false: 'a'}[b[i] == 'a']
			return string(b)
		}
	}
	return token + "x"
}

// token returns the last credential line that is a header of its own and not a
// cookie, or nothing.
func (p *probe) token() string {
	for _, line := range slices.Backward(p.Credential) {
		if name, _, _ := strings.Cut(line, ":"); !strings.EqualFold(name, "Cookie") {
			return line
		}
	}
	return ""
}

// secrets returns the parts of the credential that no report may hold, the longest
// first.
func (p *probe) secrets() (parts []string) {
	for _, line := range p.Credential {
		for _, text := range []string{line, changed(line)} {
			_, value, _ := strings.Cut(text, ":")
			parts = append(parts, strings.TrimSpace(value))
			between := func(c rune) bool { return strings.ContainsRune(" ;,=\"", c) }
			for _, word := range strings.FieldsFunc(value, between) {
				if len(word) >= 8 {
					parts = append(parts, word)
				}
			}
		}
	}
	slices.SortFunc(parts, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(parts)
}

// presentable cuts evidence to a line and takes the credential out.
func (p *probe) presentable(evidence string) string {
	for _, secret := range p.secrets() {
		evidence = strings.ReplaceAll(evidence, secret, "(credential)")
	}
	const longest = 160
	if len(evidence) > longest {
		evidence = evidence[:longest] + "..."
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, evidence)
}
