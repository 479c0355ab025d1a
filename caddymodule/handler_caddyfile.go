package caddymodule

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

func init() {
	// Not RegisterHandlerDirective: it takes a matcher off before anybody can refuse it.
	httpcaddyfile.RegisterDirective("wechat_auth", parseGate)
	httpcaddyfile.RegisterDirectiveOrder("wechat_auth", httpcaddyfile.After, "forward_auth")
}

func parseGate(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	g := new(Gate)
	if err := g.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if !g.Cloudrun && h.Option("wechat") == nil {
		h.Reset()
		h.Next() // for the line
		return nil, h.WrapErr(errNoApp)
	}
	return h.NewRoute(nil, g), nil
}

// UnmarshalCaddyfile reads the directive; the type's documentation shows its form.
func (g *Gate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("wechat_auth takes no matcher and no argument, here %q: it guards the whole site; list exemptions inside, with public and optional", d.Val())
	}
	b := NewBlock(d)
	for b.Next() {
		var err error
		switch d.Val() {
		case "cloudrun":
			err = b.Bare(&g.Cloudrun)
		case "endpoints":
			err = b.Checked(&g.Endpoints, gate.ValidateEndpoints)
		case "public":
			err = b.list(&g.Public, gate.ValidatePattern)
		case "optional":
			err = b.list(&g.Optional, gate.ValidatePattern)
		case "apps":
			err = b.list(&g.Apps, checkSiteApp)
		case "token":
			err = g.unmarshalToken(b)
		case "headers":
			err = g.Headers.unmarshal(b)
		default:
			err = b.Unknown("cloudrun, endpoints, public, optional, apps, token or headers")
		}
		if err != nil {
			return err
		}
	}
	// What the lines say of each other: two ways of telling who calls, names that collide, a path in both lists.
	if err := g.checkCloudrun(); err != nil {
		return d.WrapErr(err)
	}
	if _, err := gate.New(g.rules()); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (g *Gate) unmarshalToken(b *Block) error {
	if err := b.First(); err != nil {
		return err
	}
	args := b.D.RemainingArgs()
	if len(args) != 2 || args[0] != "header" {
		return b.D.Err("token is written: token header <name>")
	}
	g.TokenHeader = args[1]
	if err := gate.ValidateTokenHeader(g.TokenHeader); err != nil {
		return b.D.WrapErr(err)
	}
	return nil
}

func (h *Headers) unmarshal(b *Block) error {
	return b.Sub(func(in *Block) error {
		switch in.D.Val() {
		case "openid":
			return in.Checked(&h.OpenID, gate.ValidateHeaderName)
		case "unionid":
			return in.Checked(&h.UnionID, gate.ValidateHeaderName)
		case "appid":
			return in.Checked(&h.AppID, gate.ValidateHeaderName)
		case "source":
			return in.Checked(&h.Source, gate.ValidateHeaderName)
		case "phone":
			return in.Checked(&h.Phone, gate.ValidateHeaderName)
		}
		return in.Unknown("openid, unionid, appid, source or phone")
	})
}

// checkSiteApp lets a placeholder pass, which is resolved when the configuration is loaded.
func checkSiteApp(id string) error {
	if strings.HasPrefix(id, "{") {
		return nil
	}
	return checkAppID(id)
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Gate)(nil)
