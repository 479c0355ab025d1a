package e2e_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// TestFleet_Places shares each kind of store between two gates: behind TLS or a
// unix socket, with sentinels, as a cluster.
func TestFleet_Places(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, tt := range []struct {
		name  string
		lines func(t *testing.T) string // of the block store redis
	}{
		{"TLS", func(t *testing.T) string {
			srv := redistest.Start(t, redistest.WithTLS(), redistest.Password(fleetPassword))
			return "address " + srv.Addr + "\npassword {env.REDIS_PASSWORD}\ndb 3\ntls {\nca " +
				srv.Dir + "/tls.crt\ncert " + srv.Dir + "/tls.crt\nkey " + srv.Dir + "/tls.key\n}"
		}},
		{"UnixSocket", func(t *testing.T) string {
			socket := filepath.Join(t.TempDir(), "s")
			redistest.Start(t, redistest.With("unixsocket "+socket))
			return "address " + socket + "\nprefix other:"
		}},
		{"Sentinel", func(t *testing.T) string {
			watched := redistest.StartReplicaWithSentinel(t, 3, redistest.Password(fleetPassword))
			return "address " + strings.Join(watched.Addresses(), " ") +
				"\npassword {env.REDIS_PASSWORD}\nsentinel {\nmaster " + watched.Master + "\n}"
		}},
		{"Cluster", func(t *testing.T) string {
			return "address " + strings.Join(redistest.StartCluster(t, 3, 0).Addresses(),
				" ") + "\ncluster"
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := setup{
				wechat: "\t\tstore redis {\n" + tt.lines(t) +
					"\n\t\t}\n\t\tseal_key {env.WX_SEAL_KEY}\n",
				env: []string{"REDIS_PASSWORD=" + fleetPassword, "WX_SEAL_KEY=" + fleetSealKey},
			}
			a, b := newWorld(t, s), prepareWorld(t, s)
			b.wechat = a.wechat
			b.start(t)
			a.takesLogins(t)
			b.takesLogins(t)
			token := a.login(t, "ada")
			b.checkAlive(t, token, a.who(appA, "ada"))
			a.operate(t, "revoke", "--appid", appA, "--openid", a.wechat.OpenID(appA, "ada"))
			a.checkDead(t, token)
			b.refuses(t, token)
		})
	}
}

// TestP4_FleetFarRedis_ServesUncachedChecks: at a round trip of 60 ms, with the default
// read_timeout, a gate serves sessions that it has never seen. A busy machine may take
// longer than a check waits, but the client's retry is served. One line says so.
func TestP4_FleetFarRedis_ServesUncachedChecks(t *testing.T) {
	slow(t)
	t.Parallel()
	f := prepareFleet(t, mixed)
	p := redistest.StartProxy(t, f.redis.Addr)
	far := shared(mixed, p.Addr)
	far.wechat = strings.Replace(far.wechat, "read_timeout 2s", "", 1)
	f.b = prepareWorld(t, far)
	f.b.wechat = f.a.wechat
	p.Delay(30 * time.Millisecond)
	for _, w := range f.gates() {
		w.start(t)
		w.takesLogins(t)
	}
	refused := 0
	for range 5 {
		token := f.a.login(t, "ada")
		eventually(t, "the check is served", func() bool {
			r := f.b.call(t, "GET", "/x", "", bearer(token))
			if !r.fromApp() {
				r.problem(t, 503, "store_unavailable")
				refused++
			}
			return r.fromApp()
		})
		f.b.checkAlive(t, token, f.a.who(appA, "ada"))
	}
	t.Logf("%d checks answered 503 beside 5 that were served", refused)
	line := `"redis is far away; look-ups may exceed read_timeout"`
	eventually(t, "the log warns", func() bool { return strings.Contains(f.b.out.String(), line) })
	if n := strings.Count(f.b.out.String(), line); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// TestP7_FleetStoreEmptied_IsToldAndNotReloadedTo: a reload does not move to a database
// without sessions unless the operator writes so, and a FLUSHALL is one loud line.
func TestP7_FleetStoreEmptied_IsToldAndNotReloadedTo(t *testing.T) {
	slow(t)
	t.Parallel()
	f := prepareFleet(t, mixed)
	w := f.a
	w.start(t)
	w.takesLogins(t)
	token := w.login(t, "ada")
	ada := w.who(appA, "ada")

	wrong := w.setup
	wrong.wechat = strings.Replace(wrong.wechat, "password", "db 1\n\t\t\tpassword", 1)
	if status, said := w.reload(t, w.caddyfile(wrong)); status == 200 ||
		!strings.Contains(said, "all users would be logged out") {
		t.Errorf("reloading to another database: status %d: %s", status, said)
	}
	w.checkAlive(t, token, ada)
	w.mustReload(t, w.setup)
	consented := wrong
	consented.wechat = strings.Replace(wrong.wechat, "db 1", "db 1\n\t\t\tnew", 1)
	w.mustReload(t, consented)
	w.checkDead(t, token)
	w.mustReload(t, w.setup) // an empty store gives way to any
	w.checkAlive(t, token, ada)

	line := `"session store was emptied or replaced: all users are logged out"`
	f.redis.Do("FLUSHALL")
	eventually(t, "the log says so", func() bool { return strings.Contains(w.out.String(), line) })
	w.refuses(t, token)
	w.takesLogins(t)
	if n := strings.Count(w.out.String(), line); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if n := w.metrics(t)["caddy_wechat_damaged_stores_total"]; n != 1 {
		t.Errorf("counted %v times", n)
	}
}

// TestP7_FleetPasswordChanges_IsTakenUp: a reload takes up a password that Redis has
// already changed, and warns of one that Redis does not know yet. No user notices.
func TestP7_FleetPasswordChanges_IsTakenUp(t *testing.T) {
	slow(t)
	t.Parallel()
	f := prepareFleet(t, mixed)
	w := f.a
	file := w.write(t, "redis-password", fleetPassword)
	s := w.setup
	s.wechat = strings.Replace(s.wechat, "{env.REDIS_PASSWORD}", "{file."+file+"}", 1)
	w.setup = s
	w.start(t)
	w.takesLogins(t)
	ada := w.who(appA, "ada")
	token := w.login(t, "ada")
	taken := func() int { return strings.Count(w.out.String(), `"settings of redis taken up"`) }

	second, third := fleetPassword+"-2", fleetPassword+"-3"
	f.redis.Do("CONFIG", "SET", "requirepass", second)
	f.redis.Password(second)
	w.write(t, "redis-password", second)
	w.mustReload(t, s)
	w.checkAlive(t, token, ada)
	w.login(t, "ada")
	eventually(t, "the password is taken up", func() bool { return taken() > 0 })
	if n := taken(); n != 1 {
		t.Errorf("taken up %d times", n)
	}

	w.write(t, "redis-password", third)
	w.mustReload(t, s)
	eventually(t, "the log tells of a password that Redis refuses", func() bool {
		return strings.Contains(w.out.String(), `"settings of session store not taken up"`) &&
			strings.Contains(w.out.String(), "WRONGPASS")
	})
	w.login(t, "ada")
	f.redis.Do("CONFIG", "SET", "requirepass", third)
	eventually(t, "the password is taken up", func() bool { return taken() == 2 })
	f.redis.Password(third)
	f.redis.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	w.takesLogins(t)
	w.checkAlive(t, token, ada)
}
