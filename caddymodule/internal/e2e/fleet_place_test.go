package e2e_test

import (
	"path/filepath"
	"strings"
	"testing"

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
