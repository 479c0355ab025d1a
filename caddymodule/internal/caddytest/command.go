package caddytest

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// RunCommand runs a command. It returns the exit status, standard output, and the
// error with standard error.
func RunCommand(t testing.TB, cmd *cobra.Command, args ...string) (status int, out, said string) {
	t.Helper()
	return RunCommandWith(t, cmd, strings.NewReader(""), args...)
}

// RunCommandWith is RunCommand with a standard input.
func RunCommandWith(
	t testing.TB, cmd *cobra.Command, in io.Reader, args ...string,
) (status int, out, said string) {
	t.Helper()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true // as Caddy's root command does
	var stdout, stderr bytes.Buffer
	cmd.SetIn(in)
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return exitStatus(err), stdout.String(), fmt.Sprint(err) + stderr.String()
}

// exitStatus returns the exit status of Caddy's main for an error. Caddy does not
// export the type that holds it.
func exitStatus(err error) int {
	if err == nil {
		return 0
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		status := 1
		for _, e := range joined.Unwrap() {
			status = max(status, exitStatus(e))
		}
		return status
	}
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() == reflect.Struct && v.FieldByName("ExitCode").IsValid() {
		return int(v.FieldByName("ExitCode").Int())
	}
	return 1
}
