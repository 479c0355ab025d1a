package gate

import "net/http"

// Clean removes from r, in place, whatever a client must not send
// (docs/threats.md#identity): owned names in any spelling, misspelt token
// headers, connection options, owned trailers, and upgrades other than
// WebSocket. dropped counts the connection options. The only error is
// ErrOwnedTrailer; r is clean then, too.
//
// It reads raw map keys, since an earlier handler may have stored any spelling.
func (g *Rules) Clean(r *http.Request) (dropped int, err error) {
	var c hop
	declared := false
	for name, values := range r.Header {
		switch k, canonical := g.names.classify(name); k {
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
			declared = g.declaresReserved(values) || declared
		}
	}
	c.rewrite(r)
	declared = g.scrubTrailer(r.Trailer) || declared
	g.guardTrailer(r)
	if declared {
		return c.dropped, ErrOwnedTrailer
	}
	return c.dropped, nil
}
