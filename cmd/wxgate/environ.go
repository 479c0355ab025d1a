package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// printSafely does what `run --environ` asks for, without the values that may be
// secrets (P6), and returns the arguments with the flag switched off. systemd's stock
// unit for Caddy has the flag, and its journal keeps what the gate prints.
func printSafely(args []string, out io.Writer) []string {
	run := &cobra.Command{Use: "run"}
	caddycmd.Commands()["run"].CobraFunc(run)
	flags := run.Flags()
	if flags.Parse(args[2:]) != nil {
		return args // Caddy reports the error
	}
	if asked, _ := flags.GetBool("environ"); !asked {
		return args
	}
	files, _ := flags.GetStringSlice("envfile")
	writeEnvironment(out, os.Environ(), files)
	end := len(args)
	if n := flags.ArgsLenAtDash(); n >= 0 {
		end -= flags.NArg() - n + 1 // before the two dashes
	}
	return slices.Insert(slices.Clone(args), end, "--environ=false") // the last one counts
}

// harmless are the variables whose values help to find a fault and hold no secret.
// Any other name may hold one, whatever it is called.
var harmless = []string{
	"GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "HOME", "HOSTNAME", "LANG", "LOGNAME", "PATH",
	"PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "TZ", "USER", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
	"INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET",
}

func writeEnvironment(out io.Writer, env, files []string) {
	_, version := caddy.Version()
	fmt.Fprintf(out, "caddy.AppDataDir=%s\ncaddy.AppConfigDir=%s\ncaddy.Version=%s\n",
		caddy.AppDataDir(), caddy.AppConfigDir(), version)
	fmt.Fprintf(out, "runtime.GOOS=%s\nruntime.GOARCH=%s\nruntime.Version=%s\n",
		runtime.GOOS, runtime.GOARCH, runtime.Version())
	for _, file := range files {
		fmt.Fprintf(out, "envfile=%s\n", file)
	}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		if value != "" && !slices.Contains(harmless, name) {
			value = "(hidden)"
		}
		fmt.Fprintf(out, "%s=%s\n", name, value)
	}
}
