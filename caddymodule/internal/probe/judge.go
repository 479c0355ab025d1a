package probe

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// notSeen is the evidence of a request that may have reached the app.
const notSeen = "some answers reflect nothing of the request and do not tell " +
	"whether the app was asked: use --echo"

// sameIdentity demands that the app gets the identity of the honest request, no
// more and no less, and that no path opens.
func sameIdentity(_ *probe, t *trial) (Result, string) {
	base := t.stage.base
	var honest []line
	if len(base.seen.identity) > 0 {
		honest = base.seen.identity[0]
	}
	for _, lines := range t.seen.identity {
		if l, found := surplus(lines, honest); found {
			return Fell, "the app saw " + l.text
		}
	}
	switch {
	case t.seen.asked == unsure:
		return NotTried, notSeen
	case t.seen.asked == yes && base.seen.asked != yes:
		return Fell, "the app was asked: " + t.asked()
	case t.seen.asked == no && t.answer.Status/100 == 2 && base.seen.asked == no &&
		base.answer.Status/100 != 2:
		return Fell, t.answer.String() +
			" without the app being asked, where the honest request was " + base.answer.String()
	case t.seen.asked == no:
		return Held, t.answer.String()
	}
	for _, lines := range t.seen.identity {
		if l, found := surplus(honest, lines); found {
			name, _, _ := strings.Cut(l.text, ":")
			return Fell, "the app was not told " + name
		}
	}
	return Held, "the app was told the truth"
}

// surplus returns a line of some that is not among others, or is there less often.
func surplus(some, others []line) (line, bool) {
	count := make(map[string]int)
	for _, l := range others {
		count[l.key]++
	}
	for _, l := range some {
		if count[l.key]--; count[l.key] < 0 {
			return l, true
		}
	}
	return line{}, false
}

// asked returns the request as the app was asked.
func (t *trial) asked() string {
	if len(t.seen.requests) > 0 {
		return t.seen.requests[0].Line
	}
	return "the answer reflects the request"
}

// tunnelless demands the same identity, and that no protocol but WebSocket is offered to
// the app: it would open a tunnel past the gate.
func tunnelless(p *probe, t *trial) (Result, string) {
	for _, r := range t.seen.requests {
		for _, text := range r.Headers {
			name, value, _ := strings.Cut(text, ":")
			foreign := fold(name) == "upgrade" && !strings.EqualFold(strings.TrimSpace(value),
				"websocket")
			posted := fold(name) == "upgrade" && !strings.HasPrefix(r.Line, "GET ")
			if fold(name) == "http2-settings" || foreign || posted {
				return Fell, "the app saw " + text
			}
		}
	}
	switch {
	case len(t.seen.requests) > 0:
	case strings.Contains(t.answer.Body, t.mark.settings()):
		return Fell, "the app saw HTTP2-Settings: " + t.mark.settings()
	case p.Echo == nil && t.answer.Status == http.StatusSwitchingProtocols:
		return Fell, "answered 101 Switching Protocols: a tunnel"
	}
	return sameIdentity(p, t)
}

// unasked demands that the request does not reach the app.
func unasked(_ *probe, t *trial) (Result, string) {
	switch t.seen.asked {
	case yes:
		return Fell, "the app was asked: " + t.asked()
	case unsure:
		return NotTried, notSeen
	}
	return Held, t.answer.String()
}

// anonymous demands that the app gets no identity that the honest request does not
// have, and the credential only where it always does.
func anonymous(p *probe, t *trial) (Result, string) {
	var honest []line
	if lines := t.stage.base.seen.identity; len(lines) > 0 {
		honest = lines[0]
	}
	for _, lines := range t.seen.identity {
		if l, found := surplus(lines, honest); found {
			return Fell, "the app saw " + l.text
		}
	}
	switch {
	case t.seen.asked == unsure:
		return NotTried, notSeen
	case t.seen.asked == no:
		return Held, t.answer.String()
	case p.showsCredential(t) && !p.showsCredential(t.stage.base):
		return Fell, "the app saw the credential: " + t.asked()
	}
	return Held, "the app was told nothing"
}

// showsCredential reports whether the credential reached the app.
func (p *probe) showsCredential(t *trial) bool {
	seen := t.answer.Body
	for _, r := range t.seen.requests {
		seen += strings.Join(r.Lines(), "\n")
	}
	return slices.ContainsFunc(
		p.secrets(), func(s string) bool { return strings.Contains(seen, s) },
	)
}

// unopened demands that a request without a credential reaches the app on a
// plain path under the public prefix only, whatever it asked for.
func unopened(p *probe, t *trial) (Result, string) {
	for _, r := range t.seen.requests {
		if !p.inPublic(r.Target()) {
			return Fell, "the app was asked: " + r.Line
		}
	}
	if len(t.seen.requests) > 0 {
		return Held, "the app was asked for a plain public path"
	}
	return unasked(p, t)
}

func (p *probe) inPublic(target string) bool {
	if u, err := url.Parse(target); err == nil && u.Host != "" {
		target = u.RequestURI()
	}
	path, _, _ := strings.Cut(target, "?")
	return p.Public != "" && canonical(path) && strings.HasPrefix(path, p.Public+"/")
}

// unconnected demands that CONNECT opens nothing.
func unconnected(p *probe, t *trial) (Result, string) {
	if t.answer.Status/100 == 2 {
		return Fell, "a tunnel was opened: " + t.answer.String()
	}
	return unasked(p, t)
}
