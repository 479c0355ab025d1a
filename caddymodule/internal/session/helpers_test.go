package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// Reasons of tests that ask for none in particular.
const (
	endLogout    = session.EndLogout
	endRevoked   = session.EndRevoked
	endForgotten = session.EndForgotten
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // each of some hundred gates has a cache of its own
	goleak.VerifyTestMain(m)
}

const (
	appA = "wxaaaaaaaaaaaaaaaa"
	appB = "wxbbbbbbbbbbbbbbbb"
)

var alice = user("alice")

// person is a unionid where there is one group.
func person(unionID string) session.Person { return session.Person{UnionID: unionID} }

var (
	phone = netip.MustParseAddr("203.0.113.7")
	other = netip.MustParseAddr("203.0.113.8")
)

// exchanger is WeChat as a function.
type exchanger func(context.Context, weixin.Credentials, string) (weixin.Session, error)

func (f exchanger) Code2Session(
	ctx context.Context, app weixin.Credentials, code string,
) (weixin.Session, error) {
	return f(ctx, app, code)
}

// wechat answers the code "<openid>" or "<openid>/<unionid>", with anything
// after a '#', and counts its calls.
type wechat struct{ calls atomic.Int64 }

func (w *wechat) Code2Session(
	_ context.Context, _ weixin.Credentials, code string,
) (weixin.Session, error) {
	w.calls.Add(1)
	who, _, _ := strings.Cut(code, "#")
	openID, unionID, _ := strings.Cut(who, "/")
	return weixin.Session{OpenID: openID, SessionKey: "key of " + openID, UnionID: unionID}, nil
}

// onceOnly is WeChat as it treats codes: the first exchange gets the user, all
// others errcode 40163.
type onceOnly struct {
	wechat
	spent sync.Map
}

func (o *onceOnly) Code2Session(
	ctx context.Context, app weixin.Credentials, code string,
) (weixin.Session, error) {
	s, err := o.wechat.Code2Session(ctx, app, code)
	if _, again := o.spent.LoadOrStore(code, true); again {
		return s, &weixin.Error{Op: "exchanging code", Class: weixin.ClassCodeUsed, ErrCode: 40163}
	}
	return s, err
}

// hook is what happens at a call to the store or to WeChat, by the call's name.
// Its error becomes the outcome.
type hook = func(ctx context.Context, op string) error

// at returns a hook for the calls of one name.
func at(name string, f func(context.Context) error) hook {
	return func(ctx context.Context, op string) error {
		if op != name {
			return nil
		}
		return f(ctx)
	}
}

// failing returns a hook that fails the calls of one name.
func failing(name string, err error) hook {
	return at(name, func(context.Context) error { return err })
}

func hanging(name string) hook { return at(name, hang) }

func hang(ctx context.Context) error {
	<-ctx.Done()
	return errors.Join(store.ErrUnavailable, ctx.Err())
}

func holding(name string, held <-chan struct{}) hook {
	return at(name, func(context.Context) error {
		<-held
		return nil
	})
}

// bubble is a subtest in a synctest bubble.
func bubble(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// gate is a Service, what it stands on, and shorthands.
type gate struct {
	*session.Service
	t      testing.TB
	core   *session.Core
	store  *memstore.Store
	wechat *wechat
	keys   *keyring.Ring
	cfg    session.Config
}

// option changes what a gate is made of.
type option = func(*session.CoreConfig, *session.Config)

// newGate returns a gate on a store in memory. An edit may replace every part
// but the core.
func newGate(t testing.TB, edit ...option) *gate {
	t.Helper()
	g := &gate{t: t, store: memstore.New(memstore.NewData()), wechat: new(wechat)}
	cc := session.CoreConfig{Store: g.store, MaxSessions: 1 << 12}
	c := session.Config{
		WeChat: g.wechat,
		Apps:   []weixin.Credentials{{ID: appA, Secret: "secretA"}, {ID: appB, Secret: "secretB"}},
		Keys:   newKeys(t),
		TTL:    2 * time.Hour,
		Replay: 10 * time.Second,
	}
	for _, e := range edit {
		e(&cc, &c)
	}
	if s, ok := cc.Store.(*memstore.Store); ok {
		g.store = s
	}
	core, err := session.NewCore(cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { core.Close() })
	c.Core, g.core, g.keys = core, core, c.Keys
	g.cfg = c
	g.Service = session.New(c)
	return g
}

// newNode returns a gate that shares the data and the keys of another, and
// nothing else.
func newNode(g *gate) *gate {
	return newGate(g.t, func(cc *session.CoreConfig, c *session.Config) {
		cc.Store, c.Keys = memstore.New(g.store.Data), g.keys
	})
}

// reload gives the gate another configuration.
func (g *gate) reload(edit func(*session.Config)) {
	edit(&g.cfg)
	g.Service = session.New(g.cfg)
}

func with(f func(*session.Config)) option {
	return func(_ *session.CoreConfig, c *session.Config) { f(c) }
}

func withCore(f func(*session.CoreConfig)) option {
	return func(c *session.CoreConfig, _ *session.Config) { f(c) }
}

func newKeys(t testing.TB, text ...string) *keyring.Ring {
	t.Helper()
	if len(text) == 0 {
		text = []string{keyring.NewMasterKey()}
	}
	ring, err := keyring.Parse(strings.Join(text, ","))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// keeping makes a gate keep its sessions in data, under the given master keys.
func keeping(t testing.TB, data *memstore.Data, masters ...string) option {
	return func(cc *session.CoreConfig, c *session.Config) {
		cc.Store, c.Keys = memstore.New(data), newKeys(t, masters...)
	}
}

var codes atomic.Int64

// login logs a user in with a code of its own.
func (g *gate) login(who string, edit ...func(*session.LoginRequest)) session.Login {
	g.t.Helper()
	req := request(fmt.Sprint(who, "#", codes.Add(1)), phone)
	for _, e := range edit {
		e(&req)
	}
	l, err := g.Login(context.Background(), req)
	if err != nil {
		g.t.Fatalf("login: %v", err)
	}
	return l
}

// cached logs a user in and returns the token when the cache holds the session.
func (g *gate) cached(who string) string {
	g.t.Helper()
	token := g.login(who).Token
	g.accept(token)
	g.settle()
	return token
}

// settle waits until the cache has taken every entry put into it.
func (g *gate) settle() { g.core.SettleCache() }

// authenticate repeats a look-up that a busy machine made too slow: no test of a
// fact may depend on that.
func (g *gate) authenticate(token string) (id session.Identity, err error) {
	for range 100 {
		id, err = g.Authenticate(context.Background(), token)
		if !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return id, err
}

func (g *gate) accept(token string) session.Identity {
	g.t.Helper()
	id, err := g.authenticate(token)
	if err != nil {
		g.t.Fatalf("refused: %v", err)
	}
	return id
}

// refuse expects an error with the reason for a token, and nothing else.
func (g *gate) refuse(token string, reason error) {
	g.t.Helper()
	id, err := g.authenticate(token)
	g.checkRefused(id, err, reason)
}

func (g *gate) checkRefused(id session.Identity, err, reason error) {
	g.t.Helper()
	if !errors.Is(err, reason) || id != (session.Identity{}) {
		g.t.Fatalf("got %+v, %v; want %v", id, err, reason)
	}
	if errors.Is(err, session.ErrInvalid) == errors.Is(err, session.ErrUnavailable) {
		g.t.Fatalf("%v is both invalid and unavailable, or neither", err)
	}
}

// must fails the test on an error.
func (g *gate) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// unavailable expects a call to fail for want of a store.
func unavailable(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrInvalid) ||
		errors.Is(err, session.ErrUnknownUser) {
		t.Errorf("got %v", err)
	}
}

// asks returns how often f made the gate ask the store in any way.
func (g *gate) asks(f func()) int {
	sum := func() (n int) {
		for _, c := range g.store.Calls() {
			n += c
		}
		return n
	}
	before := sum()
	f()
	return sum() - before
}

func user(openID string) session.User { return session.User{AppID: appA, OpenID: openID} }

// wantClass expects the error of WeChat's kind.
func wantClass(t testing.TB, err error, want weixin.Class) {
	t.Helper()
	e, ok := errors.AsType[*weixin.Error](err)
	if !ok || e.Class != want {
		t.Fatalf("got %v, want class %v", err, want)
	}
}

// logoutAll ends every session of a token's user, as the gate does.
func logoutAll(ctx context.Context, s *session.Service, token string) error {
	id, err := s.Authenticate(ctx, token)
	if err != nil {
		return err
	}
	return s.RevokeUser(ctx, id.User(), endRevoked)
}

// endings are the ways in which a session of alice may end at one gate.
var endings = map[string]func(*gate, session.Login) error{
	"session": func(g *gate, l session.Login) error {
		return g.Logout(context.Background(), l.Token)
	},
	"by id": func(g *gate, l session.Login) error {
		return g.EndByID(context.Background(), alice, idOf(l), endRevoked)
	},
	"log out all": func(g *gate, l session.Login) error {
		return logoutAll(context.Background(), g.Service, l.Token)
	},
	"user": func(g *gate, _ session.Login) error {
		return g.RevokeUser(context.Background(), alice, endRevoked)
	},
	"forget": func(g *gate, _ session.Login) error {
		return g.Forget(context.Background(), alice, endForgotten)
	},
	"app": func(g *gate, _ session.Login) error {
		return g.RevokeApp(context.Background(), appA)
	},
	"all": func(g *gate, _ session.Login) error { return g.RevokeAll(context.Background()) },
	"unionid": func(g *gate, _ session.Login) error {
		_, err := g.RevokeUnionID(context.Background(), person("union"), endRevoked)
		return err
	},
	"max per user": func(g *gate, _ session.Login) (err error) {
		for range 4 { // twice the limit of the tests, for sessions that are young
			req := request(fmt.Sprint("alice#", codes.Add(1)), phone)
			_, failed := g.Login(context.Background(), req)
			err = errors.Join(err, failed)
		}
		return err
	},
}

// present logs bob in with the token of a session that is there.
func present(g *gate, token string) string {
	g.t.Helper()
	return g.login(fmt.Sprint("bob#", codes.Add(1)), func(r *session.LoginRequest) {
		r.Presented = token
	}).Token
}

// revocations are the endings that the gate retries.
var revocations = []string{"session", "user", "forget", "app", "all", "unionid"}

// newMasters returns master keys that may stand in one ring.
func newMasters(n int) (masters []string) {
	for len(masters) < n {
		k := keyring.NewMasterKey()
		if _, err := keyring.Parse(strings.Join(append(masters, k), ",")); err == nil {
			masters = append(masters, k)
		}
	}
	return masters
}

const staleness = 30 * time.Second

// newFleet returns gates that share their data, keys and WeChat.
func newFleet(t testing.TB, n int, edit ...option) (gates []*gate, links []*memstore.Shared) {
	t.Helper()
	data, keys, weChat := memstore.NewData(), newKeys(t), new(wechat)
	for range n {
		s := memstore.NewShared(data)
		shared := func(cc *session.CoreConfig, c *session.Config) {
			cc.Store, c.Keys, c.WeChat, c.MaxStaleness = s, keys, weChat, staleness
		}
		g := newGate(t, append([]option{shared}, edit...)...)
		g.store, g.wechat = s.Store, weChat
		gates, links = append(gates, g), append(links, s)
	}
	return gates, links
}

// milli is the precision of times at rest.
func milli(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()) }

// nobody is the holder of a token that has no session.
var nobody keyring.Holder
