package gate

import (
	"net/http"
	"slices"
)

// Scrub removes from r whatever Clean, Credential and Stray remove, and returns the
// token.
func (g *Rules) Scrub(r *http.Request) (token string) {
	_, _ = g.Clean(r) // r is clean whatever it says
	token, _ = g.Credential(r)
	g.Stray(r)
	return token
}

// ScrubsLike reports whether Scrub of both rules removes the same.
func (g *Rules) ScrubsLike(other *Rules) bool {
	return g.tokenPrefix == other.tokenPrefix && g.headers == other.headers &&
		slices.Equal(g.sources, other.sources)
}
