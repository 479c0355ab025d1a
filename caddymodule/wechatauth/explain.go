package wechatauth

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
)

// Explanation tells in words what a gate does with a request.
type Explanation struct {
	Path     string         // the class of the path, and why
	Removed  []gate.Removal // what the app does not see
	Token    string         // empty in cloudrun mode
	Decision string
	Passes   bool // the request may reach the next handler
}

// Explain returns what the gate does with a request, as far as the configuration
// tells: it asks no store, so the answer covers a valid and an invalid token.
// Phones says that the app `wechat` remembers telephone numbers. Explain changes r.
func (h *Handler) Explain(r *http.Request, phones bool) (Explanation, error) {
	rules, err := gate.New(h.Rules())
	if err != nil {
		return Explanation{}, err
	}
	c := Claims{Cloudrun: h.Cloudrun, Apps: h.knownApps()}
	if h.Cloudrun {
		c.Platform, c.Untrue = rules.Platform(r)
	}
	e := rules.Explain(r)
	c.Route, c.Token, c.Ticket = e.Route, e.Token, e.Ticket
	if errors.Is(e.Refused, gate.ErrOwnedTrailer) {
		c.Trailer = e.Refused
	} else {
		c.Ambiguous = e.Refused
	}

	d := Decide(c)
	out := Explanation{
		Path:    classNames[e.Route.Class] + ": " + e.Path,
		Removed: e.Removed, Decision: h.describe(d, verifies(c.Route), phones),
		Passes: d.Do != Refuse && d.Do != Answer && !verifies(c.Route),
	}
	if !h.Cloudrun {
		out.Token = describeToken(c)
	} else if c.Untrue == nil {
		out.Removed = slices.DeleteFunc(out.Removed, func(rm gate.Removal) bool {
			return c.Platform.Holds(rm.What)
		})
	}
	return out, nil
}

// knownApps returns the site's list of mini programs; nil, any, where the list is
// elsewhere or holds a placeholder.
func (h *Handler) knownApps() []string {
	placeholder := func(id string) bool { return strings.HasPrefix(id, "{") }
	if len(h.Apps) == 0 || slices.ContainsFunc(h.Apps, placeholder) {
		return nil
	}
	return h.Apps
}

var classNames = map[gate.Class]string{
	gate.Required: "needs a session",
	gate.Optional: "open to guests",
	gate.Public:   "public",
	gate.Endpoint: "endpoint",
	gate.NotFound: "not found",
}

// describeToken tells of the credential without showing it.
func describeToken(c Claims) string {
	switch {
	case c.Ambiguous != nil:
		return "two different ones"
	case c.Token == "" && c.Ticket != "":
		return "a ticket; only the running gate knows whether it is valid"
	case c.Token == "":
		return "none"
	case c.Route.Class == gate.Public:
		return "present, not looked at"
	}
	return "present; only the running gate knows whether it is valid"
}

// describe tells a decision in words.
func (h *Handler) describe(d Decision, verify, phones bool) string {
	app := "on to the app"
	if verify {
		app = "200 to the proxy that asks"
	}
	refusal := func(p *reply.Problem) string { return fmt.Sprintf("%d %s", p.Status, p.Code) }
	switch d.Do {
	case Answer:
		return "answered by the gate"
	case Check:
		return "with a valid token: " + app + " with " + h.injected(phones) +
			"; else " + refusal(&reply.SessionInvalid)
	case Trust:
		if d.Result == Guest {
			return "on to the app as a guest"
		}
		return "on to the app with what WeChat Cloud Hosting says of the caller, " +
			"if the site accepts the mini program"
	case Pass:
		if d.Result == Guest {
			return app + " as a guest, with no identity"
		}
		return app + ", with no identity"
	}
	if d.Why == "" {
		return refusal(d.Problem)
	}
	return refusal(d.Problem) + ": " + d.Why
}

// injected names the identity headers that the app gets.
func (h *Handler) injected(phones bool) string {
	var always []string
	known := ""
	for i, header := range gate.Headers {
		name := cmp.Or(h.Headers[header.Word], header.Default)
		switch {
		case i == gate.Phone && !phones, i == gate.Assertion && h.Assertion == nil:
		case !header.WhenKnown:
			always = append(always, name)
		case known == "":
			known = ", and " + name + " when it is known"
		default:
			known += ", and so " + name
		}
	}
	return strings.Join(always, ", ") + known
}
