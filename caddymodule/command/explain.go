package command

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/wechatapp"
	"github.com/wxgate/wxgate/caddymodule/wechatauth"
)

// explainCommand is `wxgate wechat explain`: what the gate of a configuration
// would do with a request, and why, without sending anything. It asks no store,
// so it cannot tell whether a token is good; and it reads the configuration as
// written, so it needs no secret.
func explainCommand() *cobra.Command {
	var config, adapter string
	var headers []string
	cmd := &cobra.Command{
		Use:   "explain [--config <path>] [--adapter <name>] [-H <header>]... <method> <path or URL>",
		Short: "Tells what the gate would do with a request, and why",
		Long: `
Reads a configuration and tells what each of its gates would take from a request, which rule decides about its path, and how it ends. Nothing is sent, no store is asked and no
secret is needed, so whether a token is good is left open. With a URL in place of a path, only the gates of that host are asked. What runs before wechat_auth, such as rewrite,
is not looked at: give the path as it is afterwards.
`,
		Example: `  wxgate wechat explain --config Caddyfile GET /public/../admin -H 'X_WX_OPENID: somebody'
  wxgate wechat explain --config Caddyfile GET https://api.example.com/orders -H 'Connection: close, X-Wx-Openid'`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			text, _, _, err := caddycmd.LoadConfig(config, adapter)
			if err != nil {
				return err
			}
			gates, err := findGates(text)
			if err != nil {
				return err
			}
			r, err := parseRequest(args[0], args[1], headers)
			if err != nil {
				return err
			}
			return explain(cmd.OutOrStdout(), gates, r)
		},
	}
	cmd.Flags().
		StringVarP(&config, "config", "c", "", "Configuration file (default: the Caddyfile in this folder)")
	cmd.Flags().StringVarP(&adapter, "adapter", "a", "", "Name of the config adapter")
	cmd.Flags().
		StringArrayVarP(&headers, "header", "H", nil, "Header of the request, 'Name: value'; repeatable")
	return cmd
}

// siteGate is one wechat_auth of a configuration.
type siteGate struct {
	server string
	hosts  []string // that the site answers to; none means any
	gate   wechatauth.Handler
	phones bool // the app `wechat` remembers telephone numbers
}

// findGates reads every wechat_auth out of a configuration in JSON.
func findGates(config []byte) (found []siteGate, err error) {
	var c struct {
		Apps struct {
			WeChat struct {
				Phone wechatapp.Phone `json:"phone"`
			} `json:"wechat"`
			HTTP struct {
				Servers map[string]struct {
					Listen []string        `json:"listen"`
					Routes json.RawMessage `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	for _, s := range c.Apps.HTTP.Servers {
		gates, err := gatesIn(s.Routes, nil)
		if err != nil {
			return nil, err
		}
		for _, g := range gates {
			g.server, g.phones = strings.Join(s.Listen, ", "), c.Apps.WeChat.Phone.Remember
			found = append(found, g)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("the configuration holds no wechat_auth")
	}
	slices.SortStableFunc(found, func(a, b siteGate) int {
		return cmp.Or(strings.Compare(a.server, b.server), slices.Compare(a.hosts, b.hosts))
	})
	return found, nil
}

// gatesIn walks routes, and the routes inside their handlers.
func gatesIn(routes json.RawMessage, hosts []string) (found []siteGate, err error) {
	if routes == nil {
		return nil, nil
	}
	var list []struct {
		Match []struct {
			Host []string `json:"host"`
		} `json:"match"`
		Handle []json.RawMessage `json:"handle"`
	}
	if err := json.Unmarshal(routes, &list); err != nil {
		return nil, fmt.Errorf("reading routes: %w", err)
	}
	for _, route := range list {
		within := hosts
		for _, m := range route.Match {
			if len(m.Host) > 0 {
				within = m.Host
			}
		}
		for _, h := range route.Handle {
			var head struct {
				Handler string          `json:"handler"`
				Routes  json.RawMessage `json:"routes"`
			}
			if err := json.Unmarshal(h, &head); err != nil {
				return nil, fmt.Errorf("reading handler: %w", err)
			}
			if head.Handler == "wechat_auth" {
				g := siteGate{hosts: within}
				if err := json.Unmarshal(h, &g.gate); err != nil {
					return nil, fmt.Errorf("reading wechat_auth: %w", err)
				}
				found = append(found, g)
			}
			inner, err := gatesIn(head.Routes, within)
			if err != nil {
				return nil, err
			}
			found = append(found, inner...)
		}
	}
	return found, nil
}

// parseRequest makes the request as a server would have read it, odd names and
// paths included.
func parseRequest(method, target string, headers []string) (*http.Request, error) {
	host := ""
	if _, rest, ok := strings.Cut(target, "://"); ok {
		host, target, _ = strings.Cut(rest, "/")
		target = "/" + target
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, host)
	for _, h := range headers {
		if strings.ContainsAny(h, "\r\n") || !strings.Contains(h, ":") {
			return nil, fmt.Errorf("%q is not a header: write 'Name: value'", h)
		}
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(b.String())))
	if err != nil {
		return nil, fmt.Errorf("no server would read this request: %w", err)
	}
	return r, nil
}

// explain writes what each gate that the request may meet does with it.
func explain(out io.Writer, gates []siteGate, r *http.Request) error {
	met := 0
	for _, s := range gates {
		if !s.answersTo(r.Host) {
			continue
		}
		met++
		e, err := s.gate.Explain(r.Clone(r.Context()), s.phones)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s %s\n\n", r.Method, r.URL.RequestURI())
		row := func(name, text string) { fmt.Fprintf(out, "  %-12s%s\n", name, text) }
		row("site", strings.TrimSpace(strings.Join(s.hosts, " ")+" on "+s.server))
		row("path", e.Path)
		for i, rm := range e.Removed {
			row([]string{"removed", ""}[min(i, 1)], rm.What+": "+rm.Why)
		}
		if e.Token != "" {
			row("token", e.Token)
		}
		row("decision", e.Decision)
		fmt.Fprintln(out)
	}
	if met == 0 {
		return fmt.Errorf("no wechat_auth guards the host %s", r.Host)
	}
	return nil
}

// answersTo reports whether a request for a host may meet the gate.
func (s siteGate) answersTo(host string) bool {
	matches := func(site string) bool { return hostMatches(site, host) }
	return host == "" || len(s.hosts) == 0 || slices.ContainsFunc(s.hosts, matches)
}

// hostMatches compares a host of a site, which may begin with a wildcard label,
// with that of a request.
func hostMatches(site, host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if rest, ok := strings.CutPrefix(site, "*."); ok {
		_, host, _ = strings.Cut(host, ".")
		site = rest
	}
	return strings.EqualFold(site, host)
}
