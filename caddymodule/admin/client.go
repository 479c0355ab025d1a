package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
)

// adminClient is how a command reaches the running gate.
type adminClient struct {
	address, config, adapter string
	json                     bool
}

// flags adds addressFlags and --json.
func (c *adminClient) flags(cmd *cobra.Command) {
	c.addressFlags(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "Print JSON")
}

// addressFlags adds the flags that Caddy's own commands have for it.
func (c *adminClient) addressFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(
		&c.address, "address", "",
		"`ADDRESS` of the admin endpoint, if not the default",
	)
	f.StringVarP(
		&c.config, "config", "c", "",
		"Configuration `FILE` that tells the address, if --address is not given",
	)
	f.StringVarP(
		&c.adapter, "adapter", "a", "", "`NAME` of the config adapter for --config",
	)
}

// send makes a call and returns its answer, which is a success, or else the
// exit status. A body is sent as JSON.
func (c *adminClient) send(
	method, uri string, body any,
) (resp *http.Response, status int, err error) {
	addr, err := caddycmd.DetermineAdminAPIAddress(c.address, nil, c.config, c.adapter)
	if err != nil {
		return nil, cli.Failed, fmt.Errorf("finding the admin address: %w", err)
	}
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, cli.Failed, err
		}
		r = bytes.NewReader(b)
	}
	resp, err = caddycmd.AdminAPIRequest(addr, method, uri, nil, r)
	switch {
	case err == nil && resp.Header.Get(reply.MarkHeader) == "":
		resp.Body.Close()
		return nil, cli.Failed, fmt.Errorf(
			"what answers at %s is no gate, or one of another version", addr,
		)
	case err == nil:
		return resp, 0, nil
	}
	// Caddy's client tells an answer from the lack of one in words only.
	if answer, ok := strings.CutPrefix(err.Error(), "caddy responded with error: "); ok {
		return nil, cli.Failed, refusalOf(answer)
	}
	return nil, cli.Unreachable, fmt.Errorf(
		"reaching the gate by the admin endpoint %s: %w", addr, err,
	)
}

// refusalOf reads "HTTP 404: {"error": …}".
func refusalOf(answer string) error {
	head, body, _ := strings.Cut(answer, ": ")
	var said struct{ Error string }
	if err := json.Unmarshal([]byte(body), &said); err != nil || said.Error == "" {
		return fmt.Errorf(
			"the admin endpoint answers %s: does a gate run there, of this version?", head,
		)
	}
	return fmt.Errorf("the gate refuses: %s", said.Error)
}

// ask makes a call and prints its answer: as it came for --json, or else as
// text writes it. The answer is also in into, if given.
func ask[T any](
	c *adminClient, cmd *cobra.Command, method, uri string, body any,
	text func(io.Writer, T) error, into ...*T,
) (int, error) {
	resp, status, err := c.send(method, uri, body)
	if err != nil {
		return status, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return cli.Unreachable, fmt.Errorf("reading the gate's answer: %w", err)
	}
	var answer T
	if err := json.Unmarshal(b, &answer); err != nil {
		return cli.Failed, fmt.Errorf("reading the gate's answer: %w", err)
	}
	for _, p := range into {
		*p = answer
	}
	out := cmd.OutOrStdout()
	if c.json {
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, b, "", "  "); err != nil {
			return cli.Failed, fmt.Errorf("reading the gate's answer: %w", err)
		}
		_, err = pretty.WriteTo(out)
		return cli.Failed, err
	}
	return cli.Failed, text(out, answer)
}
