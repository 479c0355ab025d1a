package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func init() { caddy.RegisterModule(new(App)) }

// App holds what all gates of a server share: the mini programs, the connection to WeChat, the sessions and where they are kept. The handler `wechat_auth` needs it.
//
// In a Caddyfile it is the global option `wechat`:
//
//	wechat {
//		app <appid> <secret> {
//			token_file       <path>
//			cloud_token_file <path>
//		}
//		api {
//			base_url <url>
//			timeout <duration>
//		}
//		session {
//			ttl <duration>
//			idle <duration>
//			max_per_user <number>
//			replay <duration>
//		}
//		store <name> ...
//		cache {
//			max_sessions <number>
//		}
//		max_staleness <duration>
//		seal_key <placeholder>
//		login_rate <rate> {
//			global <rate>
//			in_flight <number>
//		}
//		phone {
//			remember
//		}
//		decrypt {
//			max_age <duration>
//		}
//	}
//
// One `app` line is enough. Secrets are given as placeholders (`{env.WX_SECRET}`, `{file./run/secrets/wx}`), never written out. A placeholder that stands for nothing is a warning when
// the configuration is validated and an error when it is started, so that a Caddyfile can be checked where its secrets are not.
//
// What is open (store, cache, limits, the breaker in front of WeChat) survives a reload.
type App struct {
	// The mini programs whose users may log in. At least one.
	Apps []MiniProgram `json:"apps,omitempty"`

	// How WeChat is reached.
	API API `json:"api,omitzero"`

	// How long sessions live.
	Session SessionLimits `json:"session,omitzero"`

	// Where sessions are kept. Default: `bolt`, a file under Caddy's data directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=wechat.stores inline_key=type"`

	// The cache in front of the store.
	Cache Cache `json:"cache,omitzero"`

	// The longest that sessions are accepted from the cache without hearing from a store that other machines share. It has no meaning for the bolt store, which nobody shares.
	// Default: 30s.
	MaxStaleness caddy.Duration `json:"max_staleness,omitempty"`

	// The master keys that sign tokens and encrypt session_keys at rest, as a placeholder: each key 32 bytes in base64 (`wxgate wechat keys new`), several separated by commas or white
	// space, newest first. To rotate, put a new key in front and reload; drop the old one when `wxgate wechat keys` no longer lists it as needed. Nobody is logged out, and a gate does
	// not start without a key that it needs. Where gates share a store, a new key goes to the end of the line on all of them before it goes to the front on any. Default for the bolt store: made on the first start and kept beside the database, in a file with the suffix `.key`.
	SealKey string `json:"seal_key,omitempty"`

	// How many logins are let in.
	LoginRate LoginRate `json:"login_rate,omitzero"`

	// What becomes of telephone numbers.
	Phone Phone `json:"phone,omitzero"`

	// What open data has to be like.
	Decrypt Decrypt `json:"decrypt,omitzero"`

	log    *zap.Logger
	apps   []weixin.Credentials
	ring   *keyring.Ring // nil: the store's key file is used
	opener StoreOpener
	limits limit.Config
	unset  []string // placeholders that stand for nothing

	held     holdings
	lease    lease
	settled  chan struct{} // closed when Start has ended, well or not, or will never come
	settle   func()
	live     atomic.Pointer[running]
	previous atomic.Pointer[App] // what was running when this one started

	keyWatch keyWatch
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "wechat", New: func() caddy.Module { return new(App) }}
}

// Provision reads the configuration. It opens nothing: `caddy validate` comes this far beside a running server.
func (a *App) Provision(ctx caddy.Context) error {
	a.log = ctx.Logger()
	a.settled = make(chan struct{})
	a.settle = sync.OnceFunc(func() { close(a.settled) })
	a.lease.release = func() { a.held.release(liveLogger()) }
	a.setDefaults()
	if err := metrics.register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	if err := a.provisionApps(); err != nil {
		return err
	}
	if err := a.provisionKeys(); err != nil {
		return err
	}
	if a.StoreRaw == nil {
		a.StoreRaw = json.RawMessage(`{"type":"bolt"}`)
	}
	mod, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return fmt.Errorf("loading session store: %w", err)
	}
	a.opener = mod.(StoreOpener)
	if _, keeps := mod.(KeyKeeper); a.SealKey == "" && !keeps {
		return errNoSealKey
	}
	a.limits, err = a.LoginRate.config()
	return err
}

// provisionApps resolves and checks the mini programs.
func (a *App) provisionApps() error {
	if len(a.Apps) == 0 {
		return errors.New("no mini program is configured: add a line `app <appid> {env.WX_SECRET}` to the global option `wechat`")
	}
	seen := make(map[string]bool)
	for _, m := range a.Apps {
		id, err := caddy.NewReplacer().ReplaceOrErr(m.AppID, false, true)
		if err != nil {
			return fmt.Errorf("resolving appid: %w", err)
		}
		if id == "" {
			a.unset = append(a.unset, "appid "+m.AppID)
		} else if err := checkAppID(id); err != nil {
			return err
		} else if seen[id] {
			return fmt.Errorf("mini program %s is configured twice", id)
		}
		seen[id] = true

		secret, err := ResolveSecret("secret of mini program "+id, m.Secret)
		if err != nil {
			return err
		}
		if secret == "" {
			a.unset = append(a.unset, fmt.Sprintf("secret %s of mini program %s", m.Secret, id))
		}
		source, err := m.tokenFile()
		if err != nil {
			return err
		}
		a.apps = append(a.apps, weixin.Credentials{ID: id, Secret: secret, TokenFile: source})
	}
	return nil
}

func (a *App) provisionKeys() error {
	if a.SealKey == "" {
		return nil
	}
	text, err := ResolveSecret("seal_key", a.SealKey)
	if err != nil {
		return err
	}
	if text == "" {
		a.unset = append(a.unset, "seal_key "+a.SealKey)
		return nil
	}
	if a.ring, err = keyring.Parse(text); err != nil {
		return fmt.Errorf("reading seal_key: %w", err)
	}
	return nil
}

// errNoSealKey means that each of several gates would make a master key of its own.
var errNoSealKey = errors.New("this session store is shared between machines, which need the same key: set seal_key {env.WX_SEAL_KEY}")

// idleBeyondTTL is the error for an idle limit that would never apply.
func (s SessionLimits) idleBeyondTTL() error {
	return fmt.Errorf("session idle %s is longer than ttl %s and would never apply", time.Duration(s.Idle), time.Duration(cmp.Or(s.TTL, defaultTTL)))
}

// Validate checks what Provision read.
func (a *App) Validate() error {
	switch ttl, idle := time.Duration(a.Session.TTL), time.Duration(a.Session.Idle); {
	case ttl < time.Second:
		return fmt.Errorf("session ttl %s is too short: at least 1s", ttl)
	case idle < 0 || (idle > 0 && idle < time.Second):
		return fmt.Errorf("session idle %s is too short: at least 1s, or leave it out", idle)
	case idle > ttl:
		return a.Session.idleBeyondTTL()
	case ttl > 72*time.Hour:
		a.log.Warn("session ttl is longer than WeChat keeps a session_key: data of older sessions will not decrypt", zap.Duration("ttl", ttl), zap.Duration("session_key", 72*time.Hour))
	}
	switch {
	case a.API.Timeout < caddy.Duration(time.Millisecond):
		return fmt.Errorf("api timeout %s is too short", time.Duration(a.API.Timeout))
	case a.MaxStaleness < 0:
		return errors.New("max_staleness is negative")
	case a.Cache.MaxSessions < 1:
		return fmt.Errorf("cache max_sessions %d is too small", a.Cache.MaxSessions)
	}
	if err := checkBaseURL(a.API.BaseURL); err != nil {
		return err
	}
	if a.API.inClear() {
		a.log.Warn("base_url is not https: AppSecrets and session_keys travel in the clear", zap.String("base_url", a.API.BaseURL))
	}
	for _, what := range a.unset {
		a.log.Warn("a placeholder stands for nothing: the gate will not start like this", zap.String("placeholder", what))
	}
	return nil
}

// Start opens the store and whatever else lives on through reloads.
func (a *App) Start() error {
	defer a.settle()
	if err := a.open(); err != nil {
		a.lease.close() // nobody has come in, and the process may end before Cleanup's time is over
		return err
	}
	a.previous.Store(current.Swap(a))
	a.share()
	a.watchKeys()
	return nil
}

// open takes what the App needs from the pool, or makes it.
func (a *App) open() error {
	if len(a.unset) > 0 {
		return fmt.Errorf("%s is empty: set the environment variable or write the file that it names", a.unset[0])
	}
	if a.ring == nil {
		text, err := a.opener.(KeyKeeper).MasterKey()
		if err != nil {
			return fmt.Errorf("loading master key: %w", err)
		}
		if a.ring, err = keyring.Parse(text); err != nil {
			return fmt.Errorf("loading master key of %s: %w", a.opener.Identity(), err)
		}
	}
	core, err := takeCore(&a.held, a.opener, a.Cache.MaxSessions)
	if err != nil {
		return err
	}
	wechat, err := takeWeChat(&a.held, a.API)
	if err != nil {
		return err
	}
	limiter, err := takeLimiter(&a.held, a.limits)
	if err != nil {
		return err
	}
	left, err := takeAllowances(&a.held)
	if err != nil {
		return err
	}
	sessions := session.New(session.Config{
		Core: core, WeChat: wechat, Calls: wechat, Apps: a.apps, Keys: a.ring,
		TTL: time.Duration(a.Session.TTL), Idle: time.Duration(a.Session.Idle),
		MaxSessions: a.Cache.MaxSessions, MaxStaleness: time.Duration(a.MaxStaleness),
		MaxPerUser: max(a.Session.MaxPerUser, 0), Replay: max(time.Duration(a.Session.Replay), 0),
		RememberPhone: a.Phone.Remember, DataMaxAge: time.Duration(a.Decrypt.MaxAge), UnionIDBound: auditUnionID,
	})
	a.lease.release = func() { a.held.release(liveLogger()) }
	if err := checkKeys(core, sessions); err != nil {
		return err
	}
	a.live.Store(&running{app: a, core: core, sessions: sessions, wechat: wechat, limiter: loginLimiter{limiter}, allowances: left, lease: &a.lease})
	return nil
}

// Stop does nothing: requests may still be running. Cleanup comes after the last of them, or nearly so.
func (a *App) Stop() error { return nil }

// Cleanup gives back what Start opened, once the last request is done with it.
func (a *App) Cleanup() error {
	if a.settle != nil { // not even provisioned
		a.settle()
	}
	a.keyWatch.stop()
	a.stepDown()
	switch {
	case len(a.held.keys) == 0:
	case caddy.Exiting():
		a.lease.close()
	default:
		time.AfterFunc(linger, a.lease.close)
	}
	return nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
