package gate

import (
	"net/http"
	"net/textproto"
	"strings"
)

// option is a set of the connection options that may reach the proxy.
type option uint8

const (
	optionClose option = 1 << iota
	optionKeepAlive
	optionUpgrade
)

// connectionLine holds the one Connection line for each set of options.
var connectionLine = [...]string{
	optionClose:                                   "close",
	optionKeepAlive:                               "keep-alive",
	optionClose | optionKeepAlive:                 "close, keep-alive",
	optionUpgrade:                                 "Upgrade",
	optionClose | optionUpgrade:                   "close, Upgrade",
	optionKeepAlive | optionUpgrade:               "keep-alive, Upgrade",
	optionClose | optionKeepAlive | optionUpgrade: "close, keep-alive, Upgrade",
}

// hop collects the headers of a request about its own connection.
type hop struct {
	options   option
	dropped   int
	present   bool // there is a Connection or Upgrade header of any spelling
	websocket bool // Upgrade is exactly websocket
}

// readConnection adds the options of some Connection lines. The proxy deletes
// every header that an option names, after Inject (docs/caddy.md#headers), so
// only the three known options survive.
func (c *hop) readConnection(lines []string) {
	c.present = true
	for _, line := range lines {
		for more := true; more; {
			var word string
			word, line, more = strings.Cut(line, ",")
			switch word = textproto.TrimString(word); {
			case word == "":
			case strings.EqualFold(word, "keep-alive"):
				c.options |= optionKeepAlive
			case strings.EqualFold(word, "close"):
				c.options |= optionClose
			case strings.EqualFold(word, "upgrade"):
				c.options |= optionUpgrade
			default:
				c.dropped++
			}
		}
	}
}

func (c *hop) readUpgrade(lines []string, canonical bool) {
	c.present = true
	if canonical {
		c.websocket = len(lines) == 1 &&
			strings.EqualFold(textproto.TrimString(lines[0]), "websocket")
	}
}

// rewrite leaves at most one Connection line of known options, and an upgrade
// only for a WebSocket handshake: any other protocol would open a tunnel past
// the gate (docs/threats.md#t5). It reuses the slice at hand to allocate nothing.
func (c *hop) rewrite(r *http.Request) {
	if !c.present {
		return
	}
	if c.options&optionUpgrade == 0 || !c.websocket || r.Method != http.MethodGet {
		c.options &^= optionUpgrade
		delete(r.Header, "Upgrade")
	}
	lines := r.Header["Connection"]
	switch {
	case c.options == 0:
		delete(r.Header, "Connection")
	case len(lines) == 0:
		r.Header["Connection"] = []string{connectionLine[c.options]}
	default:
		lines[0] = connectionLine[c.options]
		if len(lines) > 1 {
			r.Header["Connection"] = lines[:1:1]
		}
	}
}

// extendedWebSocket reports whether r opens a WebSocket by the extended CONNECT
// of RFC 8441. net/http keeps HTTP/2's pseudo header among the headers, and a
// proxy would open a tunnel for any other protocol. HTTP/3 has it in r.Proto.
func extendedWebSocket(r *http.Request, protocol []string) bool {
	return r.Method == http.MethodConnect && r.ProtoMajor == 2 &&
		len(protocol) == 1 && protocol[0] == "websocket"
}
