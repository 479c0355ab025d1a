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

// Explanation tells what the gate makes of a request before it knows whether the token is good.
type Explanation struct {
	Removed []Removal // in the order of header names
	Refused error     // ErrOwnedTrailer or ErrAmbiguousCredentials; the request goes no further
	Route   Route
	Path    string // why the path is of that class
	Token   string // the presented token, "" for none
}

// Explain does to r what a request goes through, Clean, Route and Credential, and tells what happened and why. It is for people: it allocates, and nothing of it is on the path of a request.
func (g *Rules) Explain(r *http.Request) Explanation {
	before := r.Header.Clone()
	var e Explanation
	_, e.Refused = g.Clean(r)
	e.Removed = g.explainClean(before, r.Header)
	e.Route = g.Route(r)
	e.Path = g.explainPath(r)

	cleaned := r.Header.Clone()
	var err error
	if e.Token, err = g.Credential(r); err != nil && e.Refused == nil {
		e.Refused = err
	}
	for _, name := range slices.Sorted(maps.Keys(cleaned)) {
		if len(r.Header[name]) < len(cleaned[name]) {
			e.Removed = append(e.Removed, Removal{name, "a token is for the gate; the app never sees it"})
		}
	}
	return e
}

// explainClean compares what was there with what is left.
func (g *Rules) explainClean(before, after http.Header) (out []Removal) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if slices.Equal(before[name], after[name]) {
			continue
		}
		k, _ := g.names.classify(name)
		why := map[kind]string{
			owned:       "only the gate sets this header, and servers may take this spelling for it",
			credential:  "servers may take this spelling for the token header",
			upgrade:     "only a WebSocket handshake by GET may upgrade: anything else would open a tunnel past the gate",
			h2cSettings: "it belongs to an upgrade past the gate",
			pseudo:      "only a WebSocket may be opened by CONNECT",
		}[k]
		if k == connection {
			why = fmt.Sprintf("now %q: other options name headers that the proxy would delete, ours among them", strings.Join(after[name], ", "))
		}
		out = append(out, Removal{name, why})
	}
	return out
}

// explainPath tells what decided about the path.
func (g *Rules) explainPath(r *http.Request) string {
	escaped := r.URL.EscapedPath()
	if _, canonical := Canonical(escaped); !canonical {
		if g.Route(r).Class == NotFound {
			return "some server may read it as lying under " + g.endpoints.prefix + ", where only the gate answers"
		}
		return "no rule opens it, since servers may disagree on what it means: " + notCanonical(escaped)
	}
	switch g.Route(r).Class {
	case Endpoint:
		return "the gate answers it itself"
	case NotFound:
		return "everything under " + g.endpoints.prefix + " is the gate's, and this is none of its endpoints"
	}
	if rule := g.ruleFor(escaped); rule != nil {
		return "opened by the rule " + rule.origin
	}
	return "no rule opens it"
}

// notCanonical names the first thing that keeps a path from its plain form.
func notCanonical(escaped string) string {
	segments := strings.Split(escaped, "/")
	switch {
	case escaped == "" || escaped[0] != '/':
		return "it does not begin with a slash"
	case strings.Contains(escaped, "//"):
		return "it holds an empty segment"
	case slices.Contains(segments, ".") || slices.Contains(segments, ".."):
		return "it holds a dot segment"
	case strings.ContainsAny(decodeOnce(escaped), `\;%#?`):
		return `it holds one of \ ; % # ?, encoded or not`
	case strings.Count(decodeOnce(escaped), "/") > strings.Count(escaped, "/"):
		return "it holds an encoded slash"
	}
	return "what must be percent-encoded is not, or what need not be is, or not in upper case"
}
