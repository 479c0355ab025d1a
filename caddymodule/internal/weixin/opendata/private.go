package opendata

import (
	"fmt"
	"io"
)

const redacted = "[redacted]"

// private makes whatever embeds it unprintable: fmt, slog, encoding/json and loggers built on them show nothing of it.
type private struct{}

// String returns "[redacted]".
func (private) String() string { return redacted }

// Format writes String for every verb.
func (private) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns String.
func (private) MarshalText() ([]byte, error) { return []byte(redacted), nil }
