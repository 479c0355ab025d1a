package wechatauth

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
)

// verifyNames are the endpoints of the word verify. Decide judges a call of one as a
// request of that class; ServeHTTP answers where it would call the next handler.
var verifyNames = map[string]gate.Class{
	"verify": gate.Required, "verify-optional": gate.Optional,
}

func (h *Handler) verifyEndpoints() map[string]gate.Class {
	if !h.Verify {
		return nil
	}
	return verifyNames
}

// paths lists all endpoints that the site has, for people.
func (h *Handler) paths() []string {
	names := append(h.endpointNames(), slices.Sorted(maps.Keys(h.verifyEndpoints()))...)
	for i, name := range names {
		if strings.HasSuffix(name, "/") {
			names[i] += "<id>"
		}
	}
	return names
}

// verifies reports whether another proxy asks for a judgement.
func verifies(r gate.Route) bool { return r.Endpoint != "" && r.Class != gate.Endpoint }

// headersToRemove tells Envoy which headers of its client to take off
// (docs/design.md#verify).
const headersToRemove = "X-Envoy-Auth-Headers-To-Remove"

// verified tells a proxy that a request may pass, and whose it is. The status is
// exactly 200: Envoy and Higress refuse on any other. Every identity header is there,
// since some proxies overwrite only what they get (docs/threats.md#t48).
func (h *Handler) verified(w http.ResponseWriter, r *http.Request) error {
	remove := h.rules.Show(w.Header(), r, make([]string, 0, 8)) // on the stack
	for _, name := range h.tokenHeaders() {
		if len(r.Header[name]) == 0 { // read has taken the token out
			remove = append(remove, name)
		}
	}
	if len(remove) > 0 {
		w.Header()[headersToRemove] = []string{strings.Join(remove, ", ")}
	}
	return reply.OK(w, r)
}
