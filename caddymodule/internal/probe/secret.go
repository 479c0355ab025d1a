package probe

import (
	"slices"
	"strings"
)

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

// secrets are the parts of the credential that must not be printed, the longest first.
func (p *probe) secrets() (parts []string) {
	for _, line := range p.Credential {
		_, value, _ := strings.Cut(line, ":")
		parts = append(parts, strings.TrimSpace(value), strings.TrimSpace(changed(line)[strings.Index(line, ":")+1:]))
		for _, text := range []string{value, changed(line)} {
			parts = append(parts, slices.DeleteFunc(strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" ;,=\"", c) }), func(s string) bool { return len(s) < 8 })...)
		}
	}
	slices.SortFunc(parts, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(parts)
}
