package wechatauth

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

func init() {
	// RegisterHandlerDirective would take a matcher off before wechat_auth can
	// refuse it.
	httpcaddyfile.RegisterDirective("wechat_auth", parseCaddyfile)
	// A service that forward_auth asks sees a verified identity and no token.
	httpcaddyfile.RegisterDirectiveOrder("wechat_auth", httpcaddyfile.Before, "forward_auth")
}

func parseCaddyfile(c httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h := new(Handler)
	if err := h.UnmarshalCaddyfile(c.Dispenser); err != nil {
		return nil, err
	}
	if err := h.checkOption(c.Option("wechat")); err != nil {
		c.Reset()
		c.Next() // for the line
		return nil, c.WrapErr(err)
	}
	return c.NewRoute(nil, h), nil
}

// checkOption refuses a directive that contradicts the global option, while its
// line is known. The value of a placeholder is not known yet.
func (h *Handler) checkOption(option any) error {
	if h.Cloudrun {
		return nil
	}
	wechat, ok := option.(httpcaddyfile.App)
	if !ok {
		return errNoApp
	}
	var a wechatapp.App
	if err := json.Unmarshal(wechat.Value, &a); err != nil {
		return err
	}
	for _, id := range h.Apps {
		known := func(m wechatapp.MiniProgram) bool {
			return m.AppID == id || strings.HasPrefix(m.AppID, "{")
		}
		merchant := len(a.Components) > 0 // maybe
		if !merchant && !strings.HasPrefix(id, "{") && !slices.ContainsFunc(a.Apps, known) {
			return errSiteApp(id)
		}
	}
	return nil
}

// UnmarshalCaddyfile reads the directive; the type's documentation shows its form.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("wechat_auth takes no matcher and no argument, here %q: "+
			"it guards the whole site; list exemptions inside, with public and optional", d.Val())
	}
	b := block.New(d)
	for b.Next() {
		var err error
		switch d.Val() {
		case "cloudrun":
			err = b.Bare(&h.Cloudrun)
		case "endpoints":
			err = b.Checked(&h.Endpoints, gate.ValidateEndpoints)
		case "verify":
			err = b.Bare(&h.Verify)
		case "assertion":
			err = h.unmarshalAssertion(b)
		case "public":
			err = b.List(&h.Public, gate.ValidatePattern)
		case "optional":
			err = b.List(&h.Optional, gate.ValidatePattern)
		case "required":
			err = b.List(&h.Required, gate.ValidatePattern)
		case "apps":
			err = b.List(&h.Apps, wechatapp.CheckSiteApp)
		case "token":
			err = h.unmarshalToken(b)
		case "dialect":
			err = b.Once(&h.Dialect)
		case "login_fields":
			err = b.List(&h.LoginFields, checkLoginField)
		case "tickets":
			err = b.Bare(&h.Tickets)
		case "cors":
			err = b.List(&h.Cors, checkOrigin)
		case "headers":
			err = h.unmarshalHeaders(b)
		default:
			err = b.Unknown(
				"cloudrun, endpoints, verify, assertion, public, optional, required, apps, " +
					"token, dialect, login_fields, tickets, cors or headers")
		}
		if err == nil {
			err = h.checkLines(d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkLines refuses a line that contradicts those before it: two sources of
// identity, names that collide, a path in both lists.
func (h *Handler) checkLines(d *caddyfile.Dispenser) error {
	if err := cmp.Or(h.checkCloudrun(), h.checkDialect()); err != nil {
		return d.WrapErr(err)
	}
	if _, err := gate.New(h.Rules()); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (h *Handler) unmarshalToken(b *block.Block) error {
	if err := b.First(); err != nil {
		return err
	}
	args := b.D.RemainingArgs()
	if len(args) != 2 || args[0] != "header" {
		return b.D.Err("token is written: token header <name>")
	}
	h.TokenHeader = args[1]
	if err := gate.ValidateTokenHeader(h.TokenHeader); err != nil {
		return b.D.WrapErr(err)
	}
	return nil
}

func (h *Handler) unmarshalHeaders(b *block.Block) error {
	h.Headers = make(map[string]string)
	return b.Sub(func(in *block.Block) error {
		word, name := in.D.Val(), ""
		if !gate.IsHeaderWord(word) {
			return in.Unknown(gate.HeaderWords())
		}
		if err := in.Checked(&name, gate.ValidateHeaderName); err != nil {
			return err
		}
		h.Headers[word] = name
		return h.checkLines(in.D)
	})
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)
