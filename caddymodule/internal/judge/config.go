package judge

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Config judges what only the JSON of a configuration shows: the admin endpoint and
// the default log.
func Config(raw []byte) ([]Finding, error) {
	var c struct {
		Admin struct {
			Disabled bool   `json:"disabled"`
			Listen   string `json:"listen"`
		} `json:"admin"`
		Logging struct {
			Logs map[string]struct {
				Encoder struct {
					Format string `json:"format"`
				} `json:"encoder"`
				Writer struct {
					Output string `json:"output"`
				} `json:"writer"`
			} `json:"logs"`
		} `json:"logging"`
		Apps struct {
			HTTP struct {
				GracePeriod json.RawMessage `json:"grace_period"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	var found []Finding
	if !c.Admin.Disabled && !strings.HasPrefix(c.Admin.Listen, "unix/") {
		found = append(found, Finding{
			Where: "admin",
			What:  "each program on this machine can read the AppSecret and the sessions",
			Cure:  "write admin unix//run/wxgate/admin.sock",
		})
	}
	if log := c.Logging.Logs["default"]; log.Encoder.Format != "wechat" &&
		log.Writer.Output != "discard" {
		found = append(found, Finding{
			Where: "log",
			What:  "the default log shows tokens and codes that clients send in odd places",
			Cure:  "write log { format wechat }",
		})
	}
	if len(c.Apps.HTTP.GracePeriod) == 0 {
		found = append(found, NoGracePeriod)
	}
	return found, nil
}

// NoGracePeriod warns of a configuration without grace_period. An anonymous client
// causes the fault on any path: the exit waits for a slow upload without limit.
var NoGracePeriod = Finding{
	Where: "grace_period",
	What:  "one slow connection keeps a process that should exit for ever",
	Cure:  "write grace_period 10s into the global options",
}
