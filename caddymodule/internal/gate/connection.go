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

// hop collects what a request says about its own connection.
type hop struct {
	options   option
	dropped   int
	present   bool // a Connection or Upgrade header of any spelling
	websocket bool // Upgrade is websocket and nothing else
}

// readConnection adds the options of some Connection lines. The proxy deletes every header that an unknown option
// names, after we have injected ours (CADDY.md 1.13), so only the three known ones survive.
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
		c.websocket = len(lines) == 1 && strings.EqualFold(textproto.TrimString(lines[0]), "websocket")
	}
}

// rewrite leaves r with at most one Connection line of known options, and with an upgrade only when it is a
// WebSocket handshake: any other protocol would open a tunnel that never passes the gate again (THREATS.md 5).
// The line is written into the slice at hand, so nothing is allocated.
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

// extendedWebSocket reports whether r asks for a WebSocket by the extended CONNECT of RFC 8441. net/http keeps the
// pseudo header of HTTP/2 among the headers, and a proxy would open a tunnel of any other protocol with it. (Over
// HTTP/3 the protocol is in r.Proto, where only websocket is ever acted on.)
func extendedWebSocket(r *http.Request, protocol []string) bool {
	return r.Method == http.MethodConnect && r.ProtoMajor == 2 && len(protocol) == 1 && protocol[0] == "websocket"
}
