package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

// Exit statuses of `wxgate wechat probe`.
const (
	probeFell  = 1
	probeBlind = 2
)

// probeOptions are the values of the flags.
type probeOptions struct {
	config     probe.Config
	echo       string
	headers    []string
	headerFile string
	json       bool
}

// probeCommand is `wxgate wechat probe`. It sends the attack table to any gate that
// has an echo behind it.
func probeCommand() *cobra.Command {
	var o probeOptions
	cmd := &cobra.Command{
		Use:   "probe [--echo ADDRESS] [-H HEADER]... [--public PREFIX] URL",
		Short: "Attacks a gate and reports what held",
		Long: `
Sends the attack table to a gate and reports which promises held: forged, respelt,
removed and trailing identity headers, tunnels, forged proxies, doubled and bad
credentials, paths. It sends a few hundred requests, four at a time; it is no load test.

The probe must see what the app receives. With --echo, the probe is the app: let the
gate's upstream point at that address while the probe runs. Without --echo, the URL must
lead to an endpoint behind the gate that answers with the headers of the request, in any
format. The probe then sees no trailers and no raw lines.

The probe sends the header of -H in rows that need a logged-in user. Keep the token out
of the process list: write it as {env.NAME}, or put the header into a file and name that
with --header-file (- reads standard input). The probe never prints header values.

The exit status is 0 when no row fell (the report lists the rows that were not tried),
1 when a row fell, 2 when the probe could not look.
`,
		Example: `  wxgate wechat probe --echo 127.0.0.1:8080 --public /public/ \
      -H 'Authorization: Bearer {env.TOKEN}' https://api.example.com/orders
  wxgate wechat probe https://api.example.com/public/headers`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				err := errors.New("give one URL: wxgate wechat probe URL; see --help")
				return cli.ExitWith(cmd, probeBlind, err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			o.config.URL = args[0]
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			status, err := o.run(ctx, cmd.InOrStdin(), cmd.OutOrStdout())
			if err != nil {
				return cli.ExitWith(cmd, status, err)
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return cli.ExitWith(cmd, probeBlind, fmt.Errorf("%w; see --help", err))
	})
	f := cmd.Flags()
	f.StringVar(&o.echo, "echo", "",
		"`ADDRESS` where the probe answers as the app; the gate's upstream points there")
	f.StringArrayVarP(&o.headers, "header", "H", nil,
		"`HEADER` of a logged-in user, 'Name: value'; {env.NAME} and {file./path} work; repeatable")
	f.StringVar(&o.headerFile, "header-file", "",
		"`FILE` of such headers, one a line; - for standard input")
	f.StringSliceVar(&o.config.Identity, "identity", probe.DefaultIdentity,
		"`HEADERS` of the identity that the gate sets, first the one that it always sets")
	f.StringVar(&o.config.Public, "public", "",
		"`PREFIX` under which the gate asks for nothing, such as /public/")
	f.StringVar(&o.config.Endpoints, "endpoints", "/wx", "`PREFIX` of the gate's own endpoints")
	f.BoolVar(&o.config.Insecure, "insecure", false, "Accept any certificate of the gate")
	f.DurationVar(&o.config.Timeout, "timeout", probe.DefaultTimeout,
		"`DURATION` that one request may take")
	f.BoolVar(&o.json, "json", false, "Print JSON")
	return cmd
}

// run probes, prints the report, and returns the exit status with the reason for it.
func (o *probeOptions) run(
	ctx context.Context, in io.Reader, out io.Writer,
) (status int, err error) {
	if o.config.Credential, err = o.credential(in); err != nil {
		return probeBlind, err
	}
	if o.config.Timeout <= 0 {
		return probeBlind, fmt.Errorf("timeout %s is too short", o.config.Timeout)
	}
	if o.echo != "" {
		if o.config.Echo, err = net.Listen("tcp", o.echo); err != nil {
			return probeBlind, fmt.Errorf("starting the echo app: %w", err)
		}
	}
	report, blind := probe.Run(ctx, o.config)
	if len(report.Rows) > 0 {
		if err := o.print(out, report); err != nil {
			return probeBlind, err
		}
	}
	if n := report.Count(probe.Fell); n > 0 {
		return probeFell, errors.Join(fmt.Errorf("%d of %d rows fell", n, len(report.Rows)), blind)
	}
	if blind != nil {
		return probeBlind, blind
	}
	return 0, nil
}

func (o *probeOptions) print(out io.Writer, report probe.Report) error {
	if !o.json {
		return report.WriteText(out)
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(report)
}

// credential collects the header lines of the flags and of the file.
func (o *probeOptions) credential(in io.Reader) (lines []string, err error) {
	fill := func(name string, value any) (any, error) {
		switch {
		case !strings.HasPrefix(name, "env.") && !strings.HasPrefix(name, "file."):
			return "{" + name + "}", nil // braces of the value itself
		case caddy.ToString(value) == "":
			return nil, fmt.Errorf("{%s} in a header is empty", name)
		}
		return value, nil
	}
	for _, line := range o.headers {
		line, err = caddy.NewReplacer().ReplaceFunc(line, fill)
		if err != nil {
			return nil, err
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	if o.headerFile == "" {
		return lines, nil
	}
	text, err := []byte(nil), error(nil)
	if o.headerFile == "-" {
		text, err = io.ReadAll(in)
	} else {
		text, err = os.ReadFile(o.headerFile)
	}
	if err != nil {
		return nil, fmt.Errorf("reading headers: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
