package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// Exit statuses of the commands that ask the running gate.
const (
	adminRefused     = 1 // or it failed
	adminUnreachable = 2
)

// adminClient is how a command reaches the running gate.
type adminClient struct {
	address, config, adapter string
	json                     bool
}

// flags adds the flags that Caddy's own commands have for it.
func (c *adminClient) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.address, "address", "", "The address to use to reach the admin API endpoint, if not the default")
	f.StringVarP(&c.config, "config", "c", "", "Configuration file to use to find the admin address, if --address is not used")
	f.StringVarP(&c.adapter, "adapter", "a", "", "Name of config adapter to apply (when --config is used)")
}

// jsonFlag adds --json.
func (c *adminClient) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.json, "json", false, "Print JSON")
}

// statusRun makes a function that returns an exit status what cobra runs.
func statusRun(run func(cmd *cobra.Command, args []string) (status int, err error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cmd.SilenceUsage = true
		if status, err := run(cmd, args); err != nil {
			return exitWith(cmd, status, err)
		}
		return nil
	}
}

// send makes a call and returns its answer, which is a success, or else the exit status. A body is sent as JSON.
func (c *adminClient) send(method, uri string, body any) (resp *http.Response, status int, err error) {
	addr, err := caddycmd.DetermineAdminAPIAddress(c.address, nil, c.config, c.adapter)
	if err != nil {
		return nil, adminRefused, fmt.Errorf("finding the admin address: %w", err)
	}
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, adminRefused, err
		}
		r = bytes.NewReader(b)
	}
	resp, err = caddycmd.AdminAPIRequest(addr, method, uri, nil, r)
	switch {
	case err == nil && resp.Header.Get(markHeader) == "":
		resp.Body.Close()
		return nil, adminRefused, fmt.Errorf("what answers at %s is no gate, or one of another version", addr)
	case err == nil:
		return resp, 0, nil
	}
	// Caddy's client tells an answer from the lack of one in words only.
	if answer, ok := strings.CutPrefix(err.Error(), "caddy responded with error: "); ok {
		return nil, adminRefused, refusalOf(answer)
	}
	return nil, adminUnreachable, fmt.Errorf("reaching the gate by the admin endpoint %s: %w", addr, err)
}

// refusalOf reads "HTTP 404: {"error": …}".
func refusalOf(answer string) error {
	head, body, _ := strings.Cut(answer, ": ")
	var said struct{ Error string }
	if err := json.Unmarshal([]byte(body), &said); err != nil || said.Error == "" {
		return fmt.Errorf("the admin endpoint answers %s: does a gate run there, of this version?", head)
	}
	return fmt.Errorf("the gate refuses: %s", said.Error)
}

// ask makes a call and prints its answer: as it came for --json, or else as text writes it.
func ask[T any](c *adminClient, cmd *cobra.Command, call func() (*http.Response, int, error), text func(io.Writer, T) error) (int, error) {
	resp, status, err := call()
	if err != nil {
		return status, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return adminUnreachable, fmt.Errorf("reading the gate's answer: %w", err)
	}
	out := cmd.OutOrStdout()
	if c.json {
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, b, "", "  "); err != nil {
			return adminRefused, fmt.Errorf("reading the gate's answer: %w", err)
		}
		_, err = pretty.WriteTo(out)
		return adminRefused, err
	}
	var answer T
	if err := json.Unmarshal(b, &answer); err != nil {
		return adminRefused, fmt.Errorf("reading the gate's answer: %w", err)
	}
	return adminRefused, text(out, answer)
}

// shown makes text from elsewhere safe for a terminal.
func shown(s string) string {
	if strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// moment is a time as tables show it.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// size is a number of bytes as people read it.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// amount is a number of things.
func amount(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
