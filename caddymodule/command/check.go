package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/admin"
	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// checkTime bounds the whole command, whatever does not answer.
const checkTime = 8 * time.Second

// checkCommand is `wxgate wechat check`.
func checkCommand() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Checks all that a gate needs, before and while it runs",
		Long: `
Checks the way to WeChat (DNS, connection, TLS), each AppID and AppSecret and the IP
whitelist, the clock, the store and its master key, and the upstreams of a configuration;
and, if a gate runs, how it does. It needs no running gate. It sends WeChat a made-up
login code and asks for an access token without renewing it, and changes nothing.

One line each. It ends within 10 seconds, and names what has not answered. The exit
status is 0 when the gate may go live, warnings or not, and 1 when it may not.

With --local it only asks the running gate whether it is ready, for a container's
HEALTHCHECK: the exit status is 2 when no gate answers.
`,
		Example: `  wxgate wechat check --config /etc/wxgate/Caddyfile
  wxgate wechat check --local`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			if o.local {
				return o.checkLocal(cmd.OutOrStdout())
			}
			return o.check(cmd.Context(), cmd.OutOrStdout())
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&o.config, "config", "c", "",
		"Configuration `FILE` (default: the Caddyfile in this folder)")
	f.StringVarP(&o.adapter, "adapter", "a", "", "`NAME` of the config adapter")
	f.StringVar(&o.address, "address", "", "`ADDRESS` of the running gate's admin endpoint")
	f.BoolVar(&o.local, "local", false, "Only ask the running gate whether it is ready")
	f.BoolVar(&o.json, "json", false, "Print JSON")
	return cmd
}

type checkOptions struct {
	config, adapter, address string
	local, json              bool
}

// verdict is the outcome of one check.
type verdict string

const (
	checkedOK      verdict = "ok"
	checkedWarning verdict = "warning"
	checkedFailed  verdict = "FAILED"
	checkedSkipped verdict = "skipped"
)

// finding is one line of the command.
type finding struct {
	Check  string  `json:"check"`
	Target string  `json:"target,omitempty"`
	Result verdict `json:"result"`
	Detail string  `json:"detail,omitempty"`
}

// checks is a row of checks, of which each needs the one before. Rows run at the same
// time.
type checks struct {
	mu    sync.Mutex
	found []finding
	now   finding // under way
}

// begin names the check that is under way, for the case that it never ends.
func (c *checks) begin(check, target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = finding{Check: check, Target: target}
}

// end records the outcome of the check under way.
func (c *checks) end(v verdict, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now.Check == "" {
		return
	}
	f := c.now
	f.Result, f.Detail = v, fmt.Sprintf(format, args...)
	c.found = append(c.found, f)
	c.now = finding{}
}

// passes ends the check under way, and reports whether the row goes on.
func (c *checks) passes(err error, format string, args ...any) bool {
	if err != nil {
		c.end(checkedFailed, "%s", err)
		return false
	}
	c.end(checkedOK, format, args...)
	return true
}

// stop ends the row: what is under way has failed.
func (c *checks) stop() []finding {
	c.end(checkedFailed, "no answer within %s", checkTime)
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.found)
}

// runChecks runs the rows, and returns what they found in their order.
func runChecks(ctx context.Context, rows []func(context.Context, *checks)) (all []finding) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	made := make([]*checks, len(rows))
	var wg sync.WaitGroup
	for i, row := range rows {
		made[i] = new(checks)
		wg.Go(func() { row(ctx, made[i]) })
	}
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	select {
	case <-done:
	case <-ctx.Done():
		select { // most rows have their own word on why they end
		case <-done:
		case <-time.After(500 * time.Millisecond):
		}
	}
	for _, c := range made {
		all = append(all, c.stop()...)
	}
	return all
}

// check runs all checks.
func (o checkOptions) check(ctx context.Context, out io.Writer) (int, error) {
	began := &checks{}
	began.begin("configuration", o.config)
	raw, app, err := provisionApp(o.config, o.adapter)
	found := []finding{}
	if began.passes(err, "accepted") {
		began.begin("secrets", "")
		if missing := app.Missing(); len(missing) > 0 {
			began.end(checkedFailed, "%s is empty: set the environment variable or write "+
				"the file that it names", missing[0])
		} else {
			began.end(checkedOK, "all are set")
		}
		found = runChecks(ctx, append(checksOf(raw, app), o.checkGate))
	}
	return o.write(out, append(began.stop(), found...))
}

// checkLocal asks the running gate only.
func (o checkOptions) checkLocal(out io.Writer) (int, error) {
	c := new(checks)
	c.begin("gate", "")
	status := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		var s admin.Summary
		var err error
		s, status, err = admin.AskStatus(o.address, o.config, o.adapter)
		switch {
		case err != nil:
			c.end(checkedFailed, "%s", err)
		case s.Ready == wechatapp.Degraded: // a restart cures no outage of the store
			c.end(checkedOK, "ready, but degraded: its store is down")
		case s.Ready == wechatapp.Starting:
			status = cli.Failed
			c.end(checkedFailed, "starting: its store has not answered yet")
		default:
			c.end(checkedOK, "ready")
		}
	}()
	select {
	case <-done:
	case <-time.After(checkTime):
		status = cli.Unreachable
	}
	if _, err := o.write(out, c.stop()); err != nil {
		return status, err
	}
	return 0, nil
}

// checkGate asks the running gate, if there is one.
func (o checkOptions) checkGate(_ context.Context, c *checks) {
	c.begin("gate", o.address)
	s, status, err := admin.AskStatus(o.address, o.config, o.adapter)
	switch {
	case err != nil && status == cli.Unreachable && o.address == "":
		c.end(checkedSkipped, "none is running: %s", err)
	case err != nil:
		c.end(checkedFailed, "%s", err)
	case !s.StoreUp:
		c.end(checkedFailed, "its store is down: %s", s.Store)
	case s.WeChat != "":
		c.end(checkedFailed, "%s", s.WeChat)
	default:
		c.end(checkedOK, "runs, version %s", s.Version)
	}
}

// write prints the findings. The error says that the gate may not go live.
func (o checkOptions) write(out io.Writer, found []finding) (int, error) {
	failed := 0
	for _, f := range found {
		if f.Result == checkedFailed {
			failed++
		}
	}
	var err error
	if o.json {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(map[string]any{"ok": failed == 0, "checks": found})
	} else {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, f := range found {
			detail := f.Detail
			if f.Target != "" {
				detail = cli.Text(f.Target) + ": " + detail
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Result, f.Check, detail)
		}
		err = w.Flush()
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%s failed", cli.Amount(failed, "check"))
	}
	return cli.Failed, err
}
