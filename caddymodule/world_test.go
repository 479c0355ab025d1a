package caddymodule

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func init() { caddy.RegisterModule(new(switchStore)) }

// switchStore is the bolt store with switches, as the module wechat.stores.switch.
type switchStore struct {
	BoltStore
	Refuse bool `json:"refuse,omitempty"` // Open fails
}

// What all switchStores share; a test that sets one sets it back.
var (
	storeDown   atomic.Bool
	storeOpened atomic.Int32
	storeClosed atomic.Int32
)

func (switchStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "wechat.stores.switch", New: func() caddy.Module { return new(switchStore) }}
}

func (s *switchStore) Identity() string { return "switch:" + s.path }

func (s *switchStore) Open(log *zap.Logger) (store.Store, error) {
	if s.Refuse {
		return nil, errors.New("refused by the test")
	}
	st, err := s.BoltStore.Open(log)
	if err == nil {
		storeOpened.Add(1)
	}
	return switched{st}, err
}

// switched is a store that can be unreachable.
type switched struct{ store.Store }

func (s switched) Lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	if storeDown.Load() {
		return store.Record{}, store.ErrUnavailable
	}
	return s.Store.Lookup(ctx, d)
}

func (s switched) User(ctx context.Context, id store.UserID) (store.User, error) {
	if storeDown.Load() {
		return store.User{}, store.ErrUnavailable
	}
	return s.Store.User(ctx, id)
}

func (s switched) Health(ctx context.Context) error {
	if storeDown.Load() {
		return store.ErrUnavailable
	}
	return s.Store.Health(ctx)
}

func (s switched) Close() error {
	storeClosed.Add(1)
	return s.Store.Close()
}

// exchanger is WeChat without a network: the code is the openid and a number, since no code is taken twice.
type exchanger struct{}

var codes atomic.Int64

func (exchanger) Code2Session(_ context.Context, _ weixin.Credentials, code string) (weixin.Session, error) {
	openID, _, _ := strings.Cut(code, ".")
	return weixin.Session{OpenID: openID, SessionKey: "c2Vzc2lvbl9rZXk9PT09PQ=="}, nil
}

// world is a provisioned App with a Gate in front of it, without a server.
type world struct {
	t    testing.TB
	app  *App
	gate *Gate
	ctx  caddy.Context
	logs *observer.ObservedLogs

	core *session.Core
	held holdings // a hold on core
}

// newWorld provisions; start is the caller's. Fields of gate are the configuration of the site.
func newWorld(t testing.TB, gate *Gate) *world {
	t.Helper()
	t.Setenv("WX_SECRET", canary)
	core, logs := observer.New(zapcore.DebugLevel)
	w := &world{t: t, logs: logs}
	w.app, w.ctx = provisionApp(t, fmt.Sprintf(`{
		"apps": [{"appid": %q, "secret": "{env.WX_SECRET}"}, {"appid": %q, "secret": "{env.WX_SECRET}"}],
		"api": {"base_url": "http://127.0.0.1:1"},
		"store": {"type": "switch", "path": %q}
	}`, appID, otherAppID, filepath.Join(t.TempDir(), "s.db")))
	w.app.log = zap.New(core)
	w.gate = w.newGate(gate)
	return w
}

// newGate provisions one more site.
func (w *world) newGate(g *Gate) *Gate {
	w.t.Helper()
	if err := g.Provision(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	g.log = w.app.log
	return g
}

// provisionApp provisions and validates the app, given in JSON, in a configuration of its own that logs nowhere.
func provisionApp(t testing.TB, app string) (*App, caddy.Context) {
	t.Helper()
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Logging: quiet(),
		AppsRaw: caddy.ModuleMap{"wechat": json.RawMessage(app)},
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := ctx.App("wechat")
	if err != nil {
		t.Fatal(err)
	}
	return a.(*App), ctx
}

func quiet() *caddy.Logging {
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		"default": {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output":"discard"}`)}},
	}}
}

// start starts the app and undoes it when the test ends.
func (w *world) start() *world {
	w.t.Helper()
	if err := w.app.Start(); err != nil {
		w.t.Fatal(err)
	}
	var err error
	if w.core, err = takeCore(&w.held, w.app.opener, 1); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.stop)
	return w
}

// stop gives everything back at once, without the linger of Cleanup.
func (w *world) stop() {
	w.held.release(zap.NewNop())
	w.app.lease.close()
}

// token logs a user in, past the login endpoint.
func (w *world) token(appid, openid string) string {
	w.t.Helper()
	return w.tokenFor(appid, openid, time.Hour)
}

func (w *world) tokenFor(appid, openid string, ttl time.Duration) string {
	w.t.Helper()
	s := session.New(session.Config{Core: w.core, WeChat: exchanger{}, Apps: w.app.apps, Keys: w.app.ring, TTL: ttl})
	out, err := s.Login(w.t.Context(), session.LoginRequest{AppID: appid, Code: fmt.Sprintf("%s.%d", openid, codes.Add(1))})
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Token
}

// replace puts another user behind a token, as only a damaged store could.
func (w *world) replace(token string, id store.UserID) {
	w.t.Helper()
	st, err := w.app.opener.Open(zap.NewNop())
	if err != nil {
		w.t.Fatal(err)
	}
	defer st.Close()
	d := store.Digest(sha256.Sum256([]byte(token)))
	_, err = st.Login(w.t.Context(), store.Login{User: id, Digest: d, Created: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		w.t.Fatal(err)
	}
}

// request makes a request as Caddy hands it to a handler.
func request(method, target, token string) (*http.Request, *httptest.ResponseRecorder) {
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(method, target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return prepare(r, rec), rec
}

func prepare(r *http.Request, w http.ResponseWriter) *http.Request {
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
}

// next is the app behind the gate: it remembers the last call.
type next struct {
	called bool
	w      http.ResponseWriter
	r      *http.Request
}

func (n *next) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	n.called, n.w, n.r = true, w, r
	return nil
}

// code returns the code of a problem.
func code(t testing.TB, rec *httptest.ResponseRecorder) string {
	t.Helper()
	var p struct{ Code string }
	b, _ := io.ReadAll(rec.Body)
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatalf("answer %q: %v", b, err)
	}
	return p.Code
}

// linesOf returns what was logged, as text.
func linesOf(logs *observer.ObservedLogs) string {
	var b strings.Builder
	for _, e := range logs.All() {
		fmt.Fprintf(&b, "%s %s %v\n", e.Level, e.Message, e.ContextMap())
	}
	return b.String()
}
