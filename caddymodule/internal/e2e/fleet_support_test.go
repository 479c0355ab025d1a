package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	_ "github.com/wxgate/wxgate/caddymodule/redisstore"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

const (
	fleetPassword = "canary-redis-password"
	fleetSealKey  = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// fleet is two gates with one store, one WeChat and an app each.
type fleet struct {
	a, b  *world
	redis *redistest.Server
}

// newFleet starts a fleet and waits until both gates take logins.
func newFleet(tb testing.TB, s setup, opts ...redistest.Option) *fleet {
	tb.Helper()
	f := prepareFleet(tb, s, opts...)
	for _, w := range f.gates() {
		w.start(tb)
		w.takesLogins(tb)
	}
	return f
}

// prepareFleet starts all but the gates.
func prepareFleet(tb testing.TB, s setup, opts ...redistest.Option) *fleet {
	tb.Helper()
	opts = append(opts, redistest.Password(fleetPassword), redistest.With("appendonly yes"),
		redistest.With("appendfsync always"), redistest.With("maxmemory-policy noeviction"))
	f := &fleet{redis: redistest.Start(tb, opts...)}
	s = shared(s, f.redis.Addr)
	f.a, f.b = prepareWorld(tb, s), prepareWorld(tb, s)
	f.b.wechat = f.a.wechat
	tb.Cleanup(func() {
		for _, w := range f.gates() {
			if strings.Contains(w.out.String(), fleetPassword) ||
				strings.Contains(w.out.String(), fleetSealKey) {
				tb.Error("a gate has printed a secret of the store")
			}
		}
	})
	return f
}

// shared makes a setup keep its sessions in Redis. The machine may be slower
// than a gate should put up with.
func shared(s setup, addr string, lines ...string) setup {
	s.wechat += fmt.Sprintf("\t\tstore redis %s {\n\t\t\tpassword {env.REDIS_PASSWORD}\n"+
		"\t\t\tread_timeout 2s\n%s\n\t\t}\n", addr, strings.Join(lines, "\n"))
	if !strings.Contains(s.wechat, "seal_key") {
		s.wechat += "\t\tseal_key {env.WX_SEAL_KEY}\n"
	}
	s.env = append(s.env, "REDIS_PASSWORD="+fleetPassword, "WX_SEAL_KEY="+fleetSealKey)
	return s
}

func (f *fleet) gates() []*world { return []*world{f.a, f.b} }

// takesLogins waits until a login is answered well. Until then it is answered
// 503 and nothing else.
func (w *world) takesLogins(tb testing.TB) {
	tb.Helper()
	eventually(tb, "logins are taken", func() bool {
		r := w.post(tb, "/wx/login", appBody(w.wechat.Code(appA, "warm-up"), appA))
		if r.status != 200 {
			r.problem(tb, 503, "store_unavailable")
		}
		return r.status == 200
	})
}

// refuses waits until a token that was good opens nothing any more. Until then
// it opens the app; there is no third answer.
func (w *world) refuses(tb testing.TB, token string) {
	tb.Helper()
	eventually(tb, "the token is refused", func() bool {
		r := w.call(tb, "GET", "/x", "", bearer(token))
		if !r.fromApp() {
			r.problem(tb, 401, "session_invalid")
		}
		return !r.fromApp()
	})
}
