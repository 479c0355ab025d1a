package command

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/judge"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
	"github.com/wxgate/wxgate/caddymodule/wechatauth"
)

// explainCommand is `wxgate wechat explain`. It asks no store and needs no secret.
func explainCommand() *cobra.Command {
	var config, adapter string
	var headers []string
	cmd := &cobra.Command{
		Use:   "explain [-H HEADER]... METHOD PATH-OR-URL",
		Short: "Tells what the gate does with a request, and why",
		Long: `
Follows a request through the routes of a configuration, by Caddy's own matchers, and
tells what each wechat_auth takes from it, which rule decides about its path, and how it
ends; or that it reaches the app without a gate. Nothing is sent, no store is asked and
no secret is needed, so the command does not know whether a token is valid. With a URL,
only the servers of its port are asked, and its host counts; with a path, every host of
the configuration is tried. Where a handler of another module may answer or change the
request, the command says so.
`,
		Example: `  wxgate wechat explain --config Caddyfile \
      GET /public/../admin -H 'X_WX_OPENID: x'
  wxgate wechat explain --config Caddyfile GET https://api.example.com/orders \
      -H 'Connection: close, X-Wx-Openid'`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			r, port, err := parseRequest(args[0], args[1], headers)
			if err != nil {
				return err
			}
			raw, servers, err := provisionServers(config, adapter)
			if err != nil {
				return err
			}
			phones, err := remembersPhones(raw)
			if err != nil {
				return fmt.Errorf("reading configuration: %w", err)
			}
			e := explainer{port: port, phones: phones}
			err = e.explain(servers, r)
			e.write(cmd.OutOrStdout(), r)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&config, "config", "c", "",
		"Configuration `FILE` (default: the Caddyfile in this folder)")
	f.StringVarP(&adapter, "adapter", "a", "", "`NAME` of the config adapter")
	f.StringArrayVarP(&headers, "header", "H", nil,
		"`HEADER` of the request, 'Name: value'; repeatable")
	return cmd
}

// parseRequest makes the request as a server reads it, odd names and paths included.
// It returns the port of a URL, "" for a path.
func parseRequest(
	method, target string, headers []string,
) (r *http.Request, port string, err error) {
	host := ""
	if scheme, rest, ok := strings.Cut(target, "://"); ok {
		host, target, _ = strings.Cut(rest, "/")
		target = "/" + target
		port = map[string]string{"http": "80", "https": "443"}[scheme]
		if _, p, err := net.SplitHostPort(host); err == nil {
			port = p
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, target, host)
	for _, h := range headers {
		if strings.ContainsAny(h, "\r\n") || !strings.Contains(h, ":") {
			return nil, "", fmt.Errorf("%q is not a header: write 'Name: value'", h)
		}
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	r, err = http.ReadRequest(bufio.NewReader(strings.NewReader(b.String())))
	if err != nil {
		return nil, "", fmt.Errorf("no server would read this request: %w", err)
	}
	return r, port, nil
}

// Row is one line of an explanation. An empty Name continues the row before.
type Row struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// ExplainRunning tells what the gates of the running configuration do with a request
// to a URL, in the rows of `explain`. Headers are written 'Name: value'. The error is
// that of a request which no server would read, or which reaches no gate.
func ExplainRunning(method, url string, headers []string) ([]Row, error) {
	r, port, err := parseRequest(method, url, headers)
	if err != nil {
		return nil, err
	}
	ctx := caddy.ActiveContext()
	web, err := ctx.AppIfConfigured("http")
	if err != nil {
		return nil, fmt.Errorf("looking for a running gate: %w", err)
	}
	app, err := ctx.AppIfConfigured("wechat")
	if err != nil {
		return nil, fmt.Errorf("looking for a running gate: %w", err)
	}
	e := explainer{port: port, phones: app.(*wechatapp.App).Phone.Remember}
	if err := e.explain(web.(*caddyhttp.App).Servers, r); err != nil {
		return nil, err
	}
	return slices.Concat(e.ways...), nil
}

// explainer follows one request through the servers.
type explainer struct {
	port   string  // of the URL; "": any
	phones bool    // the app `wechat` remembers telephone numbers
	ways   [][]Row // one for each server and host that has a gate or an app
}

// write prints what explain found.
func (e *explainer) write(out io.Writer, r *http.Request) {
	for _, rows := range e.ways {
		fmt.Fprintf(out, "%s %s\n\n", r.Method, r.URL.RequestURI())
		for _, row := range rows {
			fmt.Fprintf(out, "  %-12s%s\n", row.Name, row.Text)
		}
		fmt.Fprintln(out)
	}
}

// explain adds the way through each server that the request may reach.
func (e *explainer) explain(servers map[string]*caddyhttp.Server, r *http.Request) error {
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		srv := servers[name]
		if !listens(srv, e.port) {
			continue
		}
		hosts := []string{r.Host}
		if r.Host == "" {
			hosts = judge.Hosts(srv)
		}
		for _, host := range hosts {
			copied := r.Clone(r.Context())
			copied.Host = host
			rows, err := e.server(srv, copied)
			if len(rows) > 0 {
				e.ways = append(e.ways, rows)
			}
			if err != nil {
				return err
			}
		}
	}
	if len(e.ways) == 0 {
		return fmt.Errorf("no wechat_auth guards the host %s, and no app is reached", r.Host)
	}
	return nil
}

// listens reports whether a server listens on a port.
func listens(srv *caddyhttp.Server, port string) bool {
	return port == "" || len(srv.Listen) == 0 ||
		slices.ContainsFunc(srv.Listen, func(listen string) bool {
			addr, err := caddy.ParseNetworkAddress(listen)
			return err == nil && fmt.Sprint(addr.StartPort) == port
		})
}

// server returns the way of a request through one server, nothing where it meets no
// gate and no app.
func (e *explainer) server(srv *caddyhttp.Server, r *http.Request) (rows []Row, err error) {
	steps := judge.Trace(srv, r)
	gated := false
	row := func(name, text string) { rows = append(rows, Row{name, text}) }
	if len(r.Method) > maxMethod && len(steps) > 0 {
		row("decision", "405 by Caddy, before any handler: the method is longer than 32 letters")
		return rows, nil
	}
	unsure := ""
	for _, step := range steps {
		if step.Unsure != "" {
			unsure = step.Unsure
		}
		h, isGate := step.Handler.(*wechatauth.Handler)
		_, isProxy := step.Handler.(*reverseproxy.Handler)
		if isGate || isProxy && !gated {
			row("site", step.Where)
			if unsure != "" {
				row("unsure", unsure+"; the rest holds if it passes the request on")
			}
		}
		if isProxy && !gated {
			row("decision", "on to the app WITHOUT a gate: "+
				"it sees each identity header that the client sends, and the token")
		}
		if !isGate {
			continue
		}
		gated = true
		x, err := h.Explain(step.Request, e.phones)
		if err != nil {
			return rows, err
		}
		explainGate(row, x)
		if !x.Passes {
			return rows, nil
		}
	}
	return rows, nil
}

// maxMethod is the longest method that Caddy's server accepts.
const maxMethod = 32

func explainGate(row func(name, text string), e wechatauth.Explanation) {
	row("path", e.Path)
	for i, rm := range e.Removed {
		row([]string{"removed", ""}[min(i, 1)], rm.What+": "+rm.Why)
	}
	if e.Token != "" {
		row("token", e.Token)
	}
	row("decision", e.Decision)
}

// remembersPhones reads from a configuration whether the app remembers telephone
// numbers.
func remembersPhones(raw []byte) (bool, error) {
	var c struct {
		Apps struct {
			WeChat struct {
				Phone wechatapp.Phone `json:"phone"`
			} `json:"wechat"`
		} `json:"apps"`
	}
	err := json.Unmarshal(raw, &c)
	return c.Apps.WeChat.Phone.Remember, err
}
