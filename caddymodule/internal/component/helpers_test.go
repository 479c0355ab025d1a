package component_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/component"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	platformID = "wx9876543210fedcba"
	secret     = "0123456789abcdef0123456789abcdef"
	pushToken  = "AAAAA"
	pushKey    = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	shop       = "wx0123456789abcdef"
	otherShop  = "wxfedcba9876543210"
)

var platform = weixin.Credentials{ID: platformID, Secret: secret}

// world is WeChat, what gates share, and who receives WeChat's pushes.
type world struct {
	t    testing.TB
	sim  *weixintest.Server
	url  string // of the receiver
	data *memstore.Data
	ring *keyring.Ring
	skew atomic.Int64 // of every clock, a time.Duration

	mu       sync.Mutex
	receiver *component.Platform // nil: nobody answers
	ended    []string            // merchants whose sessions have ended
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.skew.Load())) }

// later lets time pass for all.
func (w *world) later(d time.Duration) { w.skew.Add(int64(d)) }

func newWorld(t testing.TB, merchants ...string) *world {
	t.Helper()
	w := &world{t: t, data: memstore.NewData(), ring: newRing(t, keyring.NewMasterKey())}
	srv := httptest.NewServer(http.HandlerFunc(w.receive))
	t.Cleanup(srv.Close)
	w.url = srv.URL + "/events"
	apps := map[string]string{shop: "shop-secret", otherShop: "other-secret"}
	for _, id := range merchants {
		apps[id] = "secret"
	}
	w.sim = weixintest.NewServer(weixintest.Config{
		Apps: apps, Now: w.now,
		Components: []weixintest.Component{{
			AppID: platformID, Secret: secret, Token: pushToken, AESKey: pushKey,
			EventsURL: w.url,
		}},
	})
	t.Cleanup(w.sim.Close)
	return w
}

func newRing(t testing.TB, keys ...string) *keyring.Ring {
	t.Helper()
	ring, err := keyring.Parse(strings.Join(keys, " "))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// receive is the endpoint of the platform: it verifies as a gate does.
func (w *world) receive(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	to := w.receiver
	w.mu.Unlock()
	if to == nil {
		rw.WriteHeader(http.StatusBadGateway)
		return
	}
	body, _ := io.ReadAll(r.Body)
	err := func() error {
		at, err := push.New(platformID, pushToken, pushKey)
		if err != nil {
			return err
		}
		q, err := push.ReadQuery(r.URL.RawQuery)
		if err != nil {
			return err
		}
		e, err := push.ReadEnvelope(body)
		if err != nil {
			return err
		}
		message, _, err := at.Open(q, e.Encrypt)
		if err != nil {
			return err
		}
		m, err := push.ReadMessage(message)
		if err != nil {
			return err
		}
		return to.Take(r.Context(), m)
	}()
	if err != nil {
		w.t.Logf("push refused: %v", err)
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(rw, push.Success)
}

// receives makes a gate the one that gets WeChat's pushes; nil makes it nobody.
func (w *world) receives(g *gate) {
	w.t.Helper()
	url := ""
	w.mu.Lock()
	if w.receiver = nil; g != nil {
		w.receiver, url = g.Platform, w.url
	}
	w.mu.Unlock()
	w.must(w.sim.SetEventsURL(platformID, url))
}

func (w *world) sessionsEnded() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.ended...)
}

// gate is one process.
type gate struct {
	*component.Platform
	store  *memstore.Store
	client *weixin.Client
	world  *world
}

func (w *world) gate(change ...func(*component.Config)) *gate {
	w.t.Helper()
	client, err := weixin.New(weixin.Config{BaseURL: w.sim.URL})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	g := &gate{store: memstore.New(w.data), client: client, world: w}
	cfg := component.Config{
		Credentials: platform, Memory: new(component.Memory), Facts: g.store, Ring: w.ring,
		Calls: client, Now: w.now, Log: zap.NewNop(),
		EndSessions: func(_ context.Context, appID string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ended = append(w.ended, appID)
			return nil
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	g.Platform = component.New(cfg)
	return g
}

func shared(cfg *component.Config) { cfg.Shared = true }

// ready is a gate that has got a ticket and done its work.
func (w *world) ready(change ...func(*component.Config)) *gate {
	w.t.Helper()
	g := w.gate(change...)
	w.receives(g)
	w.pushed(w.sim.PushTicket(w.t.Context(), platformID))
	w.must(g.Work(w.t.Context()))
	return g
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pushed(p weixintest.Pushed, err error) {
	w.t.Helper()
	if err != nil || p.Status != http.StatusOK || p.Answer != push.Success {
		w.t.Fatalf("push: %+v, %v", p, err)
	}
}

// logIn logs a user in to a merchant through a gate.
func (g *gate) logIn(appID string) (weixin.Session, error) {
	code := g.world.sim.Code(appID, "alice")
	return g.client.Code2Session(g.world.t.Context(),
		weixin.Credentials{ID: appID, Platform: g.Platform}, code)
}

// calls fails the test unless a call of the ladder succeeded so often.
func (w *world) calls(name string, want int) {
	w.t.Helper()
	n := 0
	for _, c := range w.sim.Calls() {
		if c.Path == "/cgi-bin/component/"+name && c.ErrCode == 0 {
			n++
		}
	}
	if n != want {
		w.t.Errorf("%s succeeded %d times, not %d", name, n, want)
	}
}

// eventually waits for a condition.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for began := time.Now(); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			w.t.Fatalf("still not: %s", what)
		}
	}
}

// state returns the state of a merchant at a gate, empty when it is unknown.
func (g *gate) state(appID string) component.State {
	g.world.t.Helper()
	all, err := g.Merchants(g.world.t.Context())
	g.world.must(err)
	for _, m := range all {
		if m.AppID == appID {
			return m.State
		}
	}
	return ""
}

// class returns the class of an error of WeChat's.
func class(err error) weixin.Class {
	if e, ok := errors.AsType[*weixin.Error](err); ok {
		return e.Class
	}
	if err != nil {
		return weixin.ClassProtocol
	}
	return weixin.ClassOK
}
