// Package redisstore is the Caddy face of the session store that several gates share: the module `wechat.stores.redis`. It owns the configuration and nothing else; what is done with it is in
// internal/store/redis, which knows no Caddy. It is a package of its own because the client that it brings adds about 10 MB to a program.
package redisstore

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
)

func init() { caddy.RegisterModule(new(Store)) }

// Store keeps the sessions in Redis 6.2 or later, or Valkey, which several gates share: a session made at one is good at all of them, and one that is ended is refused by all of them. It needs
// `seal_key`, the same for all gates.
//
// In a Caddyfile:
//
//	store redis <host:port>...
//
//	store redis {
//		address <host:port>...
//		username <name>
//		password <placeholder>
//		db <number>
//		tls {
//			ca <file>
//			cert <file>
//			key <file>
//			server_name <name>
//			insecure_skip_verify
//		}
//		sentinel {
//			master <name>
//			username <name>
//			password <placeholder>
//		}
//		cluster
//		prefix <text>
//		dial_timeout <duration>
//		read_timeout <duration>
//		write_timeout <duration>
//	}
//
// The server need not be there when the gate starts. A reload keeps the connections as long as addresses, db, prefix and sentinel master stay the same: other changes take effect with the next
// start.
//
// Other values than numbers, durations and the prefix may be placeholders too.
type Store struct {
	// Where the server is, as host:port, or a path for a unix socket. With `sentinel` these are the sentinels, with `cluster` some of its nodes; else there is one.
	Addresses []string `json:"addresses,omitempty"`

	// The ACL user. Default: the server's default user.
	Username string `json:"username,omitempty"`

	// The password, as a placeholder: `{env.REDIS_PASSWORD}` or `{file./run/secrets/redis}`. Default: none.
	Password string `json:"password,omitempty"`

	// The number of the database. A cluster has only database 0. Default: 0.
	DB int `json:"db,omitempty"`

	// Speaks TLS, 1.2 or later, when it is there, even with nothing in it. Default: plain TCP.
	TLS *TLS `json:"tls,omitempty"`

	// Asks sentinels where the primary is. Default: the address is that of the server.
	Sentinel *Sentinel `json:"sentinel,omitempty"`

	// The addresses are nodes of a cluster, which tells of the others. Default: false.
	Cluster bool `json:"cluster,omitempty"`

	// Begins the name of every key: letters, digits and :_.- up to 64. Fleets on one server have different ones. Default: `wxgate:`.
	Prefix string `json:"prefix,omitempty"`

	// How long making a connection may take, from 10ms to 1m. Default: 1s.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`

	// How long a request waits for a look-up before it is answered 503, from 10ms to 2s. Default: 80ms.
	ReadTimeout caddy.Duration `json:"read_timeout,omitempty"`

	// How long the store may take for a login, a log-out or a revocation, from 100ms to 1m. Default: 2s.
	WriteTimeout caddy.Duration `json:"write_timeout,omitempty"`

	cfg   redis.Config
	log   *zap.Logger
	unset []string // placeholders that stand for nothing
}

// TLS is how the server is known, and the gate to the server.
type TLS struct {
	// A file with the certificates, in PEM, of the authorities that may vouch for the server. Default: those of the system.
	CA string `json:"ca,omitempty"`

	// A file with the gate's own certificate, in PEM, for servers that ask for one. Default: none.
	Cert string `json:"cert,omitempty"`

	// A file with the key of `cert`, in PEM.
	Key string `json:"key,omitempty"`

	// The name that the server's certificate must have. Default: the host of its address.
	ServerName string `json:"server_name,omitempty"`

	// Accepts any certificate: whoever is on the way to the server can read and change every session. Default: false.
	InsecureSkipVerify bool `json:"insecure_skip_verify,omitempty"`
}

// Sentinel is how the sentinels are asked.
type Sentinel struct {
	// The name of the primary, as `sentinel monitor` gives it.
	Master string `json:"master,omitempty"`

	// The ACL user of the sentinels themselves. Default: their default user.
	Username string `json:"username,omitempty"`

	// The password of the sentinels themselves, as a placeholder. Default: none.
	Password string `json:"password,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "wechat.stores.redis", New: func() caddy.Module { return new(Store) }}
}

// Provision reads the configuration and the files that it names. It opens no connection.
func (s *Store) Provision(ctx caddy.Context) error {
	s.log = ctx.Logger()
	if err := s.check(); err != nil {
		return fmt.Errorf("store redis: %w", err)
	}
	if err := s.resolve(); err != nil {
		return fmt.Errorf("store redis: %w", err)
	}
	return nil
}

// resolve makes the engine's configuration. What placeholders stand for goes there and nowhere else: the module's own fields can be read back through the admin API.
func (s *Store) resolve() (err error) {
	r := resolver{}
	s.cfg = redis.Config{
		Username: r.text("username", s.Username), Password: r.secret("password", s.Password), DB: s.DB, Cluster: s.Cluster, Prefix: cmp.Or(s.Prefix, "wxgate:"),
		DialTimeout:  time.Duration(cmp.Or(s.DialTimeout, caddy.Duration(time.Second))),
		ReadTimeout:  time.Duration(cmp.Or(s.ReadTimeout, caddy.Duration(80*time.Millisecond))),
		WriteTimeout: time.Duration(cmp.Or(s.WriteTimeout, caddy.Duration(2*time.Second))),
	}
	for _, a := range s.Addresses {
		s.cfg.Addresses = append(s.cfg.Addresses, r.checked("address", a, checkAddress))
	}
	if s.Sentinel != nil {
		s.cfg.Sentinel = &redis.Sentinel{
			Master: r.text("master", s.Sentinel.Master), Username: r.text("username of sentinel", s.Sentinel.Username), Password: r.secret("password of sentinel", s.Sentinel.Password),
		}
	}
	if s.TLS != nil {
		s.cfg.TLS = s.TLS.config(&r)
	}
	s.unset = r.unset
	return r.err
}

// Validate warns of what will keep the gate from starting, or is better not done.
func (s *Store) Validate() error {
	for _, what := range s.unset {
		s.log.Warn("a placeholder stands for nothing: the gate will not start like this", zap.String("placeholder", what))
	}
	if s.TLS != nil && s.TLS.InsecureSkipVerify {
		s.log.Warn("insecure_skip_verify: whoever is on the way to the session store can read and change every session")
	}
	return nil
}

// Identity names addresses, sentinel master, database and prefix.
func (s *Store) Identity() string {
	addresses := slices.Sorted(slices.Values(s.cfg.Addresses))
	var b strings.Builder
	b.WriteString("redis:" + strings.Join(addresses, ","))
	if s.cfg.Sentinel != nil {
		b.WriteString("/" + s.cfg.Sentinel.Master)
	}
	fmt.Fprintf(&b, "/%d/%s", s.cfg.DB, s.cfg.Prefix)
	return b.String()
}

// Open returns the store whether or not its server can be reached.
func (s *Store) Open(log *zap.Logger) (store.Store, error) {
	if len(s.unset) > 0 {
		return nil, fmt.Errorf("%s is empty: set the environment variable or write the file that it names", s.unset[0])
	}
	cfg := s.cfg
	cfg.Logger = log
	st, err := redis.Open(cfg)
	if err != nil {
		return nil, err // not the typed nil that st holds
	}
	return st, nil
}

// Interface guards
var (
	_ store.Opener      = (*Store)(nil)
	_ caddy.Provisioner = (*Store)(nil)
	_ caddy.Validator   = (*Store)(nil)
)
