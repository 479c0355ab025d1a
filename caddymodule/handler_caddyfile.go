package caddymodule

import (
	"encoding/json"
	"slices"
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
	if err := g.checkOption(h.Option("wechat")); err != nil {
		h.Reset()
		h.Next() // for the line
		return nil, h.WrapErr(err)
	}
	return h.NewRoute(nil, g), nil
}

// checkOption refuses a directive that the global option does not go with, while its line is known. What a placeholder stands for is not.
func (g *Gate) checkOption(option any) error {
	if g.Cloudrun {
		return nil
	}
	wechat, ok := option.(httpcaddyfile.App)
	if !ok {
		return errNoApp
	}
	var a App
	if err := json.Unmarshal(wechat.Value, &a); err != nil {
		return err
	}
	known := func(id string) bool {
		return strings.HasPrefix(id, "{") || slices.ContainsFunc(a.Apps, func(m MiniProgram) bool { return m.AppID == id || strings.HasPrefix(m.AppID, "{") })
	}
	if i := slices.IndexFunc(g.Apps, func(id string) bool { return !known(id) }); i >= 0 {
		return errSiteApp(g.Apps[i])
	}
	return nil
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
			err = g.unmarshalHeaders(b)
		default:
			err = b.Unknown("cloudrun, endpoints, public, optional, apps, token or headers")
		}
		if err == nil {
			err = g.checkLines(d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkLines refuses what the last line says against those before: two ways of telling who calls, names that collide, a path in both lists.
func (g *Gate) checkLines(d *caddyfile.Dispenser) error {
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

func (g *Gate) unmarshalHeaders(b *Block) error {
	g.Headers = make(map[string]string)
	return b.Sub(func(in *Block) error {
		word, name := in.D.Val(), ""
		if !gate.IsHeaderWord(word) {
			return in.Unknown(gate.HeaderWords())
		}
		if err := in.Checked(&name, gate.ValidateHeaderName); err != nil {
			return err
		}
		g.Headers[word] = name
		return g.checkLines(in.D)
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
