package main

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// splitFlags splits build_flags into arguments: blanks separate, single and double quotes keep blanks. Escapes and
// comments, which xcaddy's splitter has too, are refused rather than read in two ways.
func splitFlags(s string) ([]string, error) {
	if i := strings.IndexAny(s, `\#`); i >= 0 {
		return nil, fmt.Errorf("has %q; use plain words and quotes", s[i])
	}
	var (
		flags []string
		word  strings.Builder
		open  bool // inside a word
		quote rune // 0 outside quotes
	)
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, open = r, true
		case quote == 0 && unicode.IsSpace(r):
			if open {
				flags = append(flags, word.String())
				word.Reset()
			}
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if quote != 0 {
		return nil, errors.New("has an unclosed quote")
	}
	if open {
		flags = append(flags, word.String())
	}
	return flags, nil
}
