package wechatauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/assertion"
	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// Assertion is a signed JWT that proves the identity to an app which does not trust
// its network. The keys to verify it are at `jwks.json` under the prefix.
type Assertion struct {
	// Who the proof is for: each app its own, and it refuses any other.
	Audience string `json:"audience,omitempty"`

	// Who vouches. Default: `https://` and the first host name of the site.
	Issuer string `json:"issuer,omitempty"`
}

// The errors of the word assertion.
var (
	errNoAudience = errors.New("assertion needs audience: an app that takes the proofs of " +
		"another one can be deceived; write audience and the name of the app")
	errNoIssuer = errors.New("assertion needs issuer, since the site has no host name of its " +
		"own: write issuer https://api.example.com")
)

func (h *Handler) unmarshalAssertion(b *block.Block) error {
	h.Assertion = new(Assertion)
	err := b.Sub(func(in *block.Block) error {
		switch in.D.Val() {
		case "audience":
			return in.Checked(&h.Assertion.Audience, validateAudience)
		case "issuer":
			return in.Checked(&h.Assertion.Issuer, validateIssuer)
		}
		return in.Unknown("audience or issuer")
	})
	if err == nil && h.Assertion.Audience == "" {
		return b.D.WrapErr(errNoAudience)
	}
	return err
}

func validateAudience(s string) error {
	if s == "" || len(s) > 256 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' }) {
		return fmt.Errorf("audience %q: write the name of the app, such as orders", s)
	}
	return nil
}

func validateIssuer(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(s, "{} ") {
		return fmt.Errorf("issuer %q: write a URL, such as https://api.example.com", s)
	}
	return nil
}

// provisionAssertion prepares the signer of a site that signs.
func (h *Handler) provisionAssertion(ctx caddy.Context) error {
	a := h.Assertion
	if a == nil {
		return nil
	}
	if a.Audience == "" {
		return errNoAudience
	}
	if err := validateAudience(a.Audience); err != nil {
		return err
	}
	issuer := a.Issuer
	if issuer == "" {
		srv, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
		host := siteHost(srv)
		if host == "" {
			return errNoIssuer
		}
		issuer = "https://" + host
	}
	if err := validateIssuer(issuer); err != nil {
		return err
	}
	h.signer = assertion.NewSigner(issuer, a.Audience)
	h.app.UseAssertions()
	return nil
}

// siteHost returns the first host name of the route that the server is building, or "".
func siteHost(srv *caddyhttp.Server) string {
	if srv == nil {
		return ""
	}
	i := slices.IndexFunc(srv.Routes, func(r caddyhttp.Route) bool {
		return len(r.HandlersRaw) > 0
	})
	if i < 0 {
		return ""
	}
	for _, set := range srv.Routes[i].MatcherSets {
		for _, m := range set {
			if hosts, ok := m.(*caddyhttp.MatchHost); ok && len(*hosts) > 0 &&
				!strings.ContainsAny((*hosts)[0], "*{") {
				return (*hosts)[0]
			}
		}
	}
	return ""
}

func signs(h *Handler) bool { return h.Assertion != nil }

// sign returns the assertion for an identity; "" when the site does not sign. Without
// a key it refuses the request: the app would take a user for a guest.
func (h *Handler) sign(r *http.Request, id session.Identity) (string, error) {
	if h.signer == nil {
		return "", nil
	}
	live, err := h.app.Live(r.Context())
	if err != nil {
		return "", err
	}
	return h.signer.Token(live.Assertions, assertion.User{
		OpenID: id.OpenID, AppID: id.AppID, UnionID: id.UnionID,
	})
}

// serveKeySet publishes the keys that verify assertions.
func (h *Handler) serveKeySet(w http.ResponseWriter, r *http.Request, _ string) error {
	live, err := h.app.Live(r.Context())
	if err != nil {
		return reply.StoreDown
	}
	keys, err := live.Assertions.Public()
	if err != nil {
		return reply.StoreDown
	}
	return reply.Cacheable(w, r, keys, assertion.KeySetAge)
}
