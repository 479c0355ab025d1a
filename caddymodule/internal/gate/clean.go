package gate

import "net/http"

// Clean removes from r whatever a client must not send: owned names in any spelling (THREATS.md 1, 2), misspelt
// token headers, connection options that would delete our headers downstream (3), owned trailers (4) and protocol
// upgrades other than WebSocket (5). It works on r in place and reports in dropped how many connection options it
// took out. The only error is ErrOwnedTrailer; r is clean then, too.
//
// It reads the raw map keys, since a handler before us may have stored non-canonical ones.
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
	if g.scrubTrailer(r.Trailer) {
		declared = true
	}
	g.guardTrailer(r)
	if declared {
		return c.dropped, ErrOwnedTrailer
	}
	return c.dropped, nil
}
