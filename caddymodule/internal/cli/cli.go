// Package cli owns what the commands of wxgate share: exit statuses, and how text,
// times, sizes and amounts look on a terminal.
//
// It must not know any command, nor Caddy.
package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	Failed      = 1 // refused or failed
	Unreachable = 2 // the gate or the store does not answer
)

// exit is an error that the command has printed, with its exit status.
type exit struct {
	error
	ExitCode int
}

func (e *exit) Unwrap() error { return e.error }

// ExitWith prints why a command ends, in the one form that all have, and returns the
// error that ends it with a status.
func ExitWith(cmd *cobra.Command, status int, err error) error {
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), err)
	return &exit{err, status}
}

// Run adapts a function that returns an exit status to cobra. A nil error is exit
// status 0.
func Run(
	run func(cmd *cobra.Command, args []string) (status int, err error),
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cmd.SilenceUsage = true
		if status, err := run(cmd, args); err != nil {
			return ExitWith(cmd, status, err)
		}
		return nil
	}
}

// Text makes text from elsewhere safe for a terminal.
func Text(s string) string {
	if strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// Time returns a time as tables show it, in UTC; - for none.
func Time(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// Size returns a number of bytes in B, KiB or MiB.
func Size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// Amount returns a number with its noun, in the plural unless it is 1.
func Amount(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
