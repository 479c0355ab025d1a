package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterDirective("wechat_api", parseWeChatAPI)
	httpcaddyfile.RegisterDirectiveOrder("wechat_api", httpcaddyfile.Before, "reverse_proxy")
}

func parseWeChatAPI(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if h.Option("wechat") == nil {
		h.Next() // for the line
		return nil, h.WrapErr(errNoAppForAPI)
	}
	a := new(WeChatAPI)
	if err := a.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(nil, a), nil
}

// UnmarshalCaddyfile reads the directive; the type's documentation shows its form.
func (a *WeChatAPI) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("wechat_api takes no matcher and no argument, here %q: give it a site of its own, such as http://127.0.0.1:8081, and list the paths inside, with allow", d.Val())
	}
	b := NewBlock(d)
	for b.Next() {
		var err error
		switch d.Val() {
		case "app":
			err = b.Checked(&a.App, checkSiteApp)
		case "allow":
			err = b.list(&a.Allow, checkAllow)
		case "allow_remote":
			err = b.Bare(&a.AllowRemote)
		case "timeout":
			err = b.duration(&a.Timeout, 0)
		case "max_body":
			err = b.size(&a.MaxBody)
		default:
			err = b.Unknown("app, allow, allow_remote, timeout or max_body")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*WeChatAPI)(nil)
