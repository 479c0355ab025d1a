package gate

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// TicketParam is the query parameter that carries a ticket.
const TicketParam = "wx_ticket"

// TakeTicket removes every ticket from the query of r, and from other, a copy of its
// URL, unless it is nil. It returns the ticket, or "" when the method is not GET or
// HEAD, when there are several, and without Config.Tickets.
func (g *Rules) TakeTicket(r *http.Request, other *url.URL) (ticket string) {
	if !g.tickets || r.URL.RawQuery == "" {
		return ""
	}
	rest, found := withoutTickets(r.URL.RawQuery)
	if len(found) == 0 {
		return ""
	}
	r.URL.RawQuery, r.URL.ForceQuery = rest, false
	r.RequestURI = r.URL.RequestURI()
	if other != nil {
		other.RawQuery, _ = withoutTickets(other.RawQuery)
	}
	if len(found) == 1 && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return found[0]
	}
	return ""
}

// withoutTickets splits the tickets off a query. What remains is left as it is
// spelled.
func withoutTickets(query string) (rest string, tickets []string) {
	if !strings.Contains(query, "=") { // the cheap way of most requests
		return query, nil
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil && plain == TicketParam {
			tickets = append(tickets, value)
		} else {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&"), tickets
}

// TicketTarget returns what a ticket for r is bound to: the path in its normal form,
// and the query without the ticket. It is "" for a path that servers may read in
// different ways, for which there is no ticket.
func TicketTarget(r *http.Request) string {
	normal, _, ok := normalize(r.URL.EscapedPath())
	if !ok || r.URL.Opaque != "" {
		return ""
	}
	if r.URL.RawQuery != "" {
		return normal + "?" + r.URL.RawQuery
	}
	return normal
}

// CheckTicketTarget returns the target for a path that a client names, which may have
// a query, and says what is wrong with one that can have no ticket. The path may hold
// letters that a URL has to encode.
func (g *Rules) CheckTicketTarget(named string) (target string, err error) {
	path, query, hasQuery := strings.Cut(named, "?")
	normal, decoded, ok := normalize(encodeLetters(path))
	switch {
	case !ok:
		return "", errors.New("write the path of this site as it is in the URL: it begins with " +
			`one slash, has no "//", "." and "..", and % only where a byte needs it`)
	case g.endpoints.holds(decoded) || g.endpoints.mayReach(normal):
		return "", fmt.Errorf("the gate itself answers everything under %s", g.endpoints.prefix)
	case !hasQuery:
		return normal, nil
	}
	if rest, tickets := withoutTickets(query); query == "" || rest != query || tickets != nil ||
		!visible(query) {
		return "", errors.New("the query is empty, has a ticket in it, or a character that a " +
			"URL has to encode")
	}
	return normal + "?" + query, nil
}

// WithTicket returns the URL of a target with a ticket.
func WithTicket(target, ticket string) string {
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	return target + separator + TicketParam + "=" + ticket
}

// encodeLetters percent-encodes the bytes of a path that are not ASCII, and spaces.
func encodeLetters(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c >= 0x80 || c == ' ' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func visible(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' })
}
