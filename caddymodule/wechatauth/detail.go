package wechatauth

import (
	"net/http"
	"slices"
	"strings"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// detailed returns a refusal with what its client's developer has to know. It names a
// header in which a token was, never the token.
func (h *Handler) detailed(d Decision, c Claims, r *http.Request) Decision {
	switch {
	case d.Why != "":
	case d.Result == NotFound && !gate.Under(r.URL.Path, h.rules.Endpoints()) &&
		len(h.deliverPaths()) > 0:
		d.Why = "this path takes pushes and events only, which the gate delivers"
	case d.Result == NotFound:
		d.Why = d.Problem.Detail + ": of the paths under " + h.rules.Endpoints() +
			" the gate answers only " + strings.Join(h.paths(), ", ") +
			" (the word endpoints of wechat_auth moves them elsewhere)"
	case d.Result == Missing && !h.Cloudrun:
		names := h.rules.TokenHeaders()
		d.Why = "no token in the header " + strings.Join(names, " or ") + ": "
		if seen := h.tokenSeen(c, r); seen != "" {
			d.Why += "there is one in " + seen + ", which the gate does not read; send it as "
		} else {
			d.Why += "call wx.login, POST its code to " + h.rules.Endpoints() +
				"/login, and send the 3rd_session as "
		}
		d.Why += names[0] + ": "
		if names[0] == "Authorization" {
			d.Why += "Bearer "
		}
		d.Why += "<3rd_session>"
	}
	return d
}

// tokenSeen names the place of a token that the gate does not read, or returns "".
func (h *Handler) tokenSeen(c Claims, r *http.Request) string {
	switch {
	case len(c.Stray) > 64:
		return "another header"
	case c.Stray == "Authorization" && slices.Contains(h.rules.TokenHeaders(), c.Stray):
		return "Authorization in another form"
	case c.Stray != "":
		return "the header " + c.Stray
	case h.rules.HoldsToken(r.URL.RawQuery):
		return "the query"
	case h.rules.HoldsToken(r.URL.EscapedPath()):
		return "the path"
	}
	return ""
}

// isSafe reports whether a method only reads (RFC 9110, 9.2.1).
func isSafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}
