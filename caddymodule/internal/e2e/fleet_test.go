package e2e_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
	_ "github.com/wxgate/wxgate/caddymodule/redisstore"
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

// TestFleet_OneSession holds that a session made by one gate is good at the
// other until one of them ends it.
func TestFleet_OneSession(t *testing.T) {
	t.Parallel()
	f := newFleet(t, mixed)
	ada := f.a.who(appA, "ada")
	token := f.a.login(t, "ada")
	for _, w := range f.gates() {
		w.checkAlive(t, token, ada)
		w.call(t, "GET", "/wx/session", "", bearer(token)).made(t, 200)
	}
	f.b.post(t, "/wx/logout", "", bearer(token)).made(t, 204)
	f.b.checkDead(t, token)
	f.a.refuses(t, token)

	first, second := f.a.login(t, "ada"), f.b.login(t, "ada")
	for _, w := range f.gates() {
		w.checkAlive(t, first, ada)
		w.checkAlive(t, second, ada)
	}
	third := f.b.login(t, "ada", bearer(first))
	f.b.checkLeaving(t, first, true)
	eventually(t, "the other gate knows", func() bool { return f.a.expiresIn(t, first) <= 60 })
	f.a.checkAlive(t, second, ada)
	f.a.post(t, "/wx/logout", `{"all":true}`, bearer(second)).made(t, 204)
	for _, token := range []string{second, third} {
		f.a.checkDead(t, token)
		f.b.refuses(t, token)
	}
}

// TestFleet_Block_HoldsAtEachGate: a block at one gate ends the user's sessions at the
// other, keeps the user out, and outlives a restart and forget.
func TestFleet_Block_HoldsAtEachGate(t *testing.T) {
	slow(t)
	t.Parallel()
	f := newFleet(t, mixed)
	token, bob := f.b.login(t, "ada"), f.b.login(t, "bob")
	f.b.checkAlive(t, token, f.b.who(appA, "ada"))
	target := []string{"--unionid", f.a.wechat.UnionID("ada")}
	block := []string{"block", "--yes", "--for", "72h", "--reason", "spam"}
	f.a.operate(t, append(block, target...)...)
	f.b.refuses(t, token)
	f.b.operate(t, append([]string{"forget", "--yes"}, target...)...)
	f.b.gate.stop(t)
	f.b.start(t)
	f.b.takesLogins(t)
	for _, w := range f.gates() {
		r := w.post(t, "/wx/login", appBody(w.wechat.Code(appA, "ada"), appA))
		r.problem(t, 403, "user_blocked")
		w.checkAlive(t, bob, w.who(appA, "bob"))
	}
	f.b.operate(t, append([]string{"unblock"}, target...)...)
	f.a.checkAlive(t, f.a.login(t, "ada"), f.a.who(appA, "ada"))
}

// TestThreat37_RecordOfAnother_OpensNothing: another tenant of the Redis puts the
// record of ada's session behind a token of its own.
func TestThreat37_RecordOfAnother_OpensNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t, mixed)
	ada, mallory := f.a.login(t, "ada"), f.a.login(t, "mallory")
	key := func(token string) string {
		return fmt.Sprintf("wxgate:s:{%x}", sha256.Sum256([]byte(token)))
	}
	f.redis.Do("COPY", key(ada), key(mallory), "REPLACE")
	f.b.checkDead(t, mallory)
	f.b.checkAlive(t, ada, f.b.who(appA, "ada"))
	f.b.checkAlive(t, f.b.login(t, "mallory"), f.b.who(appA, "mallory"))
	if m := f.b.metrics(t)["caddy_wechat_foreign_records_total"]; m != 1 {
		t.Errorf("counted %v", m)
	}
}

// TestP12_Fleet_Rotation_NoVerificationFails: proofs of either gate hold with the keys of
// either, from before a rotation and after it, and over the restart of a gate. The model
// in package assertion goes on to when the new key signs.
func TestP12_Fleet_Rotation_NoVerificationFails(t *testing.T) {
	slow(t)
	t.Parallel()
	f := newFleet(t, setup{
		auth: "\tassertion {\n\t\taudience orders\n\t\tissuer https://a.example.com\n\t}",
	})
	token := f.a.login(t, "ada")
	var sets []jose.JSONWebKeySet
	var proofs []string
	collect := func(keys int) {
		t.Helper()
		for _, w := range f.gates() {
			set, proof := w.keySet(t, keys), ""
			for _, line := range w.call(t, "GET", "/x", "", bearer(token)).received(t).Headers {
				name, value, _ := strings.Cut(line, ":")
				if strings.EqualFold(name, "X-WX-ASSERTION") {
					proof = strings.TrimSpace(value)
				}
			}
			sets, proofs = append(sets, set), append(proofs, proof)
		}
	}
	collect(1)
	f.a.operate(t, "keys", "rotate-assertion", "--yes")
	f.b.gate.stop(t) // a running gate asks once a minute
	f.b.start(t)
	f.b.takesLogins(t)
	collect(2)

	for i, proof := range proofs {
		parsed, err := jwt.ParseSigned(proof, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatalf("%q: %v", proof, err)
		}
		for j, set := range sets {
			var c jwt.Claims
			if err := parsed.Claims(set, &c); err != nil {
				t.Errorf("proof %d with keys %d: %v", i, j, err)
			}
			err := c.Validate(jwt.Expected{
				Issuer: "https://a.example.com", AnyAudience: jwt.Audience{"orders"},
				Subject: f.a.wechat.OpenID(appA, "ada"), Time: c.IssuedAt.Time().Add(time.Second),
			})
			if err != nil {
				t.Errorf("proof %d: %v", i, err)
			}
		}
	}
}

// keySet returns the published keys as soon as there are so many.
func (w *world) keySet(t *testing.T, keys int) (set jose.JSONWebKeySet) {
	t.Helper()
	eventually(t, "the keys are published", func() bool {
		r := w.call(t, "GET", "/wx/jwks.json", "")
		if r.status != 200 {
			r.problem(t, 503, "store_unavailable")
			return false
		}
		set = jose.JSONWebKeySet{}
		if err := json.Unmarshal([]byte(r.body), &set); err != nil {
			t.Fatal(err)
		}
		return len(set.Keys) == keys
	})
	return set
}

// TestFleet_MoveFromBolt moves the sessions of a running gate from bolt to
// Redis, as the README tells. Nobody has to log in again, and nobody who logged
// out is back.
func TestFleet_MoveFromBolt(t *testing.T) {
	slow(t)
	t.Parallel()
	f := prepareFleet(t, setup{})
	w := f.a
	later := w.setup
	w.setup = setup{}.complete()
	w.env = later.env
	w.start(t)
	key := w.database() + ".key"
	later.wechat = strings.Replace(later.wechat, "{env.WX_SEAL_KEY}", "{file."+key+"}", 1)

	kept, ended := w.login(t, "ada"), w.login(t, "ada")
	backup := filepath.Join(w.home, "before.db")
	w.operate(t, "backup", backup)
	config := w.write(t, "new.Caddyfile", w.caddyfile(later))
	migrate := func(args ...string) string {
		t.Helper()
		status, printed := w.command(t, append([]string{
			"wechat", "migrate", "--to", "redis", "--adapter", "caddyfile", "--config", config,
		}, args...)...)
		if status != 0 {
			t.Fatalf("migrate ends with %d:\n%s", status, printed)
		}
		return printed
	}
	if printed := migrate("--from", "bolt:"+backup); !strings.Contains(printed,
		"2 live sessions, 2 of them new there") {
		t.Errorf("migrate prints\n%s", printed)
	}

	between := w.login(t, "bob")
	w.post(t, "/wx/logout", "", bearer(ended)).made(t, 204)
	w.mustReload(t, later)
	w.takesLogins(t)
	w.checkAlive(t, kept, w.who(appA, "ada"))
	after := w.login(t, "cid")
	printed := migrate("--from", "bolt:"+w.database(), "--since", "bolt:"+backup)
	if !strings.Contains(printed, "1 session ended since the backup") ||
		!strings.Contains(printed, "1 live session, 1 of them new there") {
		t.Errorf("migrate prints\n%s", printed)
	}

	f.b.setup.wechat = later.wechat
	f.b.start(t)
	f.b.takesLogins(t)
	for _, w := range f.gates() {
		w.checkAlive(t, kept, w.who(appA, "ada"))
		w.checkAlive(t, between, w.who(appA, "bob"))
		w.checkAlive(t, after, w.who(appA, "cid"))
		w.refuses(t, ended)
	}
}
