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
