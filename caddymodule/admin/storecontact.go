package admin

import (
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// contactStatus is the state of the connection to a store that gates share.
type contactStatus struct {
	Since       time.Time `json:"since,omitzero"` // it has been up, or down
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	ClockAhead  string    `json:"clock_ahead,omitempty"` // of the server's; empty when they agree
}

// contactOf returns nil for a store without a connection.
func contactOf(c store.Contact) *contactStatus {
	if c.Since.IsZero() && c.LastError == nil {
		return nil
	}
	at := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	s := &contactStatus{Since: at(c.Since), LastSuccess: at(c.LastSuccess)}
	if c.LastError != nil {
		s.LastError, s.LastErrorAt = c.LastError.Error(), at(c.LastErrorAt)
	}
	if c.ClockAhead != 0 {
		s.ClockAhead = c.ClockAhead.Round(time.Millisecond).String()
	}
	return s
}

// write prints the state for a person.
func (s *contactStatus) write(row func(name, format string, args ...any)) {
	if s == nil {
		return
	}
	if !s.Since.IsZero() {
		row("", "so since %s", s.Since.Format(time.RFC3339))
	}
	if s.ClockAhead != "" {
		row("", "the clock of this machine is %s ahead of the server's", s.ClockAhead)
	}
	if s.LastError != "" {
		row("", "last error %s: %s", s.LastErrorAt.Format(time.RFC3339), s.LastError)
	}
}
