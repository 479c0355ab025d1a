package gate

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
)

// Found is what Clean saw on its one walk over the headers, so that the steps after it
// need no walk of their own on most requests.
type Found struct {
	Dropped int  // connection options that Clean removed
	Routing bool // a header that DropRouting removes
	Token   bool // a token in a header that carries none
}

// Clean removes from r, in place, whatever a client must not send
// (docs/threats.md#identity): owned names in any spelling, misspelt token
// headers, connection options, owned trailers, and upgrades other than
// WebSocket. The only error is ErrOwnedTrailer; r is clean then, too.
//
// It reads raw map keys, since an earlier handler may have stored any spelling.
func (g *Rules) Clean(r *http.Request) (f Found, err error) {
	var c hop
	declared := ""
	for name, values := range r.Header {
		k, canonical := g.names.classify(name)
		if k != credential && !f.Token {
			f.Token = g.anyToken(values)
		}
		switch k {
		case owned, h2cSettings:
			delete(r.Header, name)
		case credential:
			if !canonical {
				delete(r.Header, name)
			}
		case connection:
			c.readConnection(values)
			if !canonical {
				delete(r.Header, name)
			}
		case upgrade:
			c.readUpgrade(values, canonical)
			if !canonical {
				delete(r.Header, name)
			}
		case pseudo:
			if canonical && !extendedWebSocket(r, values) {
				delete(r.Header, name)
			}
		case trailerHeader:
			declared = cmp.Or(g.declaresReserved(values), declared)
		case routing:
			f.Routing = true
		}
	}
	c.rewrite(r)
	declared = cmp.Or(g.scrubTrailer(r.Trailer), declared)
	g.guardTrailer(r)
	f.Dropped = c.dropped
	if declared != "" {
		return f, named(ErrOwnedTrailer, declared)
	}
	return f, nil
}

// named adds the name of a client's header to an error.
func named(err error, name string) error {
	if len(name) > 64 || !isToken(name) {
		return err
	}
	return fmt.Errorf("%w: %s", err, name)
}

// Scrub removes from r whatever Clean, Credential and Stray remove, and returns the
// token.
func (g *Rules) Scrub(r *http.Request) (token string) {
	f, _ := g.Clean(r) // r is clean whatever it says
	token, _ = g.Credential(r)
	g.Stray(r, f)
	g.TakeTicket(r, nil)
	return token
}

// ScrubsLike reports whether Scrub of both rules removes the same.
func (g *Rules) ScrubsLike(other *Rules) bool {
	return g.tokenPrefix == other.tokenPrefix && g.headers == other.headers &&
		g.tickets == other.tickets &&
		slices.Equal(g.sources, other.sources)
}

// DropRouting removes, in any spelling, the headers by which an app may route
// elsewhere than the path says. It is for paths that a rule opened
// (docs/threats.md#t44).
func (g *Rules) DropRouting(r *http.Request, f Found) {
	if !f.Routing {
		return
	}
	for name := range r.Header {
		if k, _ := g.names.classify(name); k == routing {
			delete(r.Header, name)
		}
	}
}
