package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Uniform makes all errors of a command and of those below it look the same: one line,
// without the usage, which --help shows. carry puts the exit status into each error.
func Uniform(cmd *cobra.Command, carry func(status int, err error) error) {
	// end prints an error that is not printed yet.
	end := func(cmd *cobra.Command, err error, hint string) error {
		if err == nil {
			return nil
		}
		said, ok := errors.AsType[*exit](err)
		if !ok {
			err = ExitWith(cmd, Failed, fmt.Errorf("%w%s", err, hint))
			said = err.(*exit)
		}
		return carry(said.ExitCode, err)
	}
	misused := func(cmd *cobra.Command, err error) error {
		return end(cmd, err, fmt.Sprintf("; see `%s --help`", cmd.CommandPath()))
	}
	cmd.SilenceUsage = true
	if cmd.Run == nil && cmd.RunE == nil {
		return
	}
	args, run, badFlag := cmd.Args, cmd.RunE, cmd.FlagErrorFunc()
	cmd.Args = func(cmd *cobra.Command, list []string) error {
		var err error
		if args != nil {
			err = args(cmd, list)
		}
		if err == nil {
			err = cmd.ValidateRequiredFlags()
		}
		return misused(cmd, err)
	}
	cmd.RunE = func(cmd *cobra.Command, list []string) error {
		return end(cmd, run(cmd, list), "")
	}
	for _, c := range cmd.Commands() {
		Uniform(c, carry)
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return misused(cmd, badFlag(cmd, err))
	})
}

// isTerminal is replaced by tests.
var isTerminal = func(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Consent is the flag --yes of a command that asks before it changes much.
type Consent struct{ yes bool }

// Flag adds --yes.
func (c *Consent) Flag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.yes, "yes", false, "Do not ask, as in a script")
}

// Ask returns nil with --yes, or if a person at the terminal consents to what is said.
// Without a terminal it refuses.
func (c *Consent) Ask(cmd *cobra.Command, what func() string) error {
	if c.yes {
		return nil
	}
	in := cmd.InOrStdin()
	if !isTerminal(in) {
		return errors.New("nothing was done: there is no terminal to ask at; say --yes")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s Go on? [y/N] ", what())
	answer, _ := bufio.NewReader(in).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done: the answer was not yes")
}
