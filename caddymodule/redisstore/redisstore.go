// Package redisstore is the module `wechat.stores.redis`: the configuration of the
// session store that several gates share. The engine itself is internal/store/redis,
// which knows no Caddy. The package stands alone because its client library adds
// about 10 MB to a program.
package redisstore

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redis"
)

func init() { caddy.RegisterModule(new(Store)) }

// Store keeps the sessions in Redis 6.2 or later, or Valkey, which several gates
// share: a session from one is good at all of them, and all of them refuse a session
// that one has ended. It needs `seal_key`, the same for all gates.
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
//		new
//		dial_timeout <duration>
//		read_timeout <duration>
//		write_timeout <duration>
//	}
//
// The gate starts also while the server is down. A reload keeps the cache as long as
// addresses, db, prefix and sentinel master stay the same: it takes up other changes on
// new connections, and warns when the server refuses them. Each new connection reads
// the TLS files again.
//
// All values but numbers, durations and the prefix may be placeholders.
type Store struct {
	// Where the server is, as host:port, or a path for a unix socket. With `sentinel`
	// these are the sentinels, with `cluster` some of its nodes; else there is one.
	Addresses []string `json:"addresses,omitempty"`

	// The ACL user. Default: the server's default user.
	Username string `json:"username,omitempty"`

	// The password, as a placeholder: `{env.REDIS_PASSWORD}` or
	// `{file./run/secrets/redis}`. Default: none.
	Password string `json:"password,omitempty"`

	// The number of the database. A cluster has only database 0. Default: 0.
	DB int `json:"db,omitempty"`

	// Speaks TLS, 1.2 or later, also with nothing in it. Default: plain TCP.
	TLS *TLS `json:"tls,omitempty"`

	// Asks sentinels where the primary is. Default: the address is that of the server.
	Sentinel *Sentinel `json:"sentinel,omitempty"`

	// The addresses are nodes of a cluster, which tells of the others. Default: false.
	Cluster bool `json:"cluster,omitempty"`

	// Begins the name of every key: up to 64 letters, digits and any of :_.- . Fleets
	// on one server have different ones. Default: `wxgate:`.
	Prefix string `json:"prefix,omitempty"`

	// Lets a reload move from a store that holds sessions to this one although it
	// holds none, which logs all users out. Default: false, the reload is refused.
	New bool `json:"new,omitempty"`

	// The longest time for making a connection, from 10ms to 1m. Default: 1s.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`

	// The longest time for a look-up, from 10ms to 2s. After it the gate answers a
	// request with 503. Default: 80ms.
	ReadTimeout caddy.Duration `json:"read_timeout,omitempty"`

	// The longest time for a login, a log-out or a revocation, from 100ms to 1m.
	// Default: 2s.
	WriteTimeout caddy.Duration `json:"write_timeout,omitempty"`

	cfg   redis.Config
	log   *zap.Logger
	unset []string // empty placeholders
}

// TLS says how gate and server identify each other.
type TLS struct {
	// A file with the certificates, in PEM, of the authorities that may sign the
	// server's certificate. Default: the authorities of the system.
	CA string `json:"ca,omitempty"`

	// A file with the gate's own certificate, in PEM, for servers that ask for one.
	// Default: none.
	Cert string `json:"cert,omitempty"`

	// A file with the key of `cert`, in PEM.
	Key string `json:"key,omitempty"`

	// The name that the server's certificate must have. Default: the host of
	// its address.
	ServerName string `json:"server_name,omitempty"`

	// Accepts any certificate: anyone in the network between gate and server can read
	// and change every session. Default: false.
	InsecureSkipVerify bool `json:"insecure_skip_verify,omitempty"`
}

// Sentinel says how to ask the sentinels.
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
	return caddy.ModuleInfo{
		ID:  "wechat.stores.redis",
		New: func() caddy.Module { return new(Store) },
	}
}

// Provision reads the configuration and the files that it names. It opens no
// connection.
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

// resolve makes the engine's configuration, the only place for the values of
// placeholders: the admin API shows the module's own fields.
func (s *Store) resolve() error {
	r := resolver{}
	s.cfg = redis.Config{
		Username:     r.text("username", s.Username),
		Password:     r.secret("password", s.Password),
		DB:           s.DB,
		Cluster:      s.Cluster,
		Prefix:       cmp.Or(s.Prefix, redis.DefaultPrefix),
		DialTimeout:  time.Duration(s.DialTimeout),
		ReadTimeout:  time.Duration(s.ReadTimeout),
		WriteTimeout: time.Duration(s.WriteTimeout),
	}
	for _, a := range s.Addresses {
		s.cfg.Addresses = append(s.cfg.Addresses, r.checked("address", a, checkAddress))
	}
	if s.Sentinel != nil {
		s.cfg.Sentinel = &redis.Sentinel{
			Master:   r.text("master", s.Sentinel.Master),
			Username: r.text("username of sentinel", s.Sentinel.Username),
			Password: r.secret("password of sentinel", s.Sentinel.Password),
		}
	}
	if s.TLS != nil {
		s.cfg.TLS, s.cfg.TLSDigest = s.TLS.config(&r)
		s.cfg.ReadTLS = s.readTLS
	}
	s.unset = r.unset
	return r.err
}

// readTLS reads the files of TLS again.
func (s *Store) readTLS() (*tls.Config, error) {
	var r resolver
	c, _ := s.TLS.config(&r)
	return c, r.err
}

// Missing returns the placeholders that have no value.
func (s *Store) Missing() []string { return s.unset }

// Validate warns of settings that keep the gate from starting, or are unsafe.
func (s *Store) Validate() error {
	for _, what := range s.unset {
		s.log.Warn("placeholder is empty; the gate will refuse to start",
			zap.String("placeholder", what))
	}
	if s.TLS != nil && s.TLS.InsecureSkipVerify {
		s.log.Warn("insecure_skip_verify: the session store is not authenticated")
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
		return nil, fmt.Errorf(
			"%s is empty: set the environment variable or write the file that it names", s.unset[0])
	}
	cfg := s.cfg
	cfg.Logger = log
	st, err := redis.Open(cfg)
	if err != nil {
		return nil, err // not the typed nil that st holds
	}
	return st, nil
}

// MayBegin implements store.Consenter.
func (s *Store) MayBegin() bool { return s.New }

// Renew implements store.Renewer.
func (s *Store) Renew(st store.Store) error {
	open, ok := st.(*redis.Store)
	if !ok {
		return nil
	}
	return open.Renew(s.cfg)
}

// resolver replaces placeholders. It keeps the first error, and the placeholders that
// are empty: those are no error, since a configuration can be checked on a machine
// without its secrets.
type resolver struct {
	unset []string
	err   error
}

func (r *resolver) fail(err error) { r.err = cmp.Or(r.err, err) }

// value resolves a value, unless it was left out.
func (r *resolver) value(what, value string, resolve func() (string, error)) string {
	if value == "" {
		return ""
	}
	got, err := resolve()
	if err != nil {
		r.fail(err)
	} else if got == "" {
		r.unset = append(r.unset, what+" "+value)
	}
	return got
}

func (r *resolver) text(what, value string) string {
	return r.value(what, value, func() (string, error) {
		got, err := caddy.NewReplacer().ReplaceOrErr(value, false, true)
		if err != nil {
			return "", fmt.Errorf("resolving %s: %w", what, err)
		}
		return got, nil
	})
}

func (r *resolver) secret(what, value string) string {
	return r.value(what, value, func() (string, error) { return block.ResolveSecret(what, value) })
}

// checked is text for a value that has to pass a check.
func (r *resolver) checked(what, value string, check func(string) error) string {
	got := r.text(what, value)
	if got != "" {
		r.fail(check(got))
	}
	return got
}

// file returns the content of a file; nil when it was left out.
func (r *resolver) file(what, path string) []byte {
	if path = r.text(what, path); path == "" || r.err != nil {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		r.fail(fmt.Errorf("reading %s: %w", what, err))
	}
	return b
}

// config returns the TLS configuration, and a digest of its words and files.
func (t *TLS) config(r *resolver) (c *tls.Config, digest string) {
	c = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         r.text("tls server_name", t.ServerName),
		InsecureSkipVerify: t.InsecureSkipVerify,
	}
	ca := r.file("tls ca", t.CA)
	if ca != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			r.fail(fmt.Errorf("reading tls ca: %s holds no certificate in PEM", t.CA))
		}
	}
	cert, key := r.file("tls cert", t.Cert), r.file("tls key", t.Key)
	if cert != nil && key != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			r.fail(fmt.Errorf("reading tls cert %s with tls key %s: %w", t.Cert, t.Key, err))
		}
		c.Certificates = []tls.Certificate{pair}
	}
	words := fmt.Sprintf("%q %v %q %q %q", c.ServerName, c.InsecureSkipVerify, ca, cert, key)
	sum := sha256.Sum256([]byte(words))
	return c, hex.EncodeToString(sum[:])
}

// Interface guards
var (
	_ store.Opener      = (*Store)(nil)
	_ store.Consenter   = (*Store)(nil)
	_ store.Renewer     = (*Store)(nil)
	_ caddy.Provisioner = (*Store)(nil)
	_ caddy.Validator   = (*Store)(nil)
)
