package judge

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Config judges what only the JSON of a configuration shows: the admin endpoint, the
// default log, the way to Redis and the grace period.
func Config(raw []byte) ([]Finding, error) {
	var c struct {
		Admin struct {
			Disabled bool   `json:"disabled"`
			Listen   string `json:"listen"`
		} `json:"admin"`
		Logging struct {
			Logs map[string]struct {
				Encoder json.RawMessage `json:"encoder"`
				Writer  struct {
					Output string `json:"output"`
				} `json:"writer"`
			} `json:"logs"`
		} `json:"logging"`
		Apps struct {
			HTTP struct {
				GracePeriod json.RawMessage `json:"grace_period"`
			} `json:"http"`
			WeChat struct {
				Store Redis `json:"store"`
			} `json:"wechat"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	var found []Finding
	if listen := cmp.Or(c.Admin.Listen, caddy.DefaultAdminListen); !c.Admin.Disabled &&
		!strings.HasPrefix(resolve(listen), "unix") {
		found = append(found, AdminOnTCP)
	}
	log := c.Logging.Logs["default"]
	if !masks(log.Encoder) && log.Writer.Output != "discard" {
		found = append(found, UnmaskedLog)
	}
	if f, ok := c.Apps.WeChat.Store.Plain(); ok {
		found = append(found, f)
	}
	if len(c.Apps.HTTP.GracePeriod) == 0 {
		found = append(found, NoGracePeriod)
	}
	return found, nil
}

// Findings that a start reports, too, where it can see them.
var (
	AdminOnTCP = Finding{
		Where: "admin",
		What:  "each program on this machine can read the AppSecret and the sessions",
		Cure:  "write admin unix//run/wxgate/admin.sock",
	}
	UnmaskedLog = Finding{
		Where: "log",
		What:  "the default log shows tokens and codes that clients send in odd places",
		Cure:  "write log { format wechat }",
	}
	// An anonymous client causes the fault on any path: the exit waits for a slow
	// upload without limit.
	NoGracePeriod = Finding{
		Where: "grace_period",
		What:  "a stop waits for slow clients without limit",
		Cure:  "write grace_period 10s into the global options",
	}
)

// masks reports whether the format wechat is in an encoder, be it inside of another.
func masks(encoder json.RawMessage) bool {
	var e struct {
		Format string          `json:"format"`
		Wrap   json.RawMessage `json:"wrap"`
	}
	if json.Unmarshal(encoder, &e) != nil {
		return false
	}
	return e.Format == "wechat" || masks(e.Wrap)
}

// Redis is the part of a store's configuration that says how the gate reaches it.
type Redis struct {
	Type      string          `json:"type"`
	Addresses []string        `json:"addresses"`
	TLS       json.RawMessage `json:"tls"`
}

// Plain returns the finding for a Redis on another machine without TLS.
func (r Redis) Plain() (f Finding, found bool) {
	if r.Type != "redis" || len(r.TLS) > 0 && string(r.TLS) != "null" {
		return f, false
	}
	for _, address := range r.Addresses {
		if resolved := resolve(address); !onThisMachine(resolved) {
			return Finding{
				Where: "store redis " + address,
				What:  "without TLS the network can read and change sessions in Redis",
				Cure:  "write tls in the block store redis, or use a network of your own",
			}, true
		}
	}
	return f, false
}

// onThisMachine reports whether an address is a unix socket or on a loopback
// interface. A placeholder without a value may be anywhere.
func onThisMachine(address string) bool {
	if strings.HasPrefix(address, "/") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func resolve(text string) string { return caddy.NewReplacer().ReplaceKnown(text, "") }
