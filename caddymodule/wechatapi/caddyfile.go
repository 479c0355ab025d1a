package wechatapi

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

func init() {
	httpcaddyfile.RegisterDirective("wechat_api", parseCaddyfile)
	httpcaddyfile.RegisterDirectiveOrder("wechat_api", httpcaddyfile.Before, "reverse_proxy")
}

func parseCaddyfile(c httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if c.Option("wechat") == nil {
		c.Next() // for the line
		return nil, c.WrapErr(errNoApp)
	}
	h := new(Handler)
	if err := h.UnmarshalCaddyfile(c.Dispenser); err != nil {
		return nil, err
	}
	return c.NewRoute(nil, h), nil
}

// UnmarshalCaddyfile reads the directive; the type's documentation shows its form.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("wechat_api takes no matcher and no argument, here %q: "+
			"give it a site of its own, such as http://127.0.0.1:8081, "+
			"and list the paths inside, with allow", d.Val())
	}
	b := block.New(d)
	for b.Next() {
		var err error
		switch d.Val() {
		case "app":
			err = b.Checked(&h.App, wechatapp.CheckSiteApp)
		case "allow":
			err = b.List(&h.Allow, checkAllow)
		case "allow_remote":
			err = b.Bare(&h.AllowRemote)
		case "secret":
			err = b.Checked(&h.Secret, func(v string) error {
				return block.CheckSecret("the secret of wechat_api", v)
			})
		case "timeout":
			err = b.Duration(&h.Timeout, 0)
		case "max_body":
			err = b.Size(&h.MaxBody)
		default:
			err = b.Unknown("app, allow, allow_remote, secret, timeout or max_body")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)
