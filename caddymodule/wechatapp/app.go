// Package wechatapp owns the configuration of the app `wechat` and what outlives it:
// the open store with its cache, the WeChat client with its circuit breaker, the
// rate limits and the audit log, shared by all gates of a server and kept over
// reloads.
//
// It must not know HTTP answers, routes or commands. It has more than 14 files: one for
// each resource that outlives a configuration.
//
// # Metrics
//
//	caddy_wechat_weixin_calls_total{call,class}        calls of WeChat's API by outcome
//	caddy_wechat_weixin_call_duration_seconds{call}    their duration
//	caddy_wechat_weixin_breaker_open{calls}            1 while the breaker refuses calls
//	caddy_wechat_weixin_down{calls}                    0 well, 0.5 partly, 1 unavailable
//	caddy_wechat_weixin_last_success_timestamp_seconds{calls}
//	caddy_wechat_weixin_clock_ahead_seconds            of WeChat's clock
//	caddy_wechat_cache_hits_total                      token checks that the cache answered
//	caddy_wechat_cache_misses_total                    token checks that asked the store
//	caddy_wechat_push_deliveries_total{result}         attempts to give pushes to apps
//	caddy_wechat_logins_in_flight                      logins under way
//	caddy_wechat_damaged_stores_total                  damaged or lost stores, begun anew
//	caddy_wechat_store_commit_duration_seconds         commits of the bolt store
//	caddy_wechat_store_sessions, _users, _bytes, _free_bytes, _last_backup_timestamp_seconds
//	                                                   size and backup of the bolt store
//	caddy_wechat_store_call_duration_seconds{call,result}
//	                                                   look-ups and logins of either store
//	caddy_wechat_log_events_total{level,event}         warnings and errors of the gate's log
//	caddy_wechat_master_key_missing                    1 while sessions need another key
//	caddy_wechat_store_up                              1 while the store takes logins
//	caddy_wechat_log_lines_dropped_total               lines that a stalled log did not take
package wechatapp

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/judge"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/logformat"
)

func init() { caddy.RegisterModule(new(App)) }

// App is the configuration that all gates of a server share: the mini programs, the
// connection to WeChat, and the sessions with the store that keeps them. The
// handler `wechat_auth` needs it.
//
// In a Caddyfile it is the global option `wechat`:
//
//	wechat {
//		app <appid> <secret> [<previous secret>] {
//			token_file       <path>
//			cloud_token_file <path>
//			open_platform    <name>
//			push {
//				token   <placeholder>
//				aes_key <placeholder> [<previous placeholder>]
//				mode    secure|compatible|plain
//				forget  no
//				deliver <path>
//				events_to <path>
//			}
//		}
//		component <appid> <secret> {
//			token           <placeholder>
//			aes_key         <placeholder> [<previous placeholder>]
//			deliver         <path>
//			events_to       <path>
//			on_unauthorized end_sessions
//			merchant_rate   <rate>
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
// One `app` line or `component` block is enough. A secret is a placeholder (`{env.WX_SECRET}`,
// `{file./run/secrets/wx}`), never written out. `validate` warns of an empty
// placeholder; the start refuses it. So you can check a Caddyfile on a machine
// that has no secrets.
//
// The open store, cache, rate limits and circuit breaker survive a reload.
type App struct {
	// The mini programs whose users may log in. At least one, or a component.
	Apps []MiniProgram `json:"apps,omitempty"`

	// Third-party platforms: the mini programs that have authorised one of them need no
	// entry of their own.
	Components []Component `json:"components,omitempty"`

	// How the gate reaches WeChat.
	API API `json:"api,omitzero"`

	// How long sessions live.
	Session SessionLimits `json:"session,omitzero"`

	// Where the gate keeps sessions. Default: `bolt`, a file under Caddy's data
	// directory.
	StoreRaw json.RawMessage `json:"store,omitzero" caddy:"namespace=wechat.stores inline_key=type"`

	// The cache in front of the store.
	Cache Cache `json:"cache,omitzero"`

	// How long cached sessions stay valid while a store that machines share is
	// unreachable. The bolt store ignores it. Default: 30s.
	MaxStaleness caddy.Duration `json:"max_staleness,omitempty"`

	// The master keys that sign tokens and encrypt session_keys at rest, as a
	// placeholder: 32 bytes in base64 each (`wxgate wechat keys new`), separated by
	// commas or white space, newest first.
	//
	// To rotate, put a new key in front and reload; drop the old key when
	// `wxgate wechat keys` no longer lists it as needed. No user is logged out. A
	// gate does not start without a key that it needs. Where gates share a store,
	// add a new key at the end on all gates before you move it to the front on any.
	//
	// Default for the bolt store: a key that the first start makes and keeps beside
	// the database, in a file with the suffix `.key`.
	SealKey string `json:"seal_key,omitempty"`

	// Rate limits of logins.
	LoginRate LoginRate `json:"login_rate,omitzero"`

	// Telephone numbers.
	Phone Phone `json:"phone,omitzero"`

	// Open data.
	Decrypt Decrypt `json:"decrypt,omitzero"`

	ctx    caddy.Context // of the configuration
	log    *zap.Logger
	apps   []weixin.Credentials
	pushes map[string]*PushReceiver // by AppID

	pushSites pushSites

	ring   *keyring.Ring // nil: that of the store's key file
	opener store.Opener
	redis  judge.Redis // what is judged of the store
	limits limit.Config
	empty  []string // placeholders without a value
	lacked []string // likewise in handlers

	held    holdings
	settled chan struct{} // closed when Start has ended or will never come
	settle  func()
	live    atomic.Pointer[Live]

	keyMissing atomic.Bool // another gate signs with a master key that this one lacks
	platforms  []componentSetup
	background background
	assertions bool // a site signs
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "wechat", New: func() caddy.Module { return new(App) }}
}

// Provision reads the configuration. It opens nothing: `caddy validate` comes this
// far beside a running server.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.log = ctx, ctx.Logger()
	a.settled = make(chan struct{})
	a.settle = sync.OnceFunc(func() { close(a.settled) })
	a.setDefaults()
	if err := metrics.register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	if err := a.provisionApps(); err != nil {
		return err
	}
	if err := a.provisionComponents(); err != nil {
		return err
	}
	if err := a.provisionKeys(); err != nil {
		return err
	}
	if a.StoreRaw == nil {
		a.StoreRaw = json.RawMessage(`{"type":"bolt"}`)
	}
	// An error means a module without these fields.
	_ = json.Unmarshal(a.StoreRaw, &a.redis)
	mod, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return fmt.Errorf("loading session store: %w", err)
	}
	a.opener = mod.(store.Opener)
	if _, keeps := mod.(store.KeyKeeper); a.SealKey == "" && !keeps {
		return errNoSealKey
	}
	a.limits, err = a.LoginRate.config()
	return err
}

// provisionApps resolves and checks the mini programs.
func (a *App) provisionApps() error {
	if len(a.Apps)+len(a.Components) == 0 {
		return errors.New("no mini program is configured: " +
			"add a line `app <appid> {env.WX_SECRET}` to the global option `wechat`")
	}
	seen := make(map[string]bool)
	for _, m := range a.Apps {
		id, err := a.appID(m.AppID)
		if err != nil {
			return err
		}
		if id != "" && seen[id] {
			return fmt.Errorf("mini program %s is configured twice", id)
		}
		seen[id] = true

		secret, err := a.secret("secret of mini program "+id, m.Secret)
		if err != nil {
			return err
		}
		previous, err := a.previousSecret(id, m)
		if err != nil {
			return err
		}
		source, err := m.tokenFile()
		if err != nil {
			return err
		}
		if m.OpenPlatform != "" {
			if err := checkOpenPlatform(m.OpenPlatform); err != nil {
				return err
			}
		}
		a.apps = append(a.apps, weixin.Credentials{
			ID: id, Secret: secret, Previous: previous, TokenFile: source,
		})
		if err := a.provisionPush("mini program", id, m.Push); err != nil {
			return err
		}
	}
	return nil
}

// appID resolves and checks an AppID. It is empty when its placeholder has no value,
// which the start refuses.
func (a *App) appID(value string) (string, error) {
	id, err := caddy.NewReplacer().ReplaceOrErr(value, false, true)
	switch {
	case err != nil:
		return "", fmt.Errorf("resolving appid: %w", err)
	case id == "":
		a.empty = append(a.empty, "appid "+value)
		return "", nil
	}
	return id, CheckAppID(id)
}

// secret resolves the placeholder of a secret, likewise. what says whose it is.
func (a *App) secret(what, value string) (string, error) {
	secret, err := block.ResolveSecret(what, value)
	if err == nil && secret == "" {
		kind, whose, _ := strings.Cut(what, " of ")
		a.empty = append(a.empty, fmt.Sprintf("%s %s of %s", kind, value, whose))
	}
	return secret, err
}

// previousSecret resolves the other AppSecret of a mini program, if it has one.
func (a *App) previousSecret(id string, m MiniProgram) (string, error) {
	if m.PreviousSecret == "" {
		return "", nil
	}
	return a.secret("previous secret of mini program "+id, m.PreviousSecret)
}

func (a *App) provisionKeys() error {
	if a.SealKey == "" {
		return nil
	}
	text, err := block.ResolveSecret("seal_key", a.SealKey)
	if err != nil {
		return err
	}
	if text == "" {
		a.empty = append(a.empty, "seal_key "+a.SealKey)
		return nil
	}
	if a.ring, err = keyring.Parse(text); err != nil {
		return fmt.Errorf("reading seal_key: %w", err)
	}
	return nil
}

// errNoSealKey refuses that each of several gates makes a master key of its own.
var errNoSealKey = errors.New("machines share this session store and need the same master key: " +
	"set seal_key {env.WX_SEAL_KEY}")

// idleBeyondTTL returns the error for an idle timeout that never applies.
func (s SessionLimits) idleBeyondTTL() error {
	return fmt.Errorf("session idle %s is longer than ttl %s and would never apply",
		time.Duration(s.Idle), time.Duration(cmp.Or(s.TTL, defaultTTL)))
}

// sessionKeyLife is how long WeChat's staff say a session_key lives.
const sessionKeyLife = 72 * time.Hour

// Validate checks the fields that Provision has read.
func (a *App) Validate() error {
	switch ttl, idle := time.Duration(a.Session.TTL), time.Duration(a.Session.Idle); {
	case ttl < time.Second:
		return fmt.Errorf("session ttl %s is too short: at least 1s", ttl)
	case idle < 0 || (idle > 0 && idle < time.Second):
		return fmt.Errorf("session idle %s is too short: at least 1s, or leave it out", idle)
	case idle > ttl:
		return a.Session.idleBeyondTTL()
	case ttl > sessionKeyLife:
		a.log.Warn("session ttl exceeds the life of a session_key: old data will not decrypt",
			zap.Duration("ttl", ttl), zap.Duration("session_key", sessionKeyLife))
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
		a.log.Warn("base_url is not https: AppSecrets and session_keys travel unencrypted",
			zap.String("base_url", a.API.BaseURL))
	}
	for _, what := range a.empty {
		a.log.Warn("placeholder is empty; the gate will refuse to start",
			zap.String("placeholder", what))
	}
	return nil
}

// Start opens the store and all else that survives a reload.
func (a *App) Start() error {
	defer a.settle()
	if err := a.judgeSites(); err != nil {
		return err
	}
	if err := a.open(); err != nil {
		a.held.release() // at once: the process may end before Cleanup's linger
		return err
	}
	ballast()
	started.add(a)
	a.live.Load().Sessions.Resize()
	a.renewStore()
	a.watchKeys()
	a.watchAssertions()
	a.runPlatforms()
	a.watchPushes()
	a.watchClock()
	a.tellReady()
	return nil
}

// judgeSites refuses a configuration with a fault around its gates, and logs a warning
// for each way to an app that passes no gate (P9).
func (a *App) judgeSites() error {
	app, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return nil // no HTTP server
	}
	web := app.(*caddyhttp.App)
	found := judge.Servers(web.Servers)
	if web.GracePeriod == 0 {
		found = append(found, judge.NoGracePeriod)
	}
	if f, ok := a.redis.Plain(); ok {
		found = append(found, f)
	}
	if caddy.ListenerUsage("tcp", caddy.DefaultAdminListen) > 0 {
		found = append(found, judge.AdminOnTCP)
	}
	if !logformat.InUse() {
		found = append(found, judge.UnmaskedLog)
	}
	for _, f := range found {
		if f.Refused {
			return f.Err()
		}
		a.log.Warn(f.What, zap.String("where", f.Where), zap.String("cure", f.Cure))
	}
	return nil
}

// open takes what the App needs from the pool, or makes it.
func (a *App) open() error {
	if len(a.empty) > 0 {
		return fmt.Errorf("%s is empty: "+
			"set the environment variable or write the file that it names", a.empty[0])
	}
	if err := a.checkReplacement(); err != nil {
		return err
	}
	if a.ring == nil {
		text, err := a.opener.(store.KeyKeeper).MasterKey()
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
	users, err := takeUserLimits(&a.held)
	if err != nil {
		return err
	}
	live := &Live{App: a, Core: core, WeChat: wechat, limiter: limiter, Users: users}
	live.Sessions = session.New(session.Config{
		Core: core, WeChat: wechat, Calls: wechat, Apps: a.apps, Keys: a.ring,
		TTL: time.Duration(a.Session.TTL), Idle: time.Duration(a.Session.Idle),
		MaxSessions: a.Cache.MaxSessions, MaxStaleness: time.Duration(a.MaxStaleness),
		MaxPerUser:    max(a.Session.MaxPerUser, 0),
		Replay:        max(time.Duration(a.Session.Replay), 0),
		RememberPhone: a.Phone.Remember, DataMaxAge: time.Duration(a.Decrypt.MaxAge),
		UnionIDBound: auditUnionID,
		Merchant:     live.Merchant,
		Groups:       a.groups(),
	})
	if err := checkKeys(core, live.Sessions); err != nil {
		return err
	}
	if err := a.refuseEmpty(core, live.Sessions); err != nil {
		Logger("store").Error("reload would log all users out; it is refused", zap.Error(err))
		return err
	}
	if live.Assertions, err = a.openAssertions(core); err != nil {
		return err
	}
	if err := a.openPlatforms(live); err != nil {
		return err
	}
	a.live.Store(live)
	return nil
}

// Stop does nothing: requests may still run. Cleanup comes after the last of them,
// or nearly so.
func (a *App) Stop() error { return nil }

// Cleanup returns the holdings to the pool, some time after the last request, or at
// once when the process exits.
func (a *App) Cleanup() error {
	if a.settle != nil { // nil: not even provisioned
		a.settle()
	}
	if caddy.Exiting() {
		a.exit()
		return nil
	}
	a.stepDown()
	if a.live.Load() != nil {
		lingering.add(a)
		time.AfterFunc(Linger, func() {
			a.held.release()
			lingering.remove(a)
		})
	}
	return nil
}

// Close is Cleanup without the linger.
func (a *App) Close() {
	a.stepDown()
	a.held.release()
}

// stepDown ends the background work of the App.
func (a *App) stepDown() {
	a.background.stop()
	was := Current()
	started.remove(a)
	if now := Current(); now != was && now != nil {
		now.renewStore() // this configuration was refused after its Start
	}
}

// MiniPrograms returns the configured mini programs with their secrets resolved.
func (a *App) MiniPrograms() []weixin.Credentials { return a.apps }

// AppIDs returns the AppIDs of the configured mini programs.
func (a *App) AppIDs() (ids []string) {
	for _, m := range a.apps {
		ids = append(ids, m.ID)
	}
	return ids
}

// Missing returns the placeholders of the configuration that have no value: with one
// of its own the App does not start, and with one of a handler that is of no use.
func (a *App) Missing() []string {
	missing := slices.Concat(a.empty, a.lacked)
	if o, ok := a.opener.(interface{ Missing() []string }); ok {
		missing = append(missing, o.Missing()...)
	}
	return missing
}

// Lacks notes a placeholder without a value in a handler that uses the App.
func (a *App) Lacks(what string) { a.lacked = append(a.lacked, what) }

// Opener returns the store module of the configuration.
func (a *App) Opener() store.Opener { return a.opener }

// KeyRing returns the master keys; nil before Start when the store keeps them.
func (a *App) KeyRing() *keyring.Ring { return a.ring }

// LoginLimits returns the rate limits of logins.
func (a *App) LoginLimits() limit.Config { return a.limits }

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
