package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

// statusCommand is `wxgate wechat status`.
func statusCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "status [--json] [--address <interface>] [--config <path>]",
		Short: "Tells how the running gate does",
		Long: `
Asks the running gate for its store, cache, logins, limits and versions, and whether WeChat answers. The exit status is 0 when it answers, whatever it says, 1 when it refuses, 2 when it
cannot be reached.
`,
		Args: cobra.NoArgs,
		RunE: statusRun(func(cmd *cobra.Command, _ []string) (int, error) {
			return ask(&c, cmd, func() (*http.Response, int, error) { return c.send("GET", "/wechat/status", nil) }, writeStatus)
		}),
	}
	c.flags(cmd)
	c.jsonFlag(cmd)
	return cmd
}

func writeStatus(out io.Writer, s statusAnswer) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s%s\n", name, fmt.Sprintf(format, args...))
	}
	row("wxgate", "%s, Caddy %s, %s", s.Version.WXGate, s.Version.Caddy, s.Version.Go)
	row("store", "%s, %s", map[bool]string{true: "up", false: "DOWN"}[s.Store.Up], shown(s.Store.Name))
	if n := s.Store.Counts; n != nil {
		row("", "%s of %s, including ended ones not yet removed", amount(int(n.Sessions), "session"), amount(int(n.Users), "user"))
		row("", "%s, %s of it free", size(n.Bytes), size(n.FreeBytes))
	}
	if s.Store.Heard != "" {
		row("", "heard of %s ago", s.Store.Heard)
	}
	if s.Store.Owed > 0 {
		row("", "%s not taken by the store yet; this gate refuses those sessions and keeps trying", amount(s.Store.Owed, "revocation"))
	}
	row("cache", "%s of %d", amount(int(s.Cache.Sessions), "session"), s.Cache.Max)
	row("WeChat", "%s, %s", map[bool]string{false: "logins go out", true: "DOWN: the breaker is open, logins are refused at once"}[s.WeChat.BreakerOpen], s.WeChat.BaseURL)
	if s.WeChat.CallsRefused {
		row("", "DOWN: the breaker is open, calls for telephone numbers, keys and access tokens are refused at once")
	}
	row("logins", "%d under way, at most %d", s.Logins.InFlight, s.Logins.MaxInFlight)
	row("", "limits: %s per client, %s per private address, %s for all", s.Logins.PerClient, s.Logins.PerPrivate, s.Logins.Global)
	idle := "no idle limit"
	if s.Sessions.Idle != "" {
		idle = "idle " + s.Sessions.Idle
	}
	row("sessions", "life %s, %s, %s", s.Sessions.TTL, idle, atMost(s.Sessions.MaxPerUser))
	row("apps", "%s", strings.Join(s.Apps, " "))
	_, err := io.WriteString(out, b.String())
	return err
}

func atMost(n int) string {
	if n == 0 {
		return "any number per user"
	}
	return fmt.Sprintf("at most %d per user", n)
}
