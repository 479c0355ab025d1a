package gate

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Removal is something that Clean or Credential takes from a request.
type Removal struct{ What, Why string }

// Explanation says what the gate makes of a request before it checks the token.
type Explanation struct {
	Removed []Removal // in the order of header names
	Refused error     // ErrOwnedTrailer or ErrAmbiguousCredentials: the request ends here
	Route   Route
	Path    string // why the path is of that class
	Token   string // the presented token, "" for none
	Ticket  string // the ticket in the query, "" for none
}

// Explain runs on r the steps before the token check, and reports each change with its
// reason. Only commands use it.
func (g *Rules) Explain(r *http.Request) Explanation {
	before := r.Header.Clone()
	var e Explanation
	f, err := g.Clean(r)
	e.Refused = err
	e.Removed = g.explainClean(before, r.Header)
	e.Route = g.Route(r)
	e.Path = g.explainPath(r.URL.EscapedPath(), e.Route)

	if e.Route.Class == Optional || e.Route.Class == Public {
		before = r.Header.Clone()
		g.DropRouting(r, f)
		e.compare(before, r.Header, "some apps route by it, past the rule that opened the path")
	}
	before = r.Header.Clone()
	if e.Token, err = g.Credential(r); err != nil && e.Refused == nil {
		e.Refused = err
	}
	g.Stray(r, f)
	e.Ticket = g.TakeTicket(r, nil)
	e.compare(before, r.Header, "a token is for the gate; the app never sees it")
	return e
}

// compare adds what is no longer there.
func (e *Explanation) compare(before, after http.Header, why string) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if !slices.Equal(before[name], after[name]) {
			e.Removed = append(e.Removed, Removal{name, why})
		}
	}
}

// explainClean compares the headers before and after Clean.
func (g *Rules) explainClean(before, after http.Header) (out []Removal) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if slices.Equal(before[name], after[name]) {
			continue
		}
		k, _ := g.names.classify(name)
		why := map[kind]string{
			owned: "only the gate sets this header, " +
				"and servers may take this spelling for it",
			credential: "servers may take this spelling for the token header",
			connection: fmt.Sprintf("now %q: other options name headers that the proxy "+
				"would delete, ours among them", strings.Join(after[name], ", ")),
			upgrade: "only a WebSocket handshake by GET may upgrade: " +
				"anything else would open a tunnel past the gate",
			h2cSettings: "it belongs to an upgrade past the gate",
			pseudo:      "only a WebSocket may be opened by CONNECT",
		}[k]
		out = append(out, Removal{name, why})
	}
	return out
}

// explainPath says why the path is of its class.
func (g *Rules) explainPath(escaped string, route Route) string {
	normal, _, ok := normalize(escaped)
	class := route.Class
	if route.Endpoint != "" {
		return "the gate answers it itself"
	}
	if g.required != nil && class != NotFound {
		return g.explainRequired(escaped, class)
	}
	switch {
	case !ok && class == NotFound:
		return "some server may read it as lying under " + g.endpoints.prefix +
			", where only the gate answers"
	case !ok:
		return "no rule opens it, since servers may disagree on what it means: " +
			whyNotNormal(escaped)
	case class == NotFound:
		return "everything under " + g.endpoints.prefix +
			" is the gate's, and this is none of its endpoints"
	}
	if rule := g.ruleFor(escaped, normal); rule != nil {
		return "opened by the rule " + rule.origin
	}
	return "no rule opens it"
}

// explainRequired says why the path is of its class under Config.Required.
func (g *Rules) explainRequired(escaped string, class Class) string {
	_, decoded, ok := normalize(escaped)
	if class == Public {
		return "the word required lists no such path"
	}
	area := g.requiredBy(escaped, decoded, ok)
	switch {
	case area == nil:
		return "it has no reading that all servers agree on: " + whyNotNormal(escaped)
	case ok:
		return "the word required lists it: " + area.prefix
	}
	return "some server may read it as one that the word required lists: " + area.prefix
}

// whyNotNormal names the first obstacle to a normal form.
func whyNotNormal(escaped string) string {
	segments, decoded := strings.Split(escaped, "/"), decodeOnce(escaped)
	switch {
	case escaped == "" || escaped[0] != '/':
		return "it does not begin with a slash"
	case strings.Contains(escaped, "//"):
		return "it holds an empty segment"
	case slices.Contains(segments, ".") || slices.Contains(segments, ".."):
		return "it holds a dot segment"
	case strings.ContainsAny(decoded, `\;%#?`):
		return `it holds one of \ ; % # ?, encoded or not`
	case strings.Count(decoded, "/") > strings.Count(escaped, "/"):
		return "it holds an encoded slash"
	case strings.Count(decoded, ".") > strings.Count(escaped, "."):
		return "it holds an encoded dot"
	}
	return "it holds a control byte or bytes that are no UTF-8, " +
		"or encodes a character that stands for itself in a path"
}
