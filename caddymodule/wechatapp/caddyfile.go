package wechatapp

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func init() {
	httpcaddyfile.RegisterGlobalOption(
		"wechat",
		func(d *caddyfile.Dispenser, existing any) (any, error) {
			if existing != nil {
				d.Next() // for the line
				return nil, d.Err(
					"the global option wechat is given twice: put both blocks into one",
				)
			}
			a := new(App)
			if err := a.UnmarshalCaddyfile(d); err != nil {
				return nil, err
			}
			return httpcaddyfile.App{Name: "wechat", Value: caddyconfig.JSON(a, nil)}, nil
		},
	)
}

// UnmarshalCaddyfile reads the global option; the type's documentation shows its form.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if d.NextArg() {
		return d.Err("wechat takes a block and no value")
	}
	b := block.New(d)
	var mod any // the store
	for b.Next() {
		var err error
		switch d.Val() {
		case "app":
			err = a.unmarshalApp(d)
		case "component":
			err = a.unmarshalComponent(d)
		case "api":
			err = a.API.unmarshal(b)
		case "session":
			err = a.Session.unmarshal(b)
		case "store":
			mod, err = a.unmarshalStore(b)
		case "cache":
			err = a.Cache.unmarshal(b)
		case "max_staleness":
			err = b.Duration(&a.MaxStaleness, 0)
		case "seal_key":
			check := func(v string) error { return block.CheckSecret("seal_key", v) }
			err = b.Checked(&a.SealKey, check)
		case "login_rate":
			err = a.LoginRate.unmarshal(b)
		case "phone":
			err = a.Phone.unmarshal(b)
		case "decrypt":
			err = a.Decrypt.unmarshal(b)
		default:
			err = b.Unknown("app, component, api, session, store, cache, max_staleness, " +
				"seal_key, login_rate, phone or decrypt")
		}
		if err != nil {
			return err
		}
	}
	switch _, keeps := mod.(store.KeyKeeper); {
	case a.Session.Idle > cmp.Or(a.Session.TTL, defaultTTL):
		return d.WrapErr(a.Session.idleBeyondTTL())
	case mod != nil && !keeps && a.SealKey == "":
		return d.WrapErr(errNoSealKey)
	case len(a.Apps)+len(a.Components) == 0:
		return d.Err("wechat needs at least one line: app <appid> {env.WX_SECRET}")
	}
	return nil
}

func (a *App) unmarshalApp(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 && len(args) != 3 {
		return d.Err("app takes an appid and the placeholder of its secret, " +
			"or of its new and its old one: app wx0123456789abcdef {env.WX_SECRET}")
	}
	m := MiniProgram{AppID: args[0], Secret: args[1]}
	if len(args) == 3 {
		m.PreviousSecret = args[2]
		if err := block.CheckSecret("the previous secret", m.PreviousSecret); err != nil {
			return d.WrapErr(err)
		}
		if m.PreviousSecret == m.Secret {
			return d.Err("the new and the old secret are the same placeholder: " +
				"write it once, or name the other one")
		}
	}
	in := block.New(d)
	if !strings.HasPrefix(m.AppID, "{") {
		if err := CheckAppID(m.AppID); err != nil {
			return d.WrapErr(err)
		}
	}
	if err := block.CheckSecret("the secret", m.Secret); err != nil {
		return d.WrapErr(err)
	}
	for _, other := range a.Apps {
		if other.AppID == m.AppID {
			return d.Errf("mini program %s is given twice", m.AppID)
		}
	}
	for in.Next() {
		var err error
		switch in.D.Val() {
		case "token_file":
			err = in.Checked(&m.TokenFile, checkTokenFile)
		case "cloud_token_file":
			err = in.Checked(&m.CloudTokenFile, checkTokenFile)
		case "open_platform":
			err = in.Checked(&m.OpenPlatform, checkOpenPlatform)
		case "push":
			m.Push = cmp.Or(m.Push, new(Push))
			err = m.Push.unmarshal(in)
		default:
			err = in.Unknown("token_file, cloud_token_file, open_platform or push")
		}
		if err == nil && m.TokenFile != "" && m.CloudTokenFile != "" {
			err = d.Err(errTwoTokens)
		}
		if err != nil {
			return err
		}
	}
	a.Apps = append(a.Apps, m)
	return nil
}

// errTwoTokens is a text, since the Dispenser adds the place.
const errTwoTokens = "a mini program has one source of access tokens: " +
	"token_file or cloud_token_file"

// checkTokenFile refuses a path that depends on where the gate was started.
func checkTokenFile(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("token file %q is not an absolute path", path)
	}
	return nil
}

func (c *API) unmarshal(b *block.Block) error {
	return b.Sub(func(in *block.Block) error {
		switch in.D.Val() {
		case "base_url":
			return in.Checked(&c.BaseURL, checkBaseURL)
		case "timeout":
			return in.Duration(&c.Timeout, time.Millisecond)
		}
		return in.Unknown("base_url or timeout")
	})
}

func (s *SessionLimits) unmarshal(b *block.Block) error {
	return b.Sub(func(in *block.Block) error {
		switch in.D.Val() {
		case "ttl":
			return in.Duration(&s.TTL, time.Second)
		case "idle":
			return in.DurationOrZero(&s.Idle, time.Second)
		case "max_per_user":
			var n int64
			err := in.Number(&n)
			s.MaxPerUser = int(n)
			return err
		case "replay":
			if err := in.DurationOrZero(&s.Replay, 0); err != nil {
				return err
			}
			if s.Replay == 0 {
				s.Replay = -1 // never; 0 is the default
			}
			return nil
		}
		return in.Unknown("ttl, idle, max_per_user or replay")
	})
}

func (c *Cache) unmarshal(b *block.Block) error {
	return b.Sub(func(in *block.Block) error {
		if in.D.Val() == "max_sessions" {
			return in.Number(&c.MaxSessions)
		}
		return in.Unknown("max_sessions")
	})
}

func (p *Phone) unmarshal(b *block.Block) error {
	return b.Sub(func(in *block.Block) error {
		if in.D.Val() == "remember" {
			return in.Bare(&p.Remember)
		}
		return in.Unknown("remember")
	})
}

func (c *Decrypt) unmarshal(b *block.Block) error {
	return b.Sub(func(in *block.Block) error {
		if in.D.Val() == "max_age" {
			return in.Duration(&c.MaxAge, time.Second)
		}
		return in.Unknown("max_age")
	})
}

func (a *App) unmarshalStore(b *block.Block) (mod caddyfile.Unmarshaler, err error) {
	if err := b.First(); err != nil {
		return nil, err
	}
	d := b.D
	if !d.NextArg() {
		return nil, d.Err("store takes the name of a store: store bolt <path>")
	}
	name := d.Val()
	if _, err := caddy.GetModule("wechat.stores." + name); err != nil {
		return nil, d.Errf("there is no store %q in this build: it has %s",
			name, strings.Join(storeNames(), ", "))
	}
	if mod, err = caddyfile.UnmarshalModule(d, "wechat.stores."+name); err != nil {
		return nil, err
	}
	a.StoreRaw = caddyconfig.JSONModuleObject(mod, "type", name, nil)
	return mod, nil
}

func storeNames() (names []string) {
	for _, m := range caddy.GetModules("wechat.stores") {
		names = append(names, m.ID.Name())
	}
	return names
}
