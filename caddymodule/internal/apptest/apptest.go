// Package apptest owns a started app `wechat` for the tests of the packages above
// it: over a store with switches, with a simulated WeChat or one that is away.
//
// It must not know handlers.
package apptest

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// World is an app `wechat` with two mini programs, without a server.
type World struct {
	T    testing.TB
	App  *wechatapp.App
	Ctx  caddy.Context // for the handlers under test
	Path string        // of the database
	Log  *zap.Logger   // for the handlers under test
	Logs *observer.ObservedLogs
}

// Option changes the JSON of the app before it is provisioned, or the path.
type Option func(*config)

type config struct {
	store, path, baseURL, fields string

	push string // more JSON fields of the first mini program

	platform string // JSON of the components
	alone    bool   // no mini program has an entry of its own
}

// OnFile makes the app use a database that another World has left.
func OnFile(path string) Option { return func(c *config) { c.path = path } }

// OnBolt makes the app use the bolt store itself, without switches.
func OnBolt() Option { return func(c *config) { c.store = "bolt" } }

// WithWeChat gives the app a simulated WeChat. Without it WeChat is unreachable.
func WithWeChat(url string) Option { return func(c *config) { c.baseURL = url } }

// WithFields adds JSON fields to the app.
func WithFields(json string) Option { return func(c *config) { c.fields = "," + json } }

// WithPush makes the first mini program take pushes, with more JSON fields if any.
func WithPush(json string) Option {
	return func(c *config) {
		c.push = `, "push": {"token": "{env.WX_PUSH_TOKEN}", "aes_key": "{env.WX_PUSH_KEY}"` +
			json + `}`
	}
}

// InOpenPlatform gives the first mini program an Open Platform account of its own.
func InOpenPlatform(name string) Option {
	return func(c *config) { c.push += fmt.Sprintf(`, "open_platform": %q`, name) }
}

// PlatformID is the AppID of the third-party platform of WithPlatform.
const PlatformID = "wx9876543210fedcba"

// WithPlatform adds a third-party platform, with more JSON fields if any.
func WithPlatform(json string) Option {
	return func(c *config) {
		c.platform = fmt.Sprintf(`,"components":[{"appid":%q,"secret":"{env.WX_SECRET}",`+
			`"token":"{env.WX_PUSH_TOKEN}","aes_key":"{env.WX_PUSH_KEY}"%s}]`, PlatformID, json)
	}
}

// Alone takes away the mini programs: those of a platform remain.
func Alone(c *config) { c.alone = true }

// New provisions an app. Start is the caller's.
func New(t testing.TB, options ...Option) *World {
	t.Helper()
	t.Setenv("WX_SECRET", caddytest.Canary)
	t.Setenv("WX_PUSH_TOKEN", caddytest.PushToken)
	t.Setenv("WX_PUSH_KEY", caddytest.PushKey)
	c := config{store: "switch", baseURL: "http://127.0.0.1:1"}
	for _, o := range options {
		o(&c)
	}
	if c.path == "" {
		c.path = filepath.Join(t.TempDir(), "s.db")
	}
	core, logs := observer.New(zapcore.DebugLevel)
	apps := fmt.Sprintf(`
			{"appid": %q, "secret": "{env.WX_SECRET}"%s},
			{"appid": %q, "secret": "{env.WX_SECRET}"}`,
		caddytest.AppID, c.push, caddytest.OtherAppID)
	if c.alone {
		apps = ""
	}
	app, ctx := caddytest.ProvisionApp(t, fmt.Sprintf(`{
		"apps": [%s],
		"api": {"base_url": %q},
		"store": {"type": %q, "path": %q}%s
	}`, apps, c.baseURL, c.store, c.path, c.fields+c.platform))
	return &World{
		T: t, App: app.(*wechatapp.App), Ctx: ctx, Path: c.path, Log: zap.New(core), Logs: logs,
	}
}

// Started is New and Start.
func Started(t testing.TB, options ...Option) *World {
	t.Helper()
	return New(t, options...).Start()
}

// Start starts the app. The end of the test stops it.
func (w *World) Start() *World {
	w.T.Helper()
	if err := w.App.Start(); err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(w.Stop)
	return w
}

// Stop gives everything back at once, without the linger of Cleanup.
func (w *World) Stop() { w.App.Close() }

// Live returns what the app has open.
func (w *World) Live() *wechatapp.Live {
	w.T.Helper()
	live, err := w.App.Live(w.T.Context())
	if err != nil {
		w.T.Fatal(err)
	}
	return live
}

// Token logs a user in, past the login endpoint.
func (w *World) Token(appID, openID string) string {
	w.T.Helper()
	return w.TokenFor(appID, openID, time.Hour)
}

// TokenFor is Token for a session of some length, which may be over.
func (w *World) TokenFor(appID, openID string, ttl time.Duration) string {
	w.T.Helper()
	s := session.New(session.Config{
		Core: w.Live().Core, WeChat: caddytest.Exchanger{}, Apps: w.App.MiniPrograms(),
		Keys: w.App.KeyRing(), TTL: ttl,
	})
	out, err := s.Login(w.T.Context(), session.LoginRequest{
		AppID: appID, Code: caddytest.NewCode(openID),
	})
	if err != nil {
		w.T.Fatal(err)
	}
	return out.Token
}

// Insert logs a user of a stopped app in whom WeChat would never name, and returns
// the token.
func (w *World) Insert(id store.UserID) (token string) {
	w.T.Helper()
	st, err := bolt.Open(bolt.Config{Path: w.Path})
	if err != nil {
		w.T.Fatal(err)
	}
	defer st.Close()
	now := time.Now()
	h := keyring.Holder{User: keyring.User(id), Created: now, Expires: now.Add(time.Hour)}
	token = w.App.KeyRing().Mint(h)
	_, err = st.Login(w.T.Context(), store.Login{
		User: id, Digest: store.Digest(sha256.Sum256([]byte(token))),
		MasterKey: store.MasterKeyID(w.App.KeyRing().Signer()),
		Created:   h.Created, Expires: h.Expires,
	})
	if err != nil {
		w.T.Fatal(err)
	}
	return token
}

// Metric returns the sum of a metric's values over all labels.
func (w *World) Metric(name string) (sum float64) {
	w.T.Helper()
	for series, v := range caddytest.Gathered(w.T, w.Ctx.GetMetricsRegistry()) {
		if n, _, _ := strings.Cut(series, "{"); n == name {
			sum += v
		}
	}
	return sum
}
